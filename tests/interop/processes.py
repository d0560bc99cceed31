"""Processes that never outlive us, with logs, and waits that always end."""
import ctypes
import os
import signal
import socket
import subprocess
import time

PR_SET_PDEATHSIG = 1
LOG_TAIL_BYTES = 6000


class Child:
    """A started program. Its output goes to a log file; it is killed when we die."""

    def __init__(self, name, argv, folder, env=None, stop_signal=signal.SIGINT, stdout=None, cwd=None):
        os.makedirs(folder, exist_ok=True)
        self.name, self.argv, self.stop_signal = name, list(map(str, argv)), stop_signal
        self.log_path = os.path.join(folder, f"{name}.log")
        self.stdout_path = os.path.join(folder, stdout) if stdout else None
        self.started = time.monotonic()
        with open(self.log_path, "ab") as log:
            out = open(self.stdout_path, "wb") if stdout else log
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=log,
                                            cwd=cwd or folder, env={**os.environ, **(env or {})},
                                            preexec_fn=_die_with_parent)
            if stdout:
                out.close()

    @property
    def pid(self):
        return self.process.pid

    def is_running(self):
        return self.process.poll() is None

    def wait(self, seconds):
        """Its exit status, or None when it still runs after that long. Exact to 10 ms."""
        deadline = time.monotonic() + seconds
        while True:
            status = self.process.poll()
            if status is not None or time.monotonic() >= deadline:
                return status
            time.sleep(0.01)

    def stop(self, seconds=15):
        """Asks it to end, then makes it. The exit status; None when it had to be killed."""
        if self.is_running():
            self.process.send_signal(self.stop_signal)
        status = self.wait(seconds)
        if status is None:
            self.kill()
        return status

    def kill(self):
        """SIGKILL, and gone when this returns."""
        if self.is_running():
            self.process.kill()
        self.process.wait()

    def log(self):
        """The end of what it printed."""
        text = b""
        for path in filter(None, (self.log_path, self.stdout_path)):
            with open(path, "rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
                text += file.read()
        return text.decode(errors="replace")


def eventually(check, seconds, every=0.05):
    """Calls `check` until it returns something true; that, or None when time is up."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() >= deadline:
            return None
        time.sleep(every)


def listens(ip, port):
    """Whether somebody accepts TCP connections there."""
    try:
        socket.create_connection((ip, port), timeout=1).close()
    except OSError:
        return False
    return True


def logs_of(children):
    """The end of what each printed, under its command."""
    return "\n".join(f"---- {child.name}: {' '.join(child.argv)}\n{child.log().rstrip()}" for child in children)


_libc = ctypes.CDLL(None)


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
