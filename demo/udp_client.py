"""udp_client.py HOST PORT: sends a datagram and prints what comes back."""
import socket
import sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.connect((sys.argv[1], int(sys.argv[2])))
s.send(b"a datagram")
try:
    print("echoed:", s.recv(100).decode())
except OSError as error:
    sys.exit(f"error: {error}")
