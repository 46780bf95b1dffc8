"""half_close.py HOST PORT BYTES: sends, closes its own direction, then reads
the length and the same bytes back until the end."""
import socket
import sys
import threading

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
payload = bytes((at * 13) & 0xFF for at in range(256)) * (count // 256)
s = socket.create_connection((host, port), timeout=30)


def write():
    s.sendall(payload)
    s.shutdown(socket.SHUT_WR)


threading.Thread(target=write).start()
parts = []
while part := s.recv(65536):
    parts.append(part)
line, _, back = b"".join(parts).partition(b"\n")
print("sent", len(payload), "server counted", line.decode(), "back", back == payload)
