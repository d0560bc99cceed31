"""One transfer between two clients through a tracker, judged by what lies on the disk afterwards."""
import os
import shutil
import time
from dataclasses import asdict, dataclass

import namespace
import payload
import trackers
from clients import Job
from processes import Child, eventually, print_logs

SEEDER_READY_SECONDS = 45
TRACKER, SEEDER, LEECHER = 2, 3, 4      # numbers of addresses


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


def run(seeder, leecher, tracker, shape_name, payloads, work, seconds=90, create=None, source=None, trust=False,
        quiet=False, spoil=None):
    """Runs one cell of the matrix in the fresh folder `work`, which is removed when it went well.

    `source` replaces the seeder's data and `trust` keeps it from looking at them; `spoil(folder)` may change what
    arrived before it is judged. Both exist to prove that this function notices.
    """
    shape = payload.SHAPES[shape_name]
    result = Result(seeder.name, leecher.name, tracker.name, shape_name, "?")
    ips = [namespace.address(number) for number in (TRACKER, SEEDER, LEECHER)]
    folders = {name: os.path.join(work, name) for name in ("tracker", "seeder", "leecher", "arrived")}
    for folder in folders.values():
        os.makedirs(folder)
    for folder in (work, folders["tracker"]):
        os.chmod(folder, 0o755)         # opentracker reads its whitelist as nobody
    children = []
    try:
        port = namespace.free_port(ips[0])
        torrent_path = os.path.join(work, f"{shape.name}.torrent")
        info_hash = payloads.torrent(shape_name, f"http://{ips[0]}:{port}/announce", torrent_path, create)
        source = source or payloads.source(shape_name)
        children.append(tracker.start(ips[0], port, folders["tracker"], [info_hash]))

        job = Job(torrent_path, source, folders["seeder"], ips[1], namespace.free_port(ips[1]), trust)
        children.append(Child(f"seeder-{seeder.name}", seeder.seed(job), folders["seeder"], seeder.env(job)))
        if not eventually(lambda: trackers.seeders(ips[0], port, info_hash) or not children[1].is_running(),
                          SEEDER_READY_SECONDS) or not children[1].is_running():
            result.verdict = "the seeder never announced itself as whole"
            return result

        job = Job(torrent_path, folders["arrived"], folders["leecher"], ips[2], namespace.free_port(ips[2]))
        began = time.monotonic()
        children.append(Child(f"leecher-{leecher.name}", leecher.download(job), folders["leecher"], leecher.env(job)))
        status = children[2].wait(seconds)
        result.seconds = time.monotonic() - began
        if spoil:
            spoil(folders["arrived"])
        wrong = payload.differences(shape, source, folders["arrived"], leecher.inside_name)
        if status is None:
            result.verdict = f"not complete after {seconds} s" + ("" if wrong else ", though all the data are there")
        elif status != 0:
            result.verdict = f"the leecher ended with status {status}"
        elif wrong:
            result.verdict = "says complete, but " + "; ".join(wrong)
        else:
            result.mib_per_second = shape.total / payload.MIB / result.seconds
            result.verdict = "ok"
        for child in children[1:]:
            if child.is_running() and child.stop() is None and result.is_ok and status is not None:
                result.verdict = f"{child.name} did not stop within 15 s of SIGINT"
    except (OSError, RuntimeError) as error:
        result.verdict = str(error)
    finally:
        for child in reversed(children):
            child.kill() if child.name in ("tracker", "opentracker") else child.stop(3)
        if not result.is_ok and not quiet:
            print(f"==== {result}")
            print_logs(children)
        shutil.rmtree(work, ignore_errors=True)
    return result
