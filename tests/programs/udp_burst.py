"""udp_burst.py HOST PORT

Sends several datagrams without waiting, again and again, and checks that they come back one by one,
unchanged and in order. Says how many bytes that were.
"""
import socket
import sys

host, port = sys.argv[1:]
address = socket.getaddrinfo(host, int(port), 0, socket.SOCK_DGRAM)[0]
s = socket.socket(address[0], socket.SOCK_DGRAM)
s.settimeout(10)
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
s.connect(address[4])
bursts = [
    [200] * 64,
    [200, 200, 0, 200, 200, 0, 0, 200],
    [200] * 20 + [100] + [200] * 20,
    [1, 2, 3, 3, 3, 2, 2, 1],
    [1472] * 20,
    [1473] * 10,
    [1472] * 10,
    [3000] * 10,
    [200] * 64,
    [20000] * 3,
    [65507],
]
total = 0
for round in range(5):
    for burst in bursts:
        sent = []
        for number, size in enumerate(burst):
            sent.append(bytes((round + number * 7 + at) & 0xFF for at in range(size)))
        for payload in sent:
            s.send(payload)
        for payload in sent:
            back = s.recv(70000)
            if back != payload:
                sys.exit(f"{len(payload)} bytes came back as {len(back)}, or changed, in {burst}")
            total += len(back)
print(f"echoed {total}")
