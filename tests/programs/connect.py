"""connect.py tcp|udp HOST PORT [HOST PORT ...]

Tries each and prints one line for each: "ok WORD" with what the server said
first (TCP) or echoed (UDP), or "failed NAME" with the error's name. Never an
exit code but 0: what was expected is the test's business. A hang is "failed
TimeoutError".
"""
import errno
import socket
import sys

LIMIT = 8.0


def tcp(address):
    with socket.socket(address[0], socket.SOCK_STREAM) as s:
        s.settimeout(LIMIT)
        s.connect(address[4])
        said = s.recv(100)
        return said.decode().strip() if said else None


def udp(address):
    with socket.socket(address[0], socket.SOCK_DGRAM) as s:
        s.settimeout(LIMIT)
        s.connect(address[4])
        s.send(b"ping")
        return s.recv(100).decode()


def attempt(protocol, host, port):
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    try:
        address = socket.getaddrinfo(host, int(port), 0, kind)[0]
        said = (tcp if protocol == "tcp" else udp)(address)
        return f"ok {said}" if said is not None else "failed EOF"
    except socket.gaierror as error:
        return f"failed {error.args[0]} {error.args[1]}"
    except TimeoutError as error:
        return "failed " + (errno.errorcode[error.errno] if error.errno else "TimeoutError")
    except OSError as error:
        return f"failed {errno.errorcode.get(error.errno, error.errno)}"


protocol, *rest = sys.argv[1:]
for host, port in zip(rest[::2], rest[1::2]):
    print(attempt(protocol, host, port), flush=True)
