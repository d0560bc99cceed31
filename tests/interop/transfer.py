"""One transfer between two clients through a tracker, judged by what lies on the disk afterwards."""
import os
import shutil
import socket
import time
from dataclasses import asdict, dataclass

import namespace
import payload
import trackers
from clients import Job
from processes import Child, eventually, print_logs

SEEDER_READY_SECONDS = 45
ADDRESSES_A_CELL = 7      # a tracker, a seeder, leechers


@dataclass
class Result:
    """What came of it. `verdict` is "ok" or says what is wrong."""
    seeder: str
    leecher: str
    tracker: str
    shape: str
    verdict: str
    seconds: float = 0.0
    mib_per_second: float = 0.0
    family: str = "IPv4"
    fast: bool | None = None    # whether the seeder offers the fast extension

    @property
    def is_ok(self):
        return self.verdict == "ok"

    def as_json(self):
        return {**asdict(self), "ok": self.is_ok}


class Payloads:
    """The sources, written once, and the torrent files over them."""

    def __init__(self, folder):
        self.folder = os.path.join(folder, "sources")
        self.written = {}

    def source(self, name):
        """The folder that holds the payload of a shape."""
        if name not in self.written:
            payload.write(payload.SHAPES[name], self.folder)
            self.written[name] = payload.torrent(payload.SHAPES[name], self.folder, None)
        return self.folder

    def torrent(self, name, announce, path, create=None):
        """Writes a torrent file, by `create(source, path, announce, piece_length)` when given; its info-hash."""
        shape, source = payload.SHAPES[name], self.source(name)
        data, info_hash = payload.torrent(shape, source, announce)
        if create:
            create(os.path.join(source, shape.name), path, announce, shape.piece_length)
            with open(path, "rb") as file:
                made = payload.raw_info(file.read())
            if made != payload.info(shape, source):
                raise RuntimeError(f"{path}: its info dictionary is not what this payload has")
        else:
            with open(path, "wb") as file:
                file.write(data)
        return info_hash


class Cell:
    """The place of one transfer: a fresh folder and addresses that no other one uses at the same time."""

    def __init__(self, work, slot=0, ipv6=False):
        self.work, self.children = work, []
        address = namespace.address_v6 if ipv6 else namespace.address
        self.addresses = [address(2 + slot * ADDRESSES_A_CELL + number) for number in range(ADDRESSES_A_CELL)]
        for name in ("tracker", "arrived"):
            os.makedirs(os.path.join(work, name))
        for folder in (work, os.path.join(work, "tracker")):
            os.chmod(folder, 0o755)         # opentracker reads its whitelist as nobody

    def announce(self, tracker):
        """Chooses where the tracker will be; the announce URL."""
        self.tracker_ip = self.addresses[0]
        self.tracker_port = namespace.free_port(self.tracker_ip)
        return f"{tracker.scheme}://{namespace.literal(self.tracker_ip)}:{self.tracker_port}/announce"

    def start_tracker(self, tracker, info_hash):
        self.children.append(tracker.start(self.tracker_ip, self.tracker_port, os.path.join(self.work, "tracker"),
                                           [info_hash]))

    def start(self, client, verb, number, torrent, data, trust=False, more=()):
        """Starts a peer at address `number`; gives its process and its job."""
        home = os.path.join(self.work, f"{verb}-{number}-{client.name}")
        ip = self.addresses[number]
        job = Job(torrent, data, home, ip, namespace.free_port(ip), trust, list(more))
        child = Child(f"{verb}-{client.name}", getattr(client, verb)(job), home, client.env(job))
        self.children.append(child)
        return child, job

    def seeder_is_known(self, child, info_hash):
        known = eventually(lambda: trackers.seeders(self.tracker_ip, self.tracker_port, info_hash)
                           or not child.is_running(), SEEDER_READY_SECONDS)
        return known and child.is_running()

    def end(self, show):
        """Ends every process and removes what is left."""
        for child in reversed(self.children):
            child.kill() if "tracker" in child.name else child.stop(3)
        if show:
            print_logs(self.children)
        shutil.rmtree(self.work, ignore_errors=True)


def run(seeder, leecher, tracker, shape_name, payloads, work, seconds=90, create=None, source=None, trust=False,
        quiet=False, spoil=None, slot=0, ipv6=False):
    """Runs one cell of the matrix in the fresh folder `work`, which is removed afterwards.

    `source` replaces the seeder's data and `trust` keeps it from looking at them; `spoil(folder)` may change what
    arrived before it is judged; without a seeder nobody has anything. These exist to prove that this function notices.
    """
    shape = payload.SHAPES[shape_name]
    result = Result(seeder.name if seeder else "nobody", leecher.name, tracker.name, shape_name, "?",
                    family="IPv6" if ipv6 else "IPv4")
    cell = Cell(work, slot, ipv6)
    arrived = os.path.join(work, "arrived")
    try:
        torrent = os.path.join(work, f"{shape.name}.torrent")
        info_hash = payloads.torrent(shape_name, cell.announce(tracker), torrent, create)
        # Linked, not copied: what a client writes beside the payload is its own.
        source = source or shutil.copytree(payloads.source(shape_name), os.path.join(work, "source"),
                                           ignore=shutil.ignore_patterns(".taipei"), copy_function=os.link)
        cell.start_tracker(tracker, info_hash)
        if seeder:
            child, job = cell.start(seeder, "seed", 1, torrent, source, trust)
            if not cell.seeder_is_known(child, info_hash):
                result.verdict = "the seeder never announced itself as whole"
                return result
            result.fast = offers_fast(job.ip, job.port, info_hash)
        began = time.monotonic()
        child, _ = cell.start(leecher, "download", 2, torrent, arrived)
        status = child.wait(seconds)
        result.seconds = time.monotonic() - began
        if spoil:
            spoil(arrived)
        judge(result, shape, source, arrived, leecher, status, seconds)
        for child in cell.children[1:]:
            if child.is_running() and child.stop() is None and result.is_ok and status is not None:
                result.verdict = f"{child.name} did not stop within 15 s of SIGINT"
    except (OSError, RuntimeError) as error:
        result.verdict = str(error)
    finally:
        show = not result.is_ok and not quiet
        if show:
            print(f"==== {result}")
        cell.end(show)
    return result


def judge(result, shape, source, arrived, leecher, status, seconds):
    """Writes the verdict on what lies in `arrived` after the leecher ended with `status`, None when it did not."""
    wrong = payload.differences(shape, source, arrived, leecher.makes_empty_files)
    if status is None:
        result.verdict = f"not complete after {seconds} s" + ("" if wrong else ", though all the data are there")
    elif status != 0:
        result.verdict = f"the leecher ended with status {status}"
    elif wrong:
        result.verdict = "says complete, but " + "; ".join(wrong)
    else:
        result.mib_per_second = shape.total / payload.MIB / result.seconds
        result.verdict = "ok"


def swarm(seeder, leechers, tracker, shape_name, payloads, work, seconds=120, slot=0):
    """One seeder and several leechers that begin together; a result for each leecher."""
    shape = payload.SHAPES[shape_name]
    results = [Result(seeder.name, leecher.name, tracker.name, f"{shape_name}, {len(leechers)} at once", "?")
               for leecher in leechers]
    cell = Cell(work, slot)
    try:
        torrent = os.path.join(work, f"{shape.name}.torrent")
        info_hash = payloads.torrent(shape_name, cell.announce(tracker), torrent)
        source = payloads.source(shape_name)
        cell.start_tracker(tracker, info_hash)
        child, _ = cell.start(seeder, "seed", 1, torrent, source)
        if not cell.seeder_is_known(child, info_hash):
            raise RuntimeError("the seeder never announced itself as whole")
        began = time.monotonic()
        under_way = []
        for number, leecher in enumerate(leechers):
            arrived = os.path.join(work, f"arrived-{number}")
            os.makedirs(arrived)
            under_way.append((cell.start(leecher, "download", 2 + number, torrent, arrived)[0], arrived))
        for result, leecher, (child, arrived) in zip(results, leechers, under_way):
            status = child.wait(max(0, seconds - (time.monotonic() - began)))
            result.seconds = time.monotonic() - began
            judge(result, shape, source, arrived, leecher, status, seconds)
    except (OSError, RuntimeError) as error:
        for result in results:
            result.verdict = str(error)
    finally:
        cell.end(not all(result.is_ok for result in results))
    return results


def offers_fast(ip, port, info_hash):
    """Whether the peer there says in its handshake that it speaks the fast extension (BEP 6); None: no answer."""
    hello = b"\x13BitTorrent protocol" + bytes(5) + b"\x10\0\4" + info_hash + b"-XX0000-" + os.urandom(12)
    try:
        with socket.create_connection((ip, port), timeout=5) as peer:
            peer.sendall(hello)
            answer = b""
            while len(answer) < 28 and (part := peer.recv(28 - len(answer))):
                answer += part
    except OSError:
        return None
    return bool(answer[27] & 4) if len(answer) == 28 else None
