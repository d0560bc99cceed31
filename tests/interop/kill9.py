#!/usr/bin/env python3
"""A download that is killed ten times: what it loses, what it reads again, what it claims.

A 96 MiB torrent comes from a real seeder through a relay of ours, which slows it and reads the protocol. At ten
points drawn from --seed the leecher gets `kill -9` and is started again. None of what is asserted is taken from the
leecher's own words:

- blocks delivered a second time after a kill: at most 8 MiB a kill (the relay knows every block);
- bytes read from the disk before the first new block: far from all that was there (/proc/PID/io);
- pieces the leecher told the seeder it has, before the kill and at the restart: all good on the disk;
- it never ends by itself before everything is there, and then the sha256 is right.

    kill9.py [--seeders rqbit,taipei] [--seed N] [--json FILE]
    kill9.py --self-test        a foreign leecher that rechecks, and one robbed of its data: both must be noticed
"""
import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import clients      # noqa: E402
import namespace    # noqa: E402
import payload      # noqa: E402
from payload import MIB     # noqa: E402
from processes import Child, eventually, listens, logs_of     # noqa: E402
from relay import Relay     # noqa: E402

SHAPE = payload.Shape("kill9", (("first.bin", 40 * MIB + 77), ("empty", 0), ("second.bin", 56 * MIB - 77)), 256 << 10)
KILLS = 10
BYTES_PER_SECOND = 14 * MIB
REFETCHED_MAX = 8 * MIB         # a kill; done-when 5 of issue 2
READ_AGAIN_MAX = 12 * MIB       # before the first new block: what was in doubt, not all that was there
STALLED_SECONDS = 40


class Wrong(Exception):
    """An assertion of this test did not hold."""


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seeders", default="rqbit,taipei")
    ap.add_argument("--seed", type=int, default=1, help="decides the points")
    ap.add_argument("--self-test", action="store_true")
    ap.add_argument("--json", metavar="FILE")
    args = ap.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    namespace.enter()
    work = tempfile.mkdtemp(prefix="taipei-kill9-")
    try:
        results, failed = (self_test if args.self_test else real_test)(args, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)
    return 1 if failed else (0 if results else 2)


def real_test(args, work):
    if why := clients.TAIPEI.missing():
        print(f"taipei-cli: {why}", file=sys.stderr)
        return [], True
    results, failed = [], False
    for name in args.seeders.split(","):
        seeder = clients.FOREIGN.get(name, clients.TAIPEI)
        if why := seeder.missing():
            clients.report_skip(f"kill9 from {name}", why)
            continue
        try:
            results.append(ordeal(seeder, clients.TAIPEI, args.seed, os.path.join(work, name)))
        except (Wrong, OSError) as wrong:
            failed = True
            print(f"!! {wrong}\n!! again: {sys.argv[0]} --seeders {name} --seed {args.seed}")
    return results, failed


def self_test(args, work):
    rqbit = clients.FOREIGN["rqbit"]
    if why := rqbit.missing():
        clients.report_skip("the proof of the kill9 harness", why)
        return [], False

    def rob(folder):
        shutil.rmtree(os.path.join(folder, SHAPE.name), ignore_errors=True)

    failed, told = False, []
    for title, words, meddle in (("a leecher that rechecks all", "read again", None),
                                 ("a leecher robbed of its data", "fetched again", rob)):
        try:
            ordeal(rqbit, rqbit, args.seed, os.path.join(work, "proof"), kills=3, meddle=meddle)
            found = "nothing"
        except Wrong as wrong:
            found = str(wrong)
        told.append({"control": title, "found": found})
        noticed = words in found
        failed |= not noticed
        print(f"{title}: {'noticed' if noticed else '!! NOT NOTICED'} ({found})", flush=True)
        shutil.rmtree(os.path.join(work, "proof"), ignore_errors=True)
    return told, failed


def kill_points(seed, kills):
    """When to kill, in order: ("bytes", unique bytes delivered, extra seconds) or ("start", seconds after start)."""
    draw = random.Random(seed)
    early = kills // 4
    at = sorted(draw.randrange(2 * MIB, SHAPE.total - 4 * MIB) for _ in range(kills - early))
    points = [("bytes", threshold, draw.uniform(0, 0.15)) for threshold in at]
    for _ in range(early):      # before it got going again: while it opens, checks or connects
        points.insert(draw.randrange(1, len(points) + 1), ("start", draw.uniform(0.005, 0.4), 0))
    return points


def ordeal(seeder, leecher, seed, work, kills=KILLS, meddle=None):
    """One download with its kills. The figures; raises `Wrong` with what did not hold."""
    seeder_ip, relay_ip, leecher_ip = map(namespace.address, (3, 4, 5))
    source, arrived = os.path.join(work, "source"), os.path.join(work, "arrived")
    for folder in (source, arrived):
        os.makedirs(folder)
    payload.write(SHAPE, source)
    good_hashes = [hashlib.sha1(piece).digest() for piece in payload.pieces(SHAPE, source)]
    torrent = os.path.join(work, "kill9.torrent")
    with open(torrent, "wb") as file:
        file.write(payload.torrent(SHAPE, source, None))

    children, relay, figures = [], None, []
    try:
        seeder_port = namespace.free_port(seeder_ip)
        job = clients.Job(torrent, source, os.path.join(work, "seeder"), seeder_ip, seeder_port)
        children.append(Child(f"seeder-{seeder.name}", seeder.seed(job), job.home, seeder.env(job)))
        relay = Relay((relay_ip, namespace.free_port(relay_ip)), (seeder_ip, seeder_port), BYTES_PER_SECOND)
        relay_address = f"{relay_ip}:{relay.listen[1]}"
        if not eventually(lambda: listens(seeder_ip, seeder_port), 30):
            raise Wrong(f"the seeder {seeder.name} does not listen")

        job = clients.Job(torrent, arrived, os.path.join(work, "leecher"), leecher_ip,
                          namespace.free_port(leecher_ip), more=leecher.by_peer(relay_address))
        print(f"{seeder.name} -> {leecher.name}, seed {seed}\n"
              f"{'run':>4} {'ended by':<22} {'fetched':>9} {'again':>8} {'read first':>10} {'good now':>9} MiB  claimed (pieces)")
        for number, point in enumerate([*kill_points(seed, kills), None]):
            relay.begin_run()
            child = Child(f"leecher-{leecher.name}", leecher.download(job), job.home, leecher.env(job))
            children[1:] = [child]
            read_first = _run_until(child, relay, point)
            fetched, again, _, _ = relay.figures()
            good = {index for index, piece in enumerate(payload.pieces(SHAPE, arrived))
                    if hashlib.sha1(piece).digest() == good_hashes[index]}
            claimed = relay.claims(len(good_hashes))
            ended = "itself" if point is None else f"kill at {_say(point)}"
            print(f"{number:>4} {ended:<22} {fetched / MIB:>9.2f} {again / MIB:>8.2f} {read_first / MIB:>10.2f} "
                  f"{len(good) * SHAPE.piece_length / MIB:>9.2f}      {len(claimed)} of {len(good)}", flush=True)
            figures.append({"ended": ended, "fetched": fetched, "again": again, "read_first": read_first,
                            "good_pieces": len(good), "claimed_pieces": len(claimed)})
            if not claimed <= good:
                raise Wrong(f"run {number} claimed pieces that are not good on the disk: {sorted(claimed - good)[:10]}")
            if again > REFETCHED_MAX:
                raise Wrong(f"run {number}: {again} bytes fetched again, at most {REFETCHED_MAX} allowed")
            if read_first > READ_AGAIN_MAX:
                raise Wrong(f"run {number}: {read_first} bytes read again before the first new block, "
                            f"at most {READ_AGAIN_MAX} allowed")
            if meddle and point:
                meddle(arrived)
        if wrong := payload.differences(SHAPE, source, arrived):
            raise Wrong(f"it says complete, but {'; '.join(wrong)}")
        fetched = sum(run["fetched"] for run in figures)
        print(f"right by sha256 after {kills} kills; {(fetched - SHAPE.total) / MIB:.2f} MiB more than needed were "
              f"fetched, {max(run['again'] for run in figures) / MIB:.2f} MiB again after the worst kill")
        return {"seeder": seeder.name, "leecher": leecher.name, "seed": seed, "total": SHAPE.total, "runs": figures}
    except Wrong:
        if meddle is None and kills == KILLS:
            print(logs_of(children), file=sys.stderr, flush=True)
        raise
    finally:
        for child in reversed(children):
            child.stop(5)
        if relay:
            relay.close()
        shutil.rmtree(work, ignore_errors=True)


def _run_until(child, relay, point):
    """Kills the child at `point`, or waits for its end at None. Bytes it read before the first block came."""
    read_first, best, moved = None, (0, 0), time.monotonic()
    while True:
        run_bytes, _, _, unique = relay.figures()
        read_now = _bytes_read(child.pid)
        if read_first is None and run_bytes:
            read_first = read_now
        status = child.process.poll()
        if status is not None:
            if point is None and status == 0:
                return read_first or read_now or 0
            raise Wrong(f"the leecher ended by itself with status {status}"
                        + (" before everything was there" if point else ""))
        if point:
            kind, value, extra = point
            if kind == "bytes" and unique >= value:
                time.sleep(extra)
            if (kind == "bytes" and unique >= value) or (kind == "start" and time.monotonic() - child.started >= value):
                if child.process.poll() is None:
                    child.kill()
                    return read_now if read_first is None else read_first
                continue
        if (unique, read_now or 0) != best:
            best, moved = (unique, read_now or 0), time.monotonic()
        if time.monotonic() - moved > STALLED_SECONDS:
            raise Wrong(f"nothing moved for {STALLED_SECONDS} s ({unique / MIB:.1f} MiB delivered)")
        time.sleep(0.003)


def _bytes_read(pid):
    """What a process took by read calls so far (socket receives not among them); 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/io") as file:
            return int(file.readline().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _say(point):
    return f"{point[1] / MIB:.1f} MiB" if point[0] == "bytes" else f"{point[1] * 1000:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
