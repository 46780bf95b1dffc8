"""app.py MODE PORT [BYTES]: a server on loopback.

after-end  reads to the end of input, then answers with its length and itself
reset      reads the first bytes, then resets the connection
hold       reads the first byte and says nothing
one        answers the first request over HTTP with BYTES bytes, and exits at
           once: what it has written is then in the kernel only
"""
import os
import socket
import struct
import sys
import threading

mode, port = sys.argv[1], int(sys.argv[2])
size = int(sys.argv[3]) if len(sys.argv) > 3 else 0
server = socket.create_server(("127.0.0.1", port), backlog=1024)
print("ready", flush=True)


def read_all(client):
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def serve(client):
    if mode == "after-end":
        received = read_all(client)
        client.sendall(b"%d\n" % len(received) + received)
    elif mode == "reset":
        client.recv(16)
        linger = struct.pack("ii", 1, 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    elif mode == "hold":
        print("first", client.recv(1).decode(), flush=True)
        read_all(client)
        print("end", flush=True)
    client.close()


def answer_and_exit(client):
    while b"\r\n\r\n" not in client.recv(65536, socket.MSG_PEEK):
        pass
    client.recv(65536)
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
    block = bytes((at * 31) & 0xFF for at in range(65536))
    for _ in range(size // len(block)):
        client.sendall(block)
    os._exit(7)


while True:
    client, _ = server.accept()
    if mode == "one":
        answer_and_exit(client)
    threading.Thread(target=serve, args=(client,), daemon=True).start()
