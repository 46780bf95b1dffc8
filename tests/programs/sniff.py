"""Writes every packet that this network namespace sends or gets into a file: sniff.py FILE."""
import socket
import sys

tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
with open(sys.argv[1], "wb", buffering=0) as file:
    print("ready", flush=True)
    while True:
        file.write(tap.recv(1 << 16))
