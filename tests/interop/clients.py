"""How each client is called. A client that is not installed says so in `missing`; nothing else is special."""
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.environ.get("TAIPEI_TEST_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "taipei-tests")
TARGET = os.environ.get("CARGO_TARGET_DIR") or os.path.join(HERE, "..", "..", "target")


@dataclass
class Job:
    """One peer of one transfer."""
    torrent: str            # path of the torrent file
    data: str               # where the payload lies, or goes
    home: str               # a folder of its own for whatever else it writes
    ip: str
    port: int
    trust: bool = False     # seed without looking at the files, where the client can
    more: list = field(default_factory=list)


class Libtorrent:
    """libtorrent-rasterbar, by its Python wheel."""
    name = "libtorrent"
    makes_empty_files = True
    ipv6 = True
    python = os.path.join(CACHE, "venv", "bin", "python")

    def missing(self):
        if not os.access(self.python, os.X_OK):
            return f"no {self.python}"
        return None if _output(self.python, "-c", "import libtorrent") is not None else "its wheel cannot be imported"

    def version(self):
        return _output(self.python, "-c", "import libtorrent; print(libtorrent.__version__)")

    def env(self, job):
        return {"HOME": job.home}

    @staticmethod
    def by_peer(address):
        return ["--peer", address]

    def seed(self, job):
        return [*self._argv("seed", job), *(["--trust"] if job.trust else [])]

    def download(self, job):
        return self._argv("download", job)

    def _argv(self, verb, job):
        return [self.python, os.path.join(HERE, "lt_peer.py"), verb, job.torrent, "--dir", job.data, "--ip", job.ip,
                "--port", job.port, *job.more]


class Rqbit:
    """rqbit. It has no source address to bind to, so it listens on all of the namespace's."""
    name = "rqbit"
    makes_empty_files = True
    ipv6 = True
    program = os.path.join(CACHE, "cargo", "bin", "rqbit")

    def missing(self):
        return None if os.access(self.program, os.X_OK) else f"no {self.program}"

    def version(self):
        return _output(self.program, "--version")

    def env(self, job):
        return {name: job.home for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}

    @staticmethod
    def by_peer(address):
        """Flags of a download that goes on where the last one ended, from this peer."""
        return ["--overwrite", "--initial-peers", address]

    def seed(self, job):
        return [*self._argv(job), "--overwrite"]

    def download(self, job):
        return [*self._argv(job), "--exit-on-finish"]

    def _argv(self, job):
        family = ["--listen-ip", "::"] if ":" in job.ip else ["--ipv4-only", "--listen-ip", "0.0.0.0"]
        return [self.program, "-v", "info", "--disable-dht", "--disable-lsd", "--disable-upnp-port-forward",
                *family, "--listen-port", job.port,
                "download", job.torrent, "-o", job.data, "--disable-http-api", *job.more]


class Transmission:
    """transmission-daemon. A seed of it needs the pad files of a torrent on disk: it does not know them."""
    name = "transmission"
    makes_empty_files = False       # as of 3.00
    ipv6 = True
    program = shutil.which("transmission-daemon") or "/usr/bin/transmission-daemon"

    def missing(self):
        return None if os.access(self.program, os.X_OK) else "not installed (apt install transmission-daemon)"

    def version(self):
        done = subprocess.run([self.program, "--version"], capture_output=True, text=True, timeout=10)
        return (done.stdout + done.stderr).strip().splitlines()[0]

    def env(self, job):
        return {"HOME": job.home}

    def seed(self, job):
        return self._argv("seed", job)

    def download(self, job):
        return self._argv("download", job)

    def _argv(self, verb, job):
        return [sys.executable, os.path.join(HERE, "transmission_peer.py"), verb, job.torrent, "--program",
                self.program, "--dir", job.data, "--home", os.path.join(job.home, "transmission"), "--ip", job.ip,
                "--port", job.port]


class Aria2:
    """aria2. Without its DHT it knows no UDP trackers; nobody answers its DHT here."""
    name = "aria2"
    makes_empty_files = True
    ipv6 = False
    program = shutil.which("aria2c") or "/usr/bin/aria2c"

    def missing(self):
        return None if os.access(self.program, os.X_OK) else "not installed (apt install aria2)"

    def version(self):
        return (_output(self.program, "--version") or "").splitlines()[0]

    def env(self, job):
        return {"HOME": job.home}

    def seed(self, job):
        return [*self._argv(job), "--check-integrity=true", "--seed-ratio=0.0"]

    def download(self, job):
        return [*self._argv(job), "--seed-time=0"]

    def _argv(self, job):
        return [self.program, "--no-conf=true", f"--dir={job.data}", f"--listen-port={job.port}",
                f"--dht-listen-port={job.port}", f"--dht-file-path={job.home}/dht.dat", "--enable-dht=true",
                "--enable-dht6=false", "--bt-enable-lpd=false", "--enable-peer-exchange=false", f"--interface={job.ip}",
                "--file-allocation=none", "--allow-overwrite=true", "--bt-stop-timeout=0", "--summary-interval=0",
                "--enable-color=false", "--show-console-readout=false", "--bt-tracker-interval=5",
                "--bt-remove-unselected-file=false", "--auto-save-interval=0", *job.more, job.torrent]


class Taipei:
    """Ours: TAIPEI_CLI, or the release build."""
    name = "taipei"
    makes_empty_files = True
    program = os.path.abspath(os.environ.get("TAIPEI_CLI") or os.path.join(TARGET, "release", "taipei-cli"))

    def missing(self):
        return None if os.access(self.program, os.X_OK) else f"no {self.program}: cargo build --release first"

    def version(self):
        return _output(self.program, "--version")

    def env(self, job):
        return {"HOME": job.home, "XDG_STATE_HOME": job.home, "RUST_BACKTRACE": "1"}

    @staticmethod
    def by_peer(address):
        return ["--no-trackers", "--peer", address]

    def seed(self, job):
        return [self.program, "seed", job.torrent, "--data", job.data, *self._common(job)]

    def download(self, job):
        return [self.program, "download", job.torrent, "--output", job.data, *self._common(job)]

    @staticmethod
    def _common(job):
        return ["--port", job.port, "--bind", job.ip, "--no-dht", "--no-lsd", "--no-pex", "--no-upnp", "--no-utp",
                "--encryption", "off", "--progress", "plain", *job.more]


TAIPEI, FOREIGN = Taipei(), {client.name: client for client in (Libtorrent(), Transmission(), Aria2(), Rqbit())}


def report_skip(what, why):
    """Says loudly that something did not run, on the terminal and in the file that `tests/run` reads."""
    print(f"!! SKIPPED {what}: {why}", file=sys.stderr, flush=True)
    if path := os.environ.get("TAIPEI_SKIPS"):
        with open(path, "a") as file:
            file.write(f"{what}: {why}\n")


def opentracker():
    """Its path, or None."""
    return shutil.which("opentracker", path=os.environ.get("PATH", "") + ":/usr/bin:/usr/sbin")


def _output(*argv):
    """What a command prints, None when it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
