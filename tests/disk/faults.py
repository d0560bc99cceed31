#!/usr/bin/env python3
"""Real disks that fail under a real download, all at once: `taipei-cli` alone, on file systems of our own.

- full: a tmpfs fills in mid-download and is freed later. Meanwhile the download says what it needs, asks its peer for
  nothing, and gives another leecher what it has; then it completes by itself, without a restart or a second check.
- read-only: nothing can be written until the file system is made writable.
- deleted: another program deletes a file in mid-download. What was in it is fetched again before anything is complete.
- cut: another program cuts a file of a seed. What is gone is fetched again, and who asks for it gets all of it, right.
- few: `ulimit -n 64`, 200 files, 100 idle connections. It completes, and goes on accepting when they are gone.
- two: a second process on one download is sent away with the number of the first; what `kill -9` left blocks nobody.
- preallocate: a disk that is too small is known before anything is asked for.

    faults.py [CASE...]

Exit status: 0 all hold, 1 not, 2 nothing could be tried here.
"""
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))
import clients      # noqa: E402
import namespace    # noqa: E402
import payload      # noqa: E402
from payload import MIB     # noqa: E402
from processes import Child, eventually, logs_of     # noqa: E402
from relay import Relay     # noqa: E402

CLONE_NEWNS = 0x20000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
RETRY_SECONDS = 30
SLACK_SECONDS = 25      # for a machine that others use as well

_libc = ctypes.CDLL(None, use_errno=True)


class Wrong(Exception):
    """An assertion of this test did not hold."""


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if why := clients.TAIPEI.missing():
        print(f"taipei-cli: {why}", file=sys.stderr)
        return 1
    namespace.enter()
    if _libc.unshare(CLONE_NEWNS) != 0:
        clients.report_skip("disk faults", f"no mount namespace ({os.strerror(ctypes.get_errno())})")
        return 2
    work = tempfile.mkdtemp(prefix="taipei-disk-")
    try:
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        cases = [case for case in CASES if not sys.argv[1:] or case.__name__ in sys.argv[1:]]
        runs = [Run(case, number, os.path.join(work, case.__name__)) for number, case in enumerate(cases)]
        for run in runs:
            run.join()
        for run in runs:
            print(f"{run.case.__name__:<12} {run.wrong or 'holds'}  ({run.seconds:.1f} s)", flush=True)
        return 1 if any(run.wrong for run in runs) else 0
    finally:
        shutil.rmtree(work, ignore_errors=True)


class Run(threading.Thread):
    """One case, with addresses and a directory of its own."""

    def __init__(self, case, number, work):
        super().__init__(daemon=True)
        self.case, self.work, self.wrong, self.seconds = case, work, None, 0.0
        self.children, self.relays, self.mounts, self.next_ip = [], [], [], 10 + 10 * number
        os.makedirs(work)
        self.start()

    def run(self):
        began = time.monotonic()
        try:
            self.case(self)
        except (Wrong, OSError, RuntimeError) as wrong:
            self.wrong = f"!! {wrong}"
        except Exception:       # noqa: BLE001 - a mistake of ours must not look like a pass
            self.wrong = f"!! {traceback.format_exc()}"
        self.seconds = time.monotonic() - began
        for child in reversed(self.children):
            child.stop(5)
        for relay in self.relays:
            relay.close()
        if self.wrong:
            print(logs_of(self.children), file=sys.stderr, flush=True)
        for target in self.mounts:
            _libc.umount2(target.encode(), 2)

    def address(self):
        self.next_ip += 1
        return namespace.address(self.next_ip)

    def folder(self, name):
        path = os.path.join(self.work, name)
        os.makedirs(path, exist_ok=True)
        return path

    def tmpfs(self, name, megabytes):
        path = self.folder(name)
        mount("tmpfs", path, "tmpfs", 0, f"size={megabytes}m")
        self.mounts.append(path)
        return path

    def seeder(self, shape, bytes_per_second):
        """A seeder behind a relay; the torrent file and the relay."""
        source = self.folder("source")
        payload.write(shape, source)
        torrent = os.path.join(self.work, f"{shape.name}.torrent")
        with open(torrent, "wb") as file:
            file.write(payload.torrent(shape, source, None))
        ip, relay_ip = self.address(), self.address()
        port = namespace.free_port(ip)
        job = clients.Job(torrent, source, self.folder("seeder"), ip, port)
        self.children.append(Child("seeder", clients.TAIPEI.seed(job), job.home, clients.TAIPEI.env(job)))
        self.require(eventually(lambda: connects(ip, port), 20), "the seeder does not listen")
        relay = Relay((relay_ip, namespace.free_port(relay_ip)), (ip, port), bytes_per_second)
        self.relays.append(relay)
        return torrent, relay

    def leecher(self, name, torrent, folder, peer, *more, prefix=()):
        ip = self.address()
        port = namespace.free_port(ip)
        job = clients.Job(torrent, folder, self.folder(name), ip, port,
                          more=["--no-trackers", "--peer", peer, *more])
        argv = ["json" if word == "plain" else word for word in clients.TAIPEI.download(job)]
        child = Leecher(name, [*prefix, *argv], job.home, clients.TAIPEI.env(job), stdout=f"{name}.json")
        child.address = (ip, port)
        self.children.append(child)
        return child

    def require(self, fact, words):
        if not fact:
            raise Wrong(words)
        return fact


class Leecher(Child):
    """A download that tells in JSON what it does."""

    def events(self):
        with open(self.stdout_path) as file:
            lines = file.read().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def last(self, key):
        return next((event[key] for event in reversed(self.events()) if event.get(key) is not None), None)

    def failures(self):
        """What it said of the disk."""
        return [event["details"] for event in self.events() if event.get("event") == "disk-failed"]

    def states(self):
        """Each state once for each time that it was entered."""
        all_states = [event["state"] for event in self.events() if "state" in event]
        return [state for at, state in enumerate(all_states) if at == 0 or all_states[at - 1] != state]


SHAPE = payload.Shape("faults", (("first.bin", 5 * MIB + 77), ("empty", 0), ("second.bin", 7 * MIB - 77),
                                 ("third.bin", 4 * MIB)), 64 << 10)


def full(run):
    torrent, relay = run.seeder(SHAPE, 6 * MIB)
    disk = run.tmpfs("disk", 20)
    others = os.path.join(disk, "of-others")
    with open(others, "wb") as file:
        file.write(b"x" * (12 * MIB))
    leecher = run.leecher("leecher", torrent, disk, at(relay))
    failed = run.require(eventually(lambda: leecher.failures(), 20), "the disk never filled up")[0]
    time.sleep(4)       # what was on its way has come, and its figures are of now
    asked, delivered = relay.requests, relay.figures()[0]
    needed, have = failed["needed_bytes"], leecher.last("bytes_have")
    run.require("full" in failed["error"], f"says {failed}")
    run.require(needed == SHAPE.total - have, f"needs {needed}, has {have} of {SHAPE.total}")
    # What it has is served meanwhile.
    second = run.leecher("second", torrent, run.folder("second-disk"), at_address(leecher.address))
    run.require(eventually(lambda: (second.last("bytes_have") or 0) >= MIB, 15), "serves nothing while it is paused")
    second.stop(5)
    while time.monotonic() - leecher.started < 20:
        run.require(leecher.is_running(), "it ended instead of waiting")
        run.require((relay.requests, relay.figures()[0]) == (asked, delivered), "it asks while it cannot write")
        time.sleep(0.25)
    run.require(leecher.states()[-1] == "DiskError", f"states {leecher.states()}")
    os.remove(others)
    completes(run, leecher, disk, RETRY_SECONDS + SLACK_SECONDS)
    run.require(leecher.states().count("Checking") <= 1, f"it checked again: {leecher.states()}")
    repeated = relay.figures()[2]
    run.require(repeated <= 8 * MIB, f"{repeated} bytes were fetched twice, more than a window")


def read_only(run):
    torrent, relay = run.seeder(SHAPE, 20 * MIB)
    disk = run.tmpfs("disk", 40)
    mount("none", disk, None, MS_REMOUNT | MS_RDONLY)
    leecher = run.leecher("leecher", torrent, disk, at(relay))
    failed = run.require(eventually(lambda: leecher.failures(), 20), "says nothing of a read-only disk")[0]
    run.require("read-only" in failed["error"], f"says {failed}")
    time.sleep(3)
    asked = relay.requests
    time.sleep(5)
    run.require(leecher.is_running() and relay.requests == asked, "it ended, or asks while it cannot write")
    mount("none", disk, None, MS_REMOUNT)
    completes(run, leecher, disk, RETRY_SECONDS + SLACK_SECONDS)


def deleted(run):
    torrent, relay = run.seeder(SHAPE, 4 * MIB)
    disk = run.folder("disk")
    leecher = run.leecher("leecher", torrent, disk, at(relay))
    run.require(eventually(lambda: relay.unique_bytes() > 8 * MIB, 20), "nothing comes")
    os.remove(os.path.join(disk, SHAPE.name, "second.bin"))
    completes(run, leecher, disk, SLACK_SECONDS)
    run.require(relay.figures()[2] > MIB, "what was deleted was not fetched again")


def cut(run):
    torrent, relay = run.seeder(SHAPE, 40 * MIB)
    disk = run.folder("disk")
    leecher = run.leecher("leecher", torrent, disk, at(relay), "--seed")
    run.require(eventually(lambda: leecher.last("bytes_have") == SHAPE.total, 30), "it does not complete")
    os.truncate(os.path.join(disk, SHAPE.name, "second.bin"), MIB)
    there = run.folder("second-disk")
    second = run.leecher("second", torrent, there, at_address(leecher.address))
    status = second.wait(75)
    run.require(leecher.is_running(), "a cut file ended it")
    run.require(status == 0, f"the second one has {second.last('bytes_have')} of {SHAPE.total}")
    for folder in (disk, there):
        wrong = payload.differences(SHAPE, run.folder("source"), folder)
        run.require(not wrong, f"{folder}: {'; '.join(wrong)}")
    run.require(leecher.stop() == 0, "it does not end cleanly")


def few(run):
    shape = payload.Shape("few", tuple((f"{n:03}.bin", 20_000 + n) for n in range(200)), 32 << 10)
    torrent, relay = run.seeder(shape, 2 * MIB)
    disk = run.folder("disk")
    limit = ["bash", "-c", 'ulimit -n 64; exec "$@"', "few"]
    leecher = run.leecher("leecher", torrent, disk, at(relay), "--seed", prefix=limit)
    run.require(eventually(lambda: connects(*leecher.address), 10), "it does not listen")
    idle = []
    try:
        for _ in range(100):
            idle.append(socket.create_connection(leecher.address, timeout=5))
        run.require(eventually(lambda: leecher.last("bytes_have") == shape.total, 40),
                    f"it has {leecher.last('bytes_have')} of {shape.total}: {leecher.failures()}")
        run.require(len(os.listdir(f"/proc/{leecher.pid}/fd")) <= 64, "the limit does not hold")
        run.require(not leecher.failures(), f"nothing is left for files: {leecher.failures()}")
    finally:
        for one in idle:
            one.close()
    run.require(not payload.differences(shape, run.folder("source"), disk), "not what was sent")
    # It accepts again: another gets everything from it alone.
    there = run.folder("second-disk")
    second = run.leecher("second", torrent, there, at_address(leecher.address))
    run.require(second.wait(30) == 0, "nothing is accepted any more")
    run.require(not payload.differences(shape, run.folder("source"), there), "not what was sent on")
    run.require(leecher.stop() == 0, "it does not end cleanly")


def two(run):
    torrent, relay = run.seeder(SHAPE, MIB)
    disk = run.folder("disk")
    first = run.leecher("first", torrent, disk, at(relay))
    run.require(eventually(lambda: relay.unique_bytes() > MIB // 2, 20), "nothing comes")
    second = run.leecher("second", torrent, disk, at(relay))
    run.require(second.wait(10) == 1, "a second process on one download does not end")
    pid = re.search(r"pid (\d+)", second.log())
    run.require(pid and int(pid.group(1)) == first.pid, f"it does not name {first.pid}: {second.log()}")
    run.require(first.is_running(), "the first one is gone too")
    first.kill()
    run.require(os.listdir(os.path.join(disk, ".taipei")), "no lock is left behind")
    relay.bytes_per_second = 40 * MIB
    completes(run, run.leecher("third", torrent, disk, at(relay)), disk, SLACK_SECONDS)


def preallocate(run):
    torrent, relay = run.seeder(SHAPE, 20 * MIB)
    disk = run.tmpfs("disk", 20)
    others = os.path.join(disk, "of-others")
    with open(others, "wb") as file:
        file.write(b"x" * (12 * MIB))
    leecher = run.leecher("leecher", torrent, disk, at(relay), "--preallocate")
    failed = run.require(eventually(lambda: leecher.failures(), 20), "a disk too small is not noticed")[0]
    run.require(failed["needed_bytes"] == SHAPE.total, f"says {failed}")
    time.sleep(3)
    run.require(relay.requests == 0, "it asked before there was room")
    os.remove(others)
    completes(run, leecher, disk, RETRY_SECONDS + SLACK_SECONDS)


CASES = (full, read_only, deleted, cut, few, two, preallocate)


def completes(run, leecher, disk, seconds):
    status = leecher.wait(seconds)
    run.require(status == 0, f"did not complete by itself: status {status}, states {leecher.states()[-5:]}")
    wrong = payload.differences(SHAPE, run.folder("source"), disk)
    run.require(not wrong, f"it says complete, but {'; '.join(wrong)}")


def at(relay):
    return at_address(relay.listen)


def at_address(address):
    return f"{address[0]}:{address[1]}"


def connects(ip, port):
    try:
        socket.create_connection((ip, port), timeout=1).close()
    except OSError:
        return False
    return True


def mount(source, target, kind, flags, data=""):
    encoded = [text.encode() if text is not None else None for text in (source, target, kind)]
    if _libc.mount(*encoded, ctypes.c_ulong(flags), data.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")


if __name__ == "__main__":
    sys.exit(main())
