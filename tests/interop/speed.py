#!/usr/bin/env python3
"""What a transfer, a check and a torrent file cost us, beside other clients: the README's table.

    speed.py                            every row, five times, the clients in turn
    speed.py leech-rqbit seed           some rows (--list shows them)
    speed.py --reps 3 --clients taipei,aria2
    speed.py --json FILE                every run as JSON as well

Peers are what PATH has of aria2c, rqbit, rtorrent, transmission-daemon and mktorrent, and libtorrent where the Python of
LIBTORRENT_PYTHON, or that of `tests/run interop`, has its wheel; who is not there is left out. TRANSMISSION_DAEMON names another one than that of PATH. TAIPEI_CLI names our
program; without it, it is the release build. All runs in a network namespace of its own. Scratch: about 4 GiB below
TMPDIR.

wall: from the start of the process to its end, or to its own sign that all is there. CPU: user and system time of its
whole life; of a seeder, while others download. Only ratios within one run mean anything on a machine that others use:
`others` is how much of it they took.
"""
import argparse
import http.server
import json
import os
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

sys.dont_write_bytecode = True
import clients      # noqa: E402
import namespace    # noqa: E402
import payload      # noqa: E402
import tr_peer      # noqa: E402
from processes import Child, eventually     # noqa: E402

GIB = 1 << 30
TICKS = os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 0.02
WORDS_MAX = 400     # of an error, logs included
READY_SECONDS, RUN_SECONDS = 120, 120


def _many(count, total):
    """So many files whose lengths lie between 1 and 39 parts."""
    weights = [1 + at * 7919 % 39 for at in range(count)]
    lengths = [weight * total // sum(weights) for weight in weights]
    lengths[-1] += total - sum(lengths)
    return tuple((f"d{at // 100:03}/f{at:05}.bin", length) for at, length in enumerate(lengths))


SHAPES = {
    "1M": payload.Shape("one-1m", (("", GIB),), 1 << 20),
    "256K": payload.Shape("one-256k", (("", GIB),), 256 << 10),
    "4M": payload.Shape("one-4m", (("", GIB),), 4 << 20),
    "many": payload.Shape("many", _many(10_000, 200 << 20), 256 << 10),
}


# ------------------------------------------------------------------------------------------------------- clients

class Ours(clients.Taipei):
    marker, stop_signal = None, signal.SIGINT

    def download(self, job):
        return [*super().download(job), "--quiet", "--max-peers", "200"]


class Libtorrent(clients.Libtorrent):
    python = os.environ.get("LIBTORRENT_PYTHON") or clients.Libtorrent.python
    marker, stop_signal = None, signal.SIGINT


class Aria2(clients.Aria2):
    marker, stop_signal = None, signal.SIGINT

    def _argv(self, job):
        return [*clients.Aria2._argv(job)[:-1], "--enable-dht=false", "--file-allocation=falloc", job.torrent]


class Rqbit(clients.Rqbit):
    """As its users have it: what `tests/run` builds for itself is hardly optimized."""
    marker, stop_signal = None, signal.SIGINT
    program = shutil.which("rqbit") or ""

    def missing(self):
        return None if self.program else "not on PATH (cargo install rqbit)"


class Rtorrent(clients.Client):
    name = "rtorrent"
    # By SIGINT it would wait for its tracker.
    marker, stop_signal = "done", signal.SIGTERM

    def missing(self):
        return None if shutil.which("rtorrent") else "not on PATH (apt install rtorrent)"

    def version(self):
        return subprocess.run(["rtorrent", "-h"], capture_output=True, text=True, timeout=30).stdout.partition("\n")[0]

    def env(self, job):
        return {"HOME": job.home, "TERM": "dumb"}

    def seed(self, job):
        return self._argv(job, "")

    def download(self, job):
        finished = f'method.set_key = event.download.finished,sign,"execute.nothrow=touch,{job.home}/{self.marker}"\n'
        return self._argv(job, finished)

    @staticmethod
    def _argv(job, finished):
        os.makedirs(os.path.join(job.home, "session"), exist_ok=True)
        path = os.path.join(job.home, "rtorrent.rc")
        with open(path, "w") as file:
            file.write(f"""\
system.daemon.set = true
directory.default.set = {job.data}
session.path.set = {job.home}/session
network.bind_address.set = {job.ip}
network.local_address.set = {job.ip}
network.port_range.set = {job.port}-{job.port}
network.port_random.set = no
dht.mode.set = disable
protocol.pex.set = no
trackers.use_udp.set = no
protocol.encryption.set = none
pieces.hash.on_completion.set = no
throttle.global_down.max_rate.set_kb = 0
throttle.global_up.max_rate.set_kb = 0
{finished}schedule2 = load,0,0,"load.start={job.torrent}"
""")
        return ["rtorrent", "-n", "-o", f"import={path}"]


class Transmission(clients.Transmission):
    """The daemon by itself: as a leecher it begins after ten seconds, so it is asked to seed alone."""
    marker, stop_signal = "never", signal.SIGTERM
    program = os.environ.get("TRANSMISSION_DAEMON") or shutil.which("transmission-daemon") or ""

    def missing(self):
        return None if self.program else "not on PATH (apt install transmission-daemon)"

    def version(self):
        return subprocess.run([self.program, "--version"], capture_output=True, text=True, timeout=30).stderr.strip()

    def seed(self, job):
        with open(os.path.join(job.home, "settings.json"), "w") as file:
            settings = tr_peer.settings(argparse.Namespace(ip=job.ip, port=job.port, up=0, down=0, pex=False, dht=None))
            json.dump({**settings, "speed-limit-up-enabled": False, "upload-slots-per-torrent": 14}, file)
        threading.Thread(target=self._begin, args=(job,), daemon=True).start()
        return [self.program, "--foreground", "--config-dir", job.home]

    @staticmethod
    def _begin(job):
        rpc = tr_peer.Rpc(job.port)
        eventually(rpc.is_there, READY_SECONDS)
        added = rpc.ask("torrent-add", paused=True, **tr_peer.source(job.torrent), **{"download-dir": job.data})
        torrent = added["torrent-added"]["id"]
        rpc.ask("torrent-verify", ids=[torrent])
        eventually(lambda: (now := rpc.torrent(torrent))["status"] == tr_peer.STOPPED and now["percentDone"] == 1,
                   READY_SECONDS)
        rpc.ask("torrent-start-now", ids=[torrent])


CLIENTS = {client.name: client for client in (Ours(), Libtorrent(), Aria2(), Rqbit(), Rtorrent(), Transmission())}
LEECHERS = ("taipei", "libtorrent", "aria2", "rqbit", "rtorrent")
CROWDED = ("taipei", "libtorrent")      # the others take fewer than 200, or do not say that they are done
SEEDERS = (*LEECHERS, "transmission")


class Tracker:
    """An HTTP tracker in this process, which knows who seeds as soon as it says so."""

    def __init__(self, ip):
        self.peers, self.lock = {}, threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(handler):
                asked = urllib.parse.urlsplit(handler.path)
                # Scrapes get an answer without figures.
                body = self._answer(asked.query, handler.client_address[0]) if asked.path == "/announce" else b"d5:filesdee"
                handler.send_response(200)
                handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body)

            def log_message(handler, *_):
                pass

        server = http.server.ThreadingHTTPServer((ip, 0), Handler)
        server.handle_error = lambda *_: None       # who ended while it was answered
        self.url = f"http://{ip}:{server.server_address[1]}/announce"
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def forget(self):
        with self.lock:
            self.peers = {}

    def seeds(self, port):
        with self.lock:
            return any(at[1] == port and left == 0 for at, left in self.peers.items())

    def _answer(self, query, ip):
        said = dict(part.partition("=")[::2] for part in query.split("&"))
        port, left = int(said["port"]), int(said.get("left") or 1)
        with self.lock:
            if said.get("event") == "stopped":
                self.peers.pop((ip, port), None)
            else:
                self.peers[ip, port] = left
            named = [at for at, other in self.peers.items() if at != (ip, port) and (left or other)]
        packed = b"".join(socket.inet_aton(ip) + struct.pack(">H", port) for ip, port in named)
        return b"d8:intervali1800e5:peers%d:%be" % (len(packed), packed)


# -------------------------------------------------------------------------------------------------------- figures

class Measured(Child):
    """A child whose time and memory are known to its end."""

    def __init__(self, *args, marker=None, **more):
        super().__init__(*args, **more)
        self.marker, self.done_after, self.usage, self.peak_kib, self.anon_kib = marker, None, None, 0, 0

    def sample(self):
        try:
            with open(f"/proc/{self.pid}/status") as file:
                figures = dict(line.split(":", 1) for line in file)
            self.peak_kib = max(self.peak_kib, int(figures["VmHWM"].split()[0]))
            self.anon_kib = max(self.anon_kib, int(figures["RssAnon"].split()[0]))
        except (OSError, KeyError):
            pass            # it is gone, or has not begun

    def cpu_seconds(self):
        if self.usage:
            return self.usage.ru_utime + self.usage.ru_stime
        with open(f"/proc/{self.pid}/stat") as file:
            user, system = file.read().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / TICKS

    def is_done(self):
        """Whether it has ended well, or given its sign."""
        if self.done_after is None:
            if self.marker:
                is_over = os.path.exists(self.marker)
            else:
                pid, status, usage = os.wait4(self.pid, os.WNOHANG)
                is_over = pid != 0
                if is_over:
                    self.usage, self.process.returncode = usage, os.waitstatus_to_exitcode(status)
            if is_over:
                self.done_after = time.monotonic() - self.started
                if self.process.returncode not in (0, None):
                    raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{self.log()}")
        return self.done_after is not None


def machine_busy():
    """Seconds that all cores together were at work."""
    with open("/proc/stat") as file:
        figures = [int(figure) for figure in file.readline().split()[1:9]]
    return (sum(figures) - figures[3] - figures[4]) / TICKS


class Others:
    """How much of the machine others take from now on."""

    def __init__(self):
        self.busy, self.own = machine_busy(), sum(os.times()[:2])

    def share(self, seconds, measured):
        """Over so many seconds, of which the measured programs used so much."""
        foreign = machine_busy() - self.busy - (sum(os.times()[:2]) - self.own) - measured
        return max(0.0, foreign / seconds / os.cpu_count())


def warm(folder, length):
    """Has memory that really is there for so much of the page cache: a virtual machine's host may have taken it."""
    path = os.path.join(folder, "warm")
    with open(path, "wb") as file:
        chunk = bytes(4 << 20)
        for _ in range(length // len(chunk)):
            file.write(chunk)
    os.remove(path)


class Bench:
    """The scratch folder of a session and what lies in it."""

    def __init__(self, work, tracker):
        self.work, self.tracker, self.count, self.old = work, tracker, 0, []

    def torrent(self, shape):
        """Its payload's folder and its torrent file, made once."""
        source, torrent = os.path.join(self.work, "source"), os.path.join(self.work, f"{shape.name}.torrent")
        if not os.path.exists(torrent):
            for path, length in shape.files:
                target = os.path.join(source, shape.name, path) if path else os.path.join(source, shape.name)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with open(target, "wb") as file:
                    for at in range(0, length, payload.MIB):
                        file.write(payload.content(f"{shape.name}/{path}/{at}", min(payload.MIB, length - at)))
            with open(torrent, "wb") as file:
                file.write(payload.torrent(shape, source, self.tracker.url))
        return source, torrent

    def start(self, client, verb, torrent, data, number):
        self.count += 1
        home = os.path.join(self.work, f"{self.count:03}-{client.name}")
        os.makedirs(data or os.path.join(home, "data"), exist_ok=True)
        os.makedirs(home, exist_ok=True)
        ip = namespace.address(number)
        job = clients.Job(torrent, data or os.path.join(home, "data"), home, ip, namespace.free_port(ip))
        argv = getattr(client, verb)(job)
        marker = os.path.join(home, client.marker) if client.marker else None
        return Measured(client.name, argv, home, client.env(job), stop_signal=client.stop_signal, marker=marker), job

    def swarm(self, seeders, leechers, shape, measured):
        """One run. `measured`: whose figures are wanted, "seeders" or "leechers"."""
        source, torrent = self.torrent(shape)
        self.tracker.forget()
        started, seeding, leeching = self.count, [], []
        try:
            for number, client in enumerate(seeders):
                child, job = self.start(client, "seed", torrent, source, 10 + number)
                seeding.append(child)
                if not eventually(lambda: self.tracker.seeds(job.port) or not child.is_running(), READY_SECONDS, 0.005) or \
                        not child.is_running():
                    raise RuntimeError(f"{client.name} does not seed:\n{child.log()}")
            os.sync()
            warm(self.work, shape.total * len(leechers) * 3 // 2)
            before, others = [child.cpu_seconds() for child in seeding], Others()
            began = time.monotonic()
            arrived = []
            for number, client in enumerate(leechers):
                child, job = self.start(client, "download", torrent, None, 30 + number)
                leeching.append(child)
                arrived.append((client, job.data))
            self._await(leeching, seeding)
            wall = time.monotonic() - began
            seeder_cpu = sum(child.cpu_seconds() - used for child, used in zip(seeding, before))
            share = others.share(wall, seeder_cpu + sum(child.cpu_seconds() for child in leeching))
            for child in leeching:
                child.sample()
                if child.marker:
                    # What it does until it has ended is its own as well.
                    child.process.send_signal(child.stop_signal)
                    child.marker, child.done_after = None, None
            self._await(leeching, seeding)
            leecher_cpu = sum(child.cpu_seconds() for child in leeching)
            for client, data in arrived:
                if wrong := payload.differences(shape, source, data, client.inside_name, client.makes_empty_files):
                    raise RuntimeError(f"{client.name} says complete, but {wrong[0]}")
            of = seeding if measured == "seeders" else leeching
            return {"wall": wall, "cpu": seeder_cpu if measured == "seeders" else leecher_cpu,
                    "other_cpu": leecher_cpu if measured == "seeders" else seeder_cpu,
                    "peak_mib": max(child.peak_kib for child in of) / 1024,
                    "anon_mib": max(child.anon_kib for child in of) / 1024,
                    "others": share}
        finally:
            self._end(leeching + seeding, started, shape)

    def crowd(self, client, shape, seeders, slow=0):
        """A client that a crowd of seeders dials as soon as it listens, of whom so many are slow."""
        source, torrent = self.torrent(shape)
        self.tracker.forget()
        os.sync()
        warm(self.work, shape.total * 3 // 2)
        started, others, out = self.count, Others(), os.path.join(self.work, "crowd.json")
        child, job = self.start(client, "download", torrent, None, 30)
        crowd = Measured("crowd", [sys.executable, os.path.join(clients.HERE, "crowd.py"), torrent,
                                   os.path.join(source, shape.name), "--to", f"{job.ip}:{job.port}", "--from",
                                   namespace.address(50), "--seeders", seeders, "--slow", slow, "--out", out], job.home)
        try:
            self._await([child], [crowd])
            wall, cpu = child.done_after, child.cpu_seconds()
            if child.usage is None:
                child.stop(10)
            self._await([crowd], [])
            share = others.share(wall, cpu + crowd.cpu_seconds())
            if wrong := payload.differences(shape, source, job.data, client.inside_name, client.makes_empty_files):
                raise RuntimeError(f"{client.name} says complete, but {wrong[0]}")
            with open(out) as file:
                figures = json.load(file)
            return {"wall": wall, "cpu": cpu, "peak_mib": child.peak_kib / 1024, "anon_mib": child.anon_kib / 1024,
                    "others": share, **figures}
        finally:
            self._end([child, crowd], started, shape)

    def check(self, client, shape):
        """From the start with whole data and no state to the announce of a seed."""
        source, torrent = self.torrent(shape)
        payload.digests(shape, source)       # into the page cache
        self.tracker.forget()
        shutil.rmtree(os.path.join(source, ".taipei"), ignore_errors=True)
        started, others, began = self.count, Others(), time.monotonic()
        child, job = self.start(client, "seed", torrent, source, 10)
        try:
            if not eventually(lambda: self.tracker.seeds(job.port) or not child.is_running(), READY_SECONDS, 0.001) or \
                    not child.is_running():
                raise RuntimeError(f"{client.name} does not seed:\n{child.log()}")
            wall, cpu = time.monotonic() - began, child.cpu_seconds()
            child.sample()
            return {"wall": wall, "cpu": cpu, "peak_mib": child.peak_kib / 1024, "anon_mib": child.anon_kib / 1024,
                    "others": others.share(wall, cpu)}
        finally:
            self._end([child], started, shape)

    def create(self, maker, shape):
        source, _ = self.torrent(shape)
        path, out = os.path.join(source, shape.name), os.path.join(self.work, "made.torrent")
        payload.digests(shape, source)
        if os.path.exists(out):
            os.remove(out)
        argv = {"taipei": [clients.TAIPEI.program, "create", path, "-o", out, "-t", self.tracker.url, "--piece-size",
                           str(shape.piece_length)],
                "mktorrent": ["mktorrent", "-t", str(os.cpu_count()), "-l", str(shape.piece_length.bit_length() - 1),
                              "-a", self.tracker.url, "-o", out, path]}[maker]
        others = Others()
        child = Measured(maker, argv, self.work)
        self._await([child], [])
        cpu = child.cpu_seconds()
        share = others.share(child.done_after, cpu)
        with open(out, "rb") as file:
            if b"6:pieces" not in file.read():
                raise RuntimeError(f"{maker} made no torrent")
        return {"wall": child.done_after, "cpu": cpu, "peak_mib": child.peak_kib / 1024, "anon_mib": child.anon_kib / 1024,
                "others": share}

    def _await(self, wanted, others):
        deadline, next_sample = time.monotonic() + RUN_SECONDS, 0.0
        while not all([child.is_done() for child in wanted]):
            now = time.monotonic()
            if now > deadline:
                raise RuntimeError(f"{wanted[0].name} is not done after {RUN_SECONDS} s:\n{wanted[0].log()}")
            if now >= next_sample:
                next_sample = now + SAMPLE_SECONDS
                for child in wanted + others:
                    child.sample()
            time.sleep(0.001)

    def _end(self, children, started, shape):
        for child in children:
            if child.usage is None:
                child.stop(10)
        folders = [os.path.join(self.work, name) for name in os.listdir(self.work) if name[:3].isdigit()
                   and int(name[:3]) > started]
        if len(shape.files) > 1000:
            # ext4 passes over inodes that were freed a short time ago, and the next client would wait for that.
            self.old += folders
            return
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


# ----------------------------------------------------------------------------------------------------------- rows

def leech(seeders, shape="1M", leechers=1):
    def run(bench, name):
        return bench.swarm([CLIENTS[seeder] for seeder in seeders], [CLIENTS[name]] * leechers, SHAPES[shape], "leechers")
    return run


def crowd(seeders, slow=0):
    return lambda bench, name: bench.crowd(CLIENTS[name], SHAPES["1M"], seeders, slow)


def seed(bench, name):
    return bench.swarm([CLIENTS[name]], [CLIENTS["rqbit"]], SHAPES["1M"], "seeders")


# name: what it is, whose figures, how one is made, and whether somebody else's program is needed
ROWS = {
    "leech-rtorrent": ("one seeder (rtorrent), one leecher", LEECHERS, leech(["rtorrent"]), ("rtorrent",)),
    "leech-rqbit": ("one seeder (rqbit), one leecher", LEECHERS, leech(["rqbit"]), ("rqbit",)),
    "leech-4-rqbit": ("four seeders (rqbit), one leecher", LEECHERS, leech(["rqbit"] * 4), ("rqbit",)),
    "leech-256k": ("one seeder (rqbit), one leecher, pieces of 256 KiB", LEECHERS, leech(["rqbit"], "256K"), ("rqbit",)),
    "leech-4m": ("one seeder (rqbit), one leecher, pieces of 4 MiB", LEECHERS, leech(["rqbit"], "4M"), ("rqbit",)),
    "four-leechers": ("one seeder (rqbit), four leechers together", ("taipei", "libtorrent", "aria2", "rqbit"),
                      leech(["rqbit"], leechers=4), ("rqbit",)),
    "crowd-8": ("8 seeders (one process) that dial the client", CROWDED, crowd(8), ()),
    "crowd-200": ("200 such seeders", CROWDED, crowd(200), ()),
    "crowd-10": ("10 such seeders", CROWDED, crowd(10), ()),
    "crowd-10-slow-190": ("10 such seeders, and 190 that send 2 kB/s", CROWDED, crowd(200, slow=190), ()),
    "files": ("10,000 files of 200 MiB, one seeder (rqbit)", ("taipei", "libtorrent", "aria2", "rqbit"),
              leech(["rqbit"], "many"), ("rqbit",)),
    "seed": ("the seeder of one leecher (rqbit)", SEEDERS, seed, ("rqbit",)),
    "check": ("to look at 1 GiB that is there, and seed it", SEEDERS, lambda bench, name: bench.check(CLIENTS[name],
              SHAPES["1M"]), ()),
    "create": ("to make a torrent of 1 GiB", ("taipei", "mktorrent"), lambda bench, name: bench.create(name, SHAPES["1M"]), ()),
}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("rows", nargs="*", help="which; all without")
    ap.add_argument("--list", action="store_true")
    ap.add_argument("--reps", type=int, default=5)
    ap.add_argument("--clients", help="only these")
    ap.add_argument("--json", metavar="FILE")
    args = ap.parse_args()
    if args.list:
        for name, (what, *_) in ROWS.items():
            print(f"{name:<16}{what}")
        return 0
    if unknown := set(args.rows) - set(ROWS):
        ap.error(f"no row {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    there = {name for name, client in CLIENTS.items() if not client.missing()}
    if shutil.which("mktorrent"):
        there.add("mktorrent")
    for name in CLIENTS:
        print(f"{name}: {CLIENTS[name].version() if name in there else 'left out: ' + CLIENTS[name].missing()}")
    if "taipei" not in there:
        return 2
    namespace.enter()
    work, all_runs = tempfile.mkdtemp(prefix="taipei-speed-"), []
    os.chmod(work, 0o755)
    try:
        bench = Bench(work, Tracker(namespace.address(2)))
        for row in args.rows or ROWS:
            what, names, run, needed = ROWS[row]
            names = [name for name in names if name in there and (not args.clients or name in args.clients.split(","))]
            if lacking := [name for name in needed if name not in there]:
                print(f"\n{row}: left out, as {', '.join(lacking)} is not there")
                continue
            print(f"\n{row}: {what}", flush=True)
            runs = {name: [] for name in names}
            for turn in range(args.reps):
                at = turn % len(names)
                for name in names[at:] + names[:at]:
                    try:
                        runs[name].append(run(bench, name))
                    except RuntimeError as error:
                        print(f"!! {name}: {str(error)[:WORDS_MAX]}", flush=True)
                        continue
                    all_runs.append({"row": row, "client": name, **runs[name][-1]})
            show(runs)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(all_runs, file, indent=1)
    return 0


def show(runs):
    """A row's table, medians with the least and the most, and ours by the best of the others'."""
    def figures(name, key):
        return [run[key] for run in runs[name]]

    def words(name, key):
        values = figures(name, key)
        return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"

    done = [name for name in runs if runs[name]]
    print(f"{'client':<14}{'wall s':<20}{'CPU s':<20}{'peak MiB':>9}{'anonymous':>11}{'others':>8}{'runs':>6}")
    for name in sorted(done, key=lambda name: statistics.median(figures(name, "cpu"))):
        print(f"{name:<14}{words(name, 'wall'):<20}{words(name, 'cpu'):<20}"
              f"{statistics.median(figures(name, 'peak_mib')):>9.0f}{statistics.median(figures(name, 'anon_mib')):>11.0f}"
              f"{statistics.median(figures(name, 'others')):>8.0%}{len(runs[name]):>6}")
    for name in done:
        if "gap_p99" in runs[name][0]:
            gaps = [statistics.median(figures(name, key)) * 1000 for key in ("gap_median", "gap_p99", "gap_max")]
            slow = statistics.median(figures(name, "slow_bytes")) / (1 << 20)
            print(f"{name}: between two writes of one seeder {gaps[0]:.1f} ms, {gaps[1]:.0f} of 99 in 100, {gaps[2]:.0f} at most; "
                  f"{statistics.median(figures(name, 'quick_bytes')) / (1 << 20):.0f} MiB came from the quick, {slow:.1f} from the slow")
    others = [name for name in done if name != "taipei"]
    if "taipei" in done and others:
        of = {name: {key: statistics.median(figures(name, key)) for key in ("wall", "cpu")} for name in done}
        quickest = min(of[name]["wall"] for name in others)
        # Who takes its time wakes seldom, and is no measure of what speed costs.
        cheapest = min(of[name]["cpu"] for name in others if of[name]["wall"] <= 8 * quickest)
        print(f"taipei takes {of['taipei']['wall'] / quickest:.2f} of the quickest's time, "
              f"{of['taipei']['cpu'] / cheapest:.2f} of the cheapest's CPU")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
