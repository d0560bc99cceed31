"""How each client is called. A client that is not installed says so in `missing`; nothing else is special."""
import json
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
    up: int = 0             # bytes per second to upload at most, where the client can; 0 is no limit
    down: int = 0           # the same to download
    is_pex_on: bool = False
    is_lsd_on: bool = False
    dht: str | None = None      # IP:PORT of the node of the DHT to begin with
    dht_ports: tuple = ()       # of all its nodes at that IP
    more: list = field(default_factory=list)


class Client:
    """What holds for a client unless it says otherwise."""
    name = ""
    inside_name = True      # the files of a torrent lie in a directory named as the torrent
    knows_pads = True       # pad files (BEP 47) are zeros by name; others store and want them as files like any
    makes_empty_files = True
    can_ipv6 = True
    seeks_with_magnet = True    # says to trackers that something is left while it has only a magnet link

    def env(self, job):
        return {"HOME": job.home}


class Libtorrent(Client):
    """libtorrent-rasterbar, by its Python wheel."""
    name = "libtorrent"
    python = os.path.join(CACHE, "venv", "bin", "python")

    def missing(self):
        if not os.access(self.python, os.X_OK):
            return f"no {self.python}"
        return None if _output(self.python, "-c", "import libtorrent") is not None else "its wheel cannot be imported"

    def version(self):
        return _output(self.python, "-c", "import libtorrent; print(libtorrent.__version__)")

    @staticmethod
    def by_peer(address):
        return ["--peer", address]

    def create(self, path, torrent, announce, piece_length):
        """Makes a torrent file with pad files."""
        made = _output(self.python, os.path.join(HERE, "lt_create.py"), path, torrent, announce or "", str(piece_length))
        if made is None:
            raise RuntimeError(f"libtorrent made no torrent of {path}")

    def seed(self, job):
        return [*self._argv("seed", job), *(["--trust"] if job.trust else [])]

    def download(self, job):
        return self._argv("download", job)

    def _argv(self, verb, job):
        return [self.python, os.path.join(HERE, "lt_peer.py"), verb, job.torrent, "--dir", job.data, "--ip", job.ip,
                "--port", job.port, "--up", job.up, "--down", job.down, *(["--dht", job.dht] if job.dht else []),
                *(["--lsd"] if job.is_lsd_on else []), *job.more]


class Transmission(Client):
    """transmission-daemon, told what to do by tr_peer.py."""
    name = "transmission"
    knows_pads = False
    makes_empty_files = False       # 3.00; 4 does

    def missing(self):
        return None if shutil.which("transmission-daemon") else "not installed (apt install transmission-daemon)"

    def version(self):
        return subprocess.run(["transmission-daemon", "--version"], capture_output=True, text=True, timeout=30).stderr.strip()

    def seed(self, job):
        return self._argv("seed", job)

    def download(self, job):
        return self._argv("download", job)

    @staticmethod
    def _argv(verb, job):
        return [sys.executable, os.path.join(HERE, "tr_peer.py"), verb, job.torrent, "--dir", job.data, "--home", job.home,
                "--ip", job.ip, "--port", job.port, "--up", job.up, "--down", job.down, *(["--pex"] if job.is_pex_on else []),
                *(["--dht", f"{job.dht.partition(':')[0]}:{','.join(map(str, job.dht_ports))}"] if job.dht else []),
                *job.more]


class Aria2(Client):
    """aria2c. It asks UDP trackers with its DHT's socket alone, so that is on, though it knows no node."""
    name = "aria2"
    knows_pads = False
    seeks_with_magnet = False
    can_ipv6 = False

    def missing(self):
        return None if shutil.which("aria2c") else "not installed (apt install aria2)"

    def version(self):
        return (_output("aria2c", "--version") or "").partition("\n")[0]

    def seed(self, job):
        return [*self._argv(job), "--seed-ratio=0", "--bt-seed-unverified=true" if job.trust else "--check-integrity=true"]

    def download(self, job):
        return [*self._argv(job), "--seed-time=0"]

    @staticmethod
    def _argv(job):
        return ["aria2c", "--no-conf", f"--dir={job.data}", f"--interface={job.ip}", f"--listen-port={job.port}",
                f"--dht-listen-port={job.port}", f"--dht-file-path={job.home}/dht.dat", "--enable-dht=true",
                "--enable-dht6=false", "--disable-ipv6=true", "--enable-peer-exchange=false", "--bt-enable-lpd=false",
                "--file-allocation=none", "--allow-overwrite=true", "--show-console-readout=false", "--summary-interval=0",
                f"--max-upload-limit={job.up}", *job.more, job.torrent]


class Rqbit(Client):
    """rqbit. It has no source address to bind to, so it listens on all of the namespace's."""
    name = "rqbit"
    seeks_with_magnet = False
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
        listen = ["--listen-ip", "::"] if ":" in job.ip else ["--ipv4-only", "--listen-ip", "0.0.0.0"]
        return [self.program, "-v", "info", "--disable-dht", "--disable-lsd", "--disable-upnp-port-forward",
                *listen, "--listen-port", job.port,
                "download", job.torrent, "-o", job.data, "--disable-http-api", *job.more]


class Taipei(Client):
    """Ours: TAIPEI_CLI, or the release build."""
    name = "taipei"
    program = os.path.abspath(os.environ.get("TAIPEI_CLI") or os.path.join(TARGET, "release", "taipei-cli"))

    def missing(self):
        return None if os.access(self.program, os.X_OK) else f"no {self.program}: cargo build --release first"

    def version(self):
        return _output(self.program, "--version")

    def env(self, job):
        return {"HOME": job.home, "XDG_STATE_HOME": job.home, "RUST_BACKTRACE": "1", "TAIPEI_NO_DHT": "0",
                "TAIPEI_NO_LSD": "0"}

    @staticmethod
    def by_peer(address):
        return ["--no-trackers", "--peer", address]

    def dht_peers(self, job, info_hash):
        """The peers that the DHT names."""
        argv = [self.program, "dht", "get-peers", info_hash, "--dht-bootstrap", job.dht, "--bind", job.ip, "--json",
                "--timeout", "10"]
        found = subprocess.run(argv, capture_output=True, text=True, timeout=30)
        return [line["peer"] for line in map(json.loads, found.stdout.splitlines()) if "peer" in line]

    def seed(self, job):
        return [self.program, "seed", job.torrent, "--data", job.data, *self._common(job)]

    def download(self, job):
        return [self.program, "download", job.torrent, "--output", job.data, *self._common(job)]

    @staticmethod
    def _common(job):
        limits = [*(["--max-upload", job.up] if job.up else []), *(["--max-download", job.down] if job.down else [])]
        dht = ["--dht-bootstrap", job.dht] if job.dht else ["--no-dht"]
        return ["--port", job.port, "--bind", job.ip, *dht, *([] if job.is_lsd_on else ["--no-lsd"]),
                *([] if job.is_pex_on else ["--no-pex"]),
                "--no-upnp", "--no-utp", "--encryption", "off", "--progress", "plain", *limits, *job.more]


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
