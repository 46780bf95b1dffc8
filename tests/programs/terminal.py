# A shell with job control for one job, and who types at it: a line, Ctrl-C, Ctrl-Z and fg.
import os, pty, select, signal, sys, time

def shell():
    """Starts the job in the foreground and continues it once when it stops."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.execvp(sys.argv[1], sys.argv[1:])
    while True:
        _, status = os.waitpid(job, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            break
        print("STOPPED" if os.tcgetpgrp(0) == job else "STOPPED without the terminal", flush=True)
        os.tcsetpgrp(0, job)
        os.killpg(job, signal.SIGCONT)
    # odyn-net must have given the terminal back to its own group.
    print("BACK" if os.tcgetpgrp(0) == job else "LOST", flush=True)
    os._exit(os.waitstatus_to_exitcode(status))

child, terminal = pty.fork()
if child == 0:
    shell()
seen = b""
deadline = time.monotonic() + 40
def until(text):
    global seen
    while text not in seen:
        if not select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0]:
            sys.exit("waited in vain for %r" % text)
        try:
            chunk = os.read(terminal, 4096)
        except OSError:
            sys.exit("ended before %r" % text)
        os.write(1, chunk)
        seen += chunk
until(b"ready")
os.write(terminal, b"hello\n")
until(b"read hello")
os.write(terminal, b"\x03")
until(b"ready to stop")
os.write(terminal, b"\x1a")
until(b"continued")
open("end", "w").close()
until(b"BACK") if b"LOST" not in seen else None
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
