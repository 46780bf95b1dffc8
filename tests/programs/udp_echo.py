"""udp_echo.py HOST PORT [connected|unconnected] SIZE...

Sends one datagram of each size and checks that the same bytes come back from
where they were sent. A datagram may be lost: it is sent again, a few times.
"""
import socket
import sys

host, port, style, *sizes = sys.argv[1:]
address = socket.getaddrinfo(host, int(port), 0, socket.SOCK_DGRAM)[0]
s = socket.socket(address[0], socket.SOCK_DGRAM)
s.settimeout(2)
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
if style == "connected":
    s.connect(address[4])
lost = 0
for number, size in enumerate(map(int, sizes)):
    payload = bytes((number + at * 31) & 0xFF for at in range(size))
    for _ in range(5):
        if style == "connected":
            s.send(payload)
        else:
            s.sendto(payload, address[4])
        try:
            back, source = s.recvfrom(70000)
        except TimeoutError:
            lost += 1
            continue
        # An answer to an earlier attempt that was only late is no failure.
        if len(back) == size:
            break
    else:
        sys.exit(f"no answer of {size} bytes")
    if back != payload:
        sys.exit(f"{size} bytes came back changed")
    if source[:2] != address[4][:2]:
        sys.exit(f"answer from {source}, sent to {address[4]}")
print(f"echoed {len(sizes)} lost {lost}")
