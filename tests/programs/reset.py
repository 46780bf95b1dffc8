"""reset.py HOST PORT: sends, reads, and prints how the connection ended."""
import errno
import socket
import sys

s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)
s.sendall(b"please reset")
try:
    print("read", s.recv(100))
except OSError as error:
    print(errno.errorcode[error.errno] if error.errno else "timeout")
