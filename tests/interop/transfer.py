"""One swarm of a seeder and its leechers, met through a tracker, judged by what lies on the disks afterwards."""
import multiprocessing
import os
import re
import shutil
import time
import urllib.parse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Callable

import clients
import namespace
import payload
import trackers
from processes import Child, eventually, listens, logs_of
from relay import Relay

SEEDER_READY_SECONDS = 45
SEEDER_IN_DHT_SECONDS = 120       # Transmission asks one node after another, with pauses
# Whoever looks is a node that is gone soon after, of which Transmission waits for an answer all the same.
LOOK_SECONDS, LOOK_IN_DHT_SECONDS = 0.05, 2
SOURCES = ("sources", "padded")     # folders of payloads, without pad files and with
STOP_SECONDS = 15
TRACKER, SEEDER, RELAY, LEECHER = 2, 3, 4, 5        # numbers of addresses, the first leecher's last
RELAY_BYTES_PER_SECOND = 1 << 30
# With which whoever tells of the seeder could not give a fiftieth of the payload in time.
TELLER_BYTES_PER_SECOND = 20_000
# Of all that the leechers of a swarm got, so much at most may be from the seeder, or nobody exchanged anything.
SEEDER_SHARE_MAX = 0.8


@dataclass(frozen=True)
class Cell:
    """One swarm to run. What stands below `seconds` is there to do harm, and to prove that the judge notices."""
    seeder: Any
    leechers: tuple
    tracker: Any
    shape: str
    fast: bool | None = None    # with (True) or without (False) the fast extension, through a relay that sees to it
    is_magnet: bool = False     # leechers have a magnet link, and learn from the seeder what the torrent is
    seeder_up: int = 0          # bytes per second; with it most must come from other leechers
    create: Callable | None = None
    seconds: float = 60
    teller: Any = None          # the leecher knows this client alone, which has little to give and tells it of the seeder
    spoil_source: Callable | None = None    # spoil_source(folder) changes a copy of the data, and the seeder trusts it
    spoil: Callable | None = None       # spoil(folder) changes what arrived before it is judged
    is_relay_idle: bool = False         # the relay leaves the handshakes as they are
    is_ok_expected: bool = True


@dataclass
class Result:
    """What came of it. `verdict` is "ok" or says what is wrong."""
    seeder: str
    leecher: str
    tracker: str
    shape: str
    fast: bool | None
    is_magnet: bool = False
    teller: str = ""
    verdict: str = "?"
    seconds: float = 0.0
    mib_per_second: float = 0.0
    logs: str = ""

    @property
    def is_ok(self):
        return self.verdict == "ok"

    def as_json(self):
        return {name: value for name, value in {**asdict(self), "ok": self.is_ok}.items() if name != "logs"}


class Payloads:
    """The sources, written once, and the torrent files over them."""

    def __init__(self, folder):
        self.folder, self.written = folder, {}

    def source(self, name, with_pads=False):
        """The folder that holds the payload of a shape, with its pad files for who takes them for files."""
        with_pads = with_pads and payload.SHAPES[name].is_padded
        if (name, with_pads) not in self.written:
            folder = os.path.join(self.folder, SOURCES[with_pads])
            payload.write(payload.SHAPES[name], folder, with_pads)
            self.written[name, with_pads] = folder
        return self.written[name, with_pads]

    def torrent(self, name, announce, path, create=None):
        """Writes a torrent file, by `create(source, path, announce, piece_length)` when given; its info-hash."""
        shape, source = payload.SHAPES[name], self.source(name)
        if shape.is_padded:
            create = clients.FOREIGN["libtorrent"].create
        if create:
            create(os.path.join(source, shape.name), path, announce, shape.piece_length)
        else:
            with open(path, "wb") as file:
                file.write(payload.torrent(shape, source, announce))
        with open(path, "rb") as file:
            made = payload.raw_info(file.read())
        if shape.is_padded and b"4:attr1:p" not in made:
            raise RuntimeError(f"{path}: has no pad file")
        if not shape.is_padded and made != payload.info(shape, source):
            raise RuntimeError(f"{path}: its info dictionary is not what this payload has")
        return payload.info_hash(made)


def run_all(cells, payloads, work, workers):
    """The results of all cells in their order, several at a time, each worker in a namespace of its own."""
    for cell in cells:
        payloads.source(cell.shape, not cell.seeder.knows_pads)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), namespace.enter) as pool:
        done = [pool.submit(run, cell, payloads, os.path.join(work, f"cell-{number}")) for number, cell in enumerate(cells)]
        for future in done:
            yield future.result()


def run(cell, payloads, work):
    """Runs one cell in the fresh folder `work`, which is gone afterwards."""
    result = Result(cell.seeder.name, "+".join(leecher.name for leecher in cell.leechers), cell.tracker.name, cell.shape,
                    cell.fast, cell.is_magnet, cell.teller.name if cell.teller else "")
    swarm = _Swarm(cell, payloads, work)
    try:
        result.verdict = swarm.run() or "ok"
    except (OSError, RuntimeError) as error:
        result.verdict = str(error)
    finally:
        swarm.end()
        result.seconds = swarm.seconds
        if result.is_ok:
            result.mib_per_second = payload.SHAPES[cell.shape].total * len(cell.leechers) / payload.MIB / swarm.seconds
        elif cell.is_ok_expected:
            result.logs = logs_of(swarm.children)
        shutil.rmtree(work, ignore_errors=True)
    return result


class _Swarm:
    """The processes of one cell and the folders they work in."""

    def __init__(self, cell, payloads, work):
        self.cell, self.payloads, self.work = cell, payloads, work
        self.shape = payload.SHAPES[cell.shape]
        self.children, self.relay, self.seconds = [], None, 0.0
        self.is_dht, self.dht = isinstance(cell.tracker, trackers.NoTracker), {}
        self.is_lsd, self.seeder_at = isinstance(cell.tracker, trackers.LocalNetwork), None

    def run(self):
        """What is wrong; nothing when all is well."""
        cell = self.cell
        ip = self._address(TRACKER)
        port = namespace.free_port(ip)
        torrent = os.path.join(self.work, f"{self.shape.name}.torrent")
        source = self._source()
        for folder in (self.work, self._folder("tracker")):
            os.makedirs(folder, exist_ok=True)
            os.chmod(folder, 0o755)         # opentracker reads its whitelist as nobody
        announce = cell.tracker.announce(ip, port)
        info_hash = self.payloads.torrent(cell.shape, announce, torrent, cell.create)
        self.children.append(cell.tracker.start(ip, port, self._folder("tracker"), [info_hash]))

        if self.is_dht:
            self.dht = {"dht": namespace.host_port(ip, port), "dht_ports": cell.tracker.ports(self._folder("tracker"))}
        seeder_job = self._job(torrent, source, "seeder", SEEDER, trust=cell.spoil_source is not None,
                               up=cell.seeder_up)
        self.seeder_at = seeder_job.ip, seeder_job.port
        seeder = self._start("seeder", cell.seeder, cell.seeder.seed(seeder_job), seeder_job)
        if not eventually(lambda: self._is_announced(ip, port, info_hash) or not seeder.is_running(),
                          SEEDER_IN_DHT_SECONDS if self.is_dht else SEEDER_READY_SECONDS,
                          LOOK_IN_DHT_SECONDS if self.is_dht and not self.is_lsd else LOOK_SECONDS) or not seeder.is_running():
            return "the seeder never announced itself as whole"
        if not eventually(lambda: listens(seeder_job.ip, seeder_job.port), STOP_SECONDS):
            return "the seeder does not listen"

        began = time.monotonic()
        link = f"magnet:?xt=urn:btih:{info_hash.hex()}"
        if announce:
            link += f"&tr={urllib.parse.quote(announce, safe='')}"
        leechers = self._start_leechers(link if cell.is_magnet else torrent, seeder_job)
        problems = []
        for number, (client, child, arrived) in enumerate(leechers):
            status = child.wait(max(0.0, began + cell.seconds - time.monotonic()))
            self.seconds = time.monotonic() - began
            if cell.spoil and number == 0:
                cell.spoil(arrived)
            if problem := self._judge(client, status, self.payloads.source(cell.shape), arrived):
                problems.append(f"{client.name}: {problem}" if len(leechers) > 1 else problem)
        for child in self.children[1:]:
            if not problems and child.is_running() and child.stop(STOP_SECONDS) is None:
                problems.append(f"{child.name} did not stop within {STOP_SECONDS} s of SIGINT")
        return "; ".join(problems) or self._judge_relay() or self._judge_exchange(seeder)

    def _is_announced(self, ip, port, info_hash):
        """Whether somebody else can learn of the seeder."""
        if self.is_lsd:
            return listens(*self.seeder_at)
        if not self.is_dht:
            return trackers.seeders(ip, port, info_hash)
        asker = clients.Job("", "", self.work, self._address(RELAY), 0, dht=namespace.host_port(ip, port))
        return clients.TAIPEI.dht_peers(asker, info_hash.hex())

    def end(self):
        """Ends what still runs, the tracker last."""
        for child in reversed(self.children):
            child.kill() if child.name == "tracker" else child.stop(3)
        if self.relay:
            self.relay.close()

    def _source(self):
        """A copy of the payload for the seeder alone: some keep their state and their lock beside the data."""
        copy = self._folder("source")
        shutil.copytree(self.payloads.source(self.cell.shape, not self.cell.seeder.knows_pads), copy,
                        ignore=lambda at, names: set(names) - {self.shape.name} if os.path.basename(at) in SOURCES else ())
        if self.cell.spoil_source:
            self.cell.spoil_source(copy)
        return copy

    def _start_leechers(self, torrent, seeder_job):
        cell, more, started = self.cell, [], []
        if cell.fast is not None:
            ip = self._address(RELAY)
            self.relay = Relay((ip, namespace.free_port(ip)), (seeder_job.ip, seeder_job.port), RELAY_BYTES_PER_SECOND,
                               is_fast_cleared=not cell.fast and not cell.is_relay_idle)
            # No tracker, or it would find the way past the relay.
            torrent = os.path.join(self.work, "trackerless.torrent")
            self.payloads.torrent(cell.shape, None, torrent)
        if cell.teller:
            teller_job = self._job(torrent, self._folder("told"), "teller", RELAY, is_pex_on=True, up=TELLER_BYTES_PER_SECOND,
                                   down=TELLER_BYTES_PER_SECOND)
            os.makedirs(teller_job.data)
            self._start("teller", cell.teller, cell.teller.download(teller_job), teller_job)
            eventually(lambda: listens(teller_job.ip, teller_job.port), STOP_SECONDS)
            # No tracker, or it would find the seeder by itself.
            torrent = os.path.join(self.work, "trackerless.torrent")
            self.payloads.torrent(cell.shape, None, torrent)
        for number, client in enumerate(cell.leechers):
            if cell.teller:
                more = client.by_peer(namespace.host_port(teller_job.ip, teller_job.port))
            if self.relay:
                more = client.by_peer(namespace.host_port(*self.relay.listen))
            arrived = self._folder(f"arrived-{number}")
            os.makedirs(arrived)
            job = self._job(torrent, arrived, f"leecher-{number}", LEECHER + number, more=more,
                            is_pex_on=cell.teller is not None)
            started.append((client, self._start(f"leecher-{number}", client, client.download(job), job), arrived))
        return started

    def _judge(self, client, status, source, arrived):
        wrong = payload.differences(self.shape, source, arrived, client.inside_name, client.makes_empty_files)
        if status is None:
            return f"not complete after {self.cell.seconds:.0f} s" + ("" if wrong else ", though all the data are there")
        if status != 0:
            return f"the leecher ended with status {status}"
        return "says complete, but " + "; ".join(wrong[:3]) if wrong else None

    def _judge_relay(self):
        """Whether the fast extension was there, or not, on both sides."""
        if not self.relay:
            return None
        for side in ("seeder", "leecher"):
            messages = self.relay.fast_messages[side]
            if not self.relay.fast_offers[side]:
                return f"the {side} never offered the fast extension, so this shows nothing"
            if self.cell.fast and not messages:
                return f"the {side} sent no message of the fast extension"
            if not self.cell.fast and messages:
                return f"the {side} sent {messages} messages of the fast extension though it was not agreed"
        return None

    def _judge_exchange(self, seeder):
        """Whether leechers gave each other a part."""
        if not self.cell.seeder_up:
            return None
        found = re.search(r"^uploaded (\d+)$", seeder.log(), re.MULTILINE)
        if not found:
            return "the seeder did not say what it uploaded"
        share = int(found.group(1)) / (self.shape.total * len(self.cell.leechers))
        if share > SEEDER_SHARE_MAX:
            return f"{share:.0%} of everything came from the seeder: the leechers exchanged next to nothing"
        return None

    def _start(self, role, client, argv, job):
        child = Child(f"{role}-{client.name}", argv, job.home, client.env(job))
        self.children.append(child)
        return child

    def _job(self, torrent, data, name, number, **more):
        os.makedirs(self._folder(name))
        ip = self._address(number)
        return clients.Job(torrent, data, self._folder(name), ip, namespace.free_port(ip), **self.dht,
                           is_lsd_on=self.is_lsd, **more)

    def _folder(self, name):
        return os.path.join(self.work, name)

    def _address(self, number):
        return namespace.address(number, self.cell.tracker.ipv6)
