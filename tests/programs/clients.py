"""clients.py EVENTS CONTROL HOST PORT: a client of the guest's app after the other, while the
file CONTROL says "load", until it says "stop".

One line in EVENTS for each that was accepted: kind, begin, end (seconds since the epoch), outcome.
"""
import errno
import os
import socket
import sys
import time

events = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def client():
    with socket.socket() as s:
        s.settimeout(60)
        try:
            s.connect((sys.argv[3], int(sys.argv[4])))
            s.sendall(b"a")
            return "ok" if s.recv(1) == b"a" else "eof"
        except TimeoutError:
            return "hung"
        except ConnectionRefusedError:
            return None
        except OSError as error:
            return errno.errorcode.get(error.errno, "OSError")


while True:
    with open(sys.argv[2]) as file:
        phase = file.read().strip()
    if phase == "stop":
        break
    if phase == "load":
        began = time.time()
        if outcome := client():
            line = f"client {began:.6f} {time.time():.6f} {outcome}\n"
            os.write(events, line.encode())
    time.sleep(0.01)
