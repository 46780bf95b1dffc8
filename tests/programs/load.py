"""load.py EVENTS CONTROL: every kind of flow at the same time, for as long as the file CONTROL
says "load"; all are closed when it says "quiet", and the app ends when it says "stop".

One line in EVENTS for each flow that was opened: kind, begin, end (seconds since the epoch), outcome.
"""
import errno
import os
import socket
import struct
import sys
import threading
import time

HOST = "203.0.113.20"
PORTS = {"probe": 7000, "short": 7001, "up": 7002, "down": 7003, "idle": 7004, "full": 7005}
UDP_PORT = 7006
NAMESERVER = ("192.0.2.53", 53)
# A call that takes this long has hung.
HUNG = 60

events = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
phase = "load"
blocked = set()
lock = threading.Lock()


def event(kind, began, outcome):
    line = f"{kind} {began:.6f} {time.time():.6f} {outcome}\n"
    os.write(events, line.encode())


def flow(kind, use, address=None):
    """Opens a connection and uses it. Not counted when it was not accepted."""
    began = time.time()
    with socket.socket() as s:
        s.settimeout(HUNG)
        with lock:
            blocked.add(s)
        try:
            s.connect((address or HOST, PORTS[kind]))
            outcome = use(s) or "ok"
        except TimeoutError:
            outcome = "hung"
        except ConnectionRefusedError:
            outcome = None
        except OSError as error:
            outcome = errno.errorcode.get(error.errno, "OSError")
        finally:
            with lock:
                blocked.discard(s)
    if outcome:
        event(kind, began, outcome)
    if outcome != "ok":
        time.sleep(0.005)


def echo(s):
    s.sendall(b"a")
    return None if s.recv(1) == b"a" else "eof"


def up(s):
    block = bytes(65536)
    while phase == "load":
        s.sendall(block)
        time.sleep(0.002)


def down(s):
    while phase == "load":
        if not s.recv(65536):
            return "eof"


def idle(s):
    if s.recv(1) != b"h":
        return "eof"
    return "eof" if phase == "load" and not s.recv(1) and phase == "load" else None


def full(s):
    block = bytes(65536)
    while phase == "load":
        s.sendall(block)


def datagrams():
    """One socket until it fails; an answer may be lost."""
    began = time.time()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(0.2)
        s.connect((HOST, UDP_PORT))
        outcome = "ok"
        while phase == "load":
            try:
                s.send(b"datagram")
                s.recv(100)
                time.sleep(0.01)
            except TimeoutError:
                pass
            except OSError as error:
                outcome = errno.errorcode.get(error.errno, "OSError")
                break
    event("udp", began, outcome)


count = 0


def question():
    """A name that is asked for the first time, and a connection to its address."""
    global count
    with lock:
        count += 1
        label = f"n{os.getpid()}-{count}"
    name = b"".join(
        bytes([len(part)]) + part.encode() for part in [label, "dyn", "shop", "example"]
    )
    query = struct.pack(">HHHHHH", count & 0xFFFF, 0x0100, 1, 0, 0, 0) + name + b"\0\0\1\0\1"
    began = time.time()
    address = None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        # As long as a libc waits.
        s.settimeout(5)
        try:
            s.sendto(query, NAMESERVER)
            answer = s.recv(4096)
            outcome = f"rcode{answer[3] & 15}"
            if outcome == "rcode0":
                address = socket.inet_ntoa(answer[-4:])
        except TimeoutError:
            outcome = "timeout"
        except OSError as error:
            outcome = errno.errorcode.get(error.errno, "OSError")
    event("dns", began, outcome)
    if address:
        flow("short", echo, address)
    time.sleep(0.02)


def probe():
    flow("probe", echo)
    time.sleep(0.005)


def answer(s):
    with s:
        s.settimeout(HUNG)
        try:
            while part := s.recv(100):
                s.sendall(part)
        except OSError:
            pass


def serve():
    """Answers clients of ours, until the end."""
    listener = socket.create_server(("127.0.0.1", 8080))
    listener.settimeout(0.1)
    while phase != "stop":
        try:
            s, _ = listener.accept()
            threading.Thread(target=answer, args=[s]).start()
        except TimeoutError:
            pass


def talk():
    """Says lines with numbers, and at the end how many."""
    number = 0
    while phase != "stop":
        print("line", number, flush=True)
        number += 1
        time.sleep(0.005)
    print("lines", number, flush=True)


WORKERS = [
    (3, probe),
    (2, lambda: flow("short", echo)),
    (1, lambda: flow("up", up)),
    (1, lambda: flow("down", down)),
    (6, lambda: flow("idle", idle)),
    (1, lambda: flow("full", full)),
    (2, datagrams),
    (2, question),
]


def worker(work):
    while phase != "stop":
        if phase == "load":
            work()
        else:
            time.sleep(0.02)


threads = [
    threading.Thread(target=worker, args=[work]) for number, work in WORKERS for _ in range(number)
]
threads += [threading.Thread(target=serve), threading.Thread(target=talk)]
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    with open(sys.argv[2]) as file:
        phase = file.read().strip() or phase
    if phase != "load":
        with lock:
            for s in blocked:
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
    time.sleep(0.02)
