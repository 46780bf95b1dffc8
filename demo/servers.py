"""The demo's servers: web servers on port 80 and a UDP echo on port 7."""
import http.server
import socket
import socketserver
import threading


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = f"Hello from {self.headers['Host']} at {self.server.server_address[0]}\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def server_bind(self):
        # Without HTTPServer's look-up of its own name.
        socketserver.TCPServer.server_bind(self)


def echo(address):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((address, 7))
    while True:
        data, peer = s.recvfrom(65535)
        s.sendto(data, peer)


for address in ("203.0.113.10", "203.0.113.66", "169.254.169.254"):
    server = Server((address, 80), Page)
    threading.Thread(target=server.serve_forever).start()
    threading.Thread(target=echo, args=(address,)).start()
print("ready", flush=True)
