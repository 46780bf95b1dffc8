"""stalled.py SLOW-HOST PORT URL: fills a connection that the peer does not read, then
downloads beside it."""
import select
import socket
import sys
import urllib.request

slow = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)
slow.setblocking(False)
block = b"x" * 65536
accepted = 0
# Full is when no room comes for two seconds; 1 GiB taken is no back-pressure.
while accepted < 1 << 30:
    if not select.select([], [slow], [], 2.0)[1]:
        break
    try:
        accepted += slow.send(block)
    except BlockingIOError:
        pass
total = 0
with urllib.request.urlopen(sys.argv[3], timeout=30) as response:
    while part := response.read(1 << 16):
        total += len(part)
print("stalled after", accepted, "downloaded", total)
"""The stalled flow is reset, not drained: it has a peer that never reads."""
slow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
slow.close()
