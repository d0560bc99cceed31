#!/usr/bin/env python3
"""Real foreign clients give us files and take them from us, in pairs and in swarms.

    matrix.py                     every client x direction x shape, every client x tracker; swarms; BEP 6; IPv6; magnets; PEX; DHT;
                                  local discovery
    matrix.py --self-test         proves the harness without us: foreign clients with each other, and wrong data
    matrix.py --only pairs --clients rqbit --roles leecher --trackers taipei --shapes multi     a part of it
    matrix.py --full              every client x direction x shape x tracker
    matrix.py --json FILE         the results as JSON as well

TAIPEI_CLI names the program to test; without it, it is the release build. Exit status: 0 all fine, 1 something is
wrong, 2 nothing could be run.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import clients      # noqa: E402
import payload      # noqa: E402
import transfer     # noqa: E402
from trackers import DHTS, LSD, TRACKERS   # noqa: E402
from transfer import Cell       # noqa: E402

PAIR_TRACKERS = [tracker for tracker in TRACKERS.values() if not tracker.ipv6]
PARTS = ("pairs", "ipv6", "fast", "magnet", "pex", "dht", "lsd", "swarm")
WORKERS = 6                     # they wait for announces and rounds of choking more than they compute
SWARM_SHAPE = "single"
SWARM_SEEDER_UP = 4 * payload.MIB


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--self-test", action="store_true")
    ap.add_argument("--full", action="store_true")
    ap.add_argument("--only", default=",".join(PARTS))
    ap.add_argument("--clients", default=",".join(clients.FOREIGN))
    ap.add_argument("--roles", default="seeder,leecher", help="of the foreign client")
    ap.add_argument("--trackers", default=",".join(tracker.name for tracker in PAIR_TRACKERS))
    ap.add_argument("--shapes", default=",".join(payload.SHAPES))
    ap.add_argument("--seconds", type=float, default=60, help="for one transfer at most")
    ap.add_argument("--json", metavar="FILE")
    args = ap.parse_args()
    # So that `finally` runs, and our processes end with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work, began = tempfile.mkdtemp(prefix="taipei-interop-"), time.monotonic()
    os.chmod(work, 0o755)
    try:
        ours = clients.TAIPEI.missing()
        if ours and not args.self_test:
            print(f"taipei-cli: {ours}", file=sys.stderr)
            return 1
        foreign = available(clients.FOREIGN[name] for name in args.clients.split(","))
        # Our own tracker is judged by the self test as well once it is built, by clients that are not ours.
        used = available(TRACKERS[name] for name in args.trackers.split(",") if not ours or not name.startswith("taipei"))
        shapes = [name for name in args.shapes.split(",") if can_make(payload.SHAPES[name])]
        cells = (self_test_cells if args.self_test else real_cells)(args, foreign, used, shapes)
        if not cells:
            return 2
        print(" | ".join(f"{client.name}: {client.version()}" for client in ([] if args.self_test else [clients.TAIPEI]) + foreign),
              flush=True)
        # What takes its time first, so that nobody waits for it alone at the end.
        cells.sort(key=lambda cell: -cell.seconds)
        results = run(cells, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    unexpected = [result for cell, result in zip(cells, results) if result.is_ok != cell.is_ok_expected]
    if not args.self_test:
        show_table(foreign, shapes, results)
    print(f"{len(results) - len(unexpected)} of {len(results)} as they must be, {time.monotonic() - began:.0f} s")
    if args.json:
        with open(args.json, "w") as file:
            json.dump([result.as_json() for result in results], file, indent=1)
    return 1 if unexpected else 0


def run(cells, work):
    """The results of the cells, a row each as they come."""
    results = []
    print(f"{'seeder':<12} {'leecher':<12} {'tracker':<15} {'shape':<7} {'seconds':>7} {'MiB/s':>6}  verdict")
    for cell, result in zip(cells, transfer.run_all(cells, transfer.Payloads(work), work, WORKERS)):
        fast = f" via {result.teller}" if result.teller else {None: "", True: " fast", False: " no fast"}[result.fast]
        print(f"{result.seeder:<12} {result.leecher:<12} {result.tracker + fast:<15} {result.shape:<7} {result.seconds:>7.2f} "
              f"{result.mib_per_second:>6.1f}  {result.verdict}", flush=True)
        if result.is_ok != cell.is_ok_expected:
            print("!! the row above must " + (f"be right\n{result.logs}" if cell.is_ok_expected else "NOT be right"), flush=True)
        results.append(result)
    return results


def available(things):
    """Those that are installed; says loudly which are not."""
    out, told = [], set()
    for thing in things:
        if why := thing.missing():
            if why not in told:
                clients.report_skip(thing.name, why)
            told.add(why)
        else:
            out.append(thing)
    return out


def can_make(shape):
    """Whether a torrent of that shape can be made here; says so when not."""
    why = clients.FOREIGN["libtorrent"].missing() if shape.is_padded else None
    if why:
        clients.report_skip(f"shape {shape.name}", f"libtorrent makes its torrent: {why}")
    return why is None


def real_cells(args, foreign, used_trackers, shapes):
    ours, parts, cells = clients.TAIPEI, args.only.split(","), []

    def both_ways(client):
        for role in args.roles.split(","):
            yield (client, ours) if role == "seeder" else (ours, client)

    if "pairs" in parts:
        for shift, client in enumerate(foreign):
            for turn, (seeder, leecher) in enumerate(both_ways(client)):
                for at, shape in enumerate(shapes):
                    # Not every tracker with every shape, but each client in each role with each tracker.
                    one = used_trackers and [used_trackers[(at + shift + 2 * turn) % len(used_trackers)]]
                    for tracker in used_trackers if args.full else one:
                        # `taipei-cli create` offers powers of two; the others are torrents that others made.
                        create = create_by_us if shape in ("single", "multi", "many") else None
                        cells.append(Cell(seeder, (leecher,), tracker, shape, create=create, seconds=args.seconds))
    if "ipv6" in parts:
        cells += [Cell(seeder, (leecher,), TRACKERS["taipei-6"], "multi", seconds=args.seconds)
                  for client in foreign if client.can_ipv6 for seeder, leecher in both_ways(client)]
    by_name = {client.name: client for client in foreign}
    if "fast" in parts and (libtorrent := by_name.get("libtorrent")):
        cells += [Cell(seeder, (leecher,), TRACKERS["taipei"], "multi", fast=fast, seconds=args.seconds)
                  for fast in (True, False) for seeder, leecher in both_ways(libtorrent)]
    if "magnet" in parts:
        # Metadata of one block, and of several. Our tracker names no seeds to who says that nothing is left.
        cells += [Cell(seeder, (leecher,), TRACKERS["taipei" if leecher.seeks_with_magnet else "opentracker"], shape,
                       is_magnet=True, seconds=args.seconds)
                  for client in foreign for shape in ("multi", "many") for seeder, leecher in both_ways(client)]
    if "pex" in parts:
        told = [(by_name.get("libtorrent"), ours), (by_name.get("transmission"), ours), (ours, by_name.get("libtorrent"))]
        cells += [Cell(ours, (leecher,), TRACKERS["taipei"], "multi", teller=teller, seconds=170)
                  for teller, leecher in told if teller and leecher]
    if "dht" in parts:
        for dht in available(DHTS.values()):
            # Transmission takes its time, so once.
            names = ("libtorrent", "transmission") if dht.name == "dht-mixed" else ("libtorrent",)
            nodes = [by_name[name] for name in names if name in by_name]
            pairs = [(ours, ours)] + [pair for client in nodes for pair in both_ways(client)]
            cells += [Cell(seeder, (leecher,), dht, "multi", is_magnet=True, seconds=100) for seeder, leecher in pairs]
    if "lsd" in parts:
        pairs = [(ours, ours), *(both_ways(by_name["libtorrent"]) if "libtorrent" in by_name else ())]
        cells += [Cell(seeder, (leecher,), LSD, "multi", is_magnet=is_magnet, seconds=args.seconds)
                  for is_magnet in (False, True) for seeder, leecher in pairs]
    if "swarm" in parts:
        for name in ("libtorrent", "transmission"):
            if seeder := by_name.get(name):
                leechers = tuple(client for client in foreign if client is not seeder) + (ours,)
                cells.append(Cell(seeder, leechers, TRACKERS["taipei"], SWARM_SHAPE, seeder_up=SWARM_SEEDER_UP, seconds=90))
        if foreign:
            cells.append(Cell(ours, (*foreign, ours), TRACKERS["taipei"], "many", seconds=90))
    return cells


def create_by_us(path, torrent, announce, piece_length):
    """`taipei-cli create`, whose result must be the one our own Python makes."""
    argv = [clients.TAIPEI.program, "create", path, "-o", torrent, "-t", announce, "--piece-size", str(piece_length)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}")


def show_table(foreign, shapes, results):
    """For each client and role, what went with which trackers: shapes across, then what is no plain pair."""
    columns = [*shapes, "ipv6", "fast", "no fast", "magnet", "pex", "dht", "lsd", "swarm"]
    print(f"\n{'client':<13}{'role':<9}" + "".join(f"{column:<18}" for column in columns))
    for client in foreign:
        for role in ("seeder", "leecher"):
            fields = []
            for column in columns:
                told = [f"{result.tracker if column in shapes else 'ok'}" if result.is_ok else "WRONG" for result in results
                        if column_of(result) == column and client.name in getattr(result, role).split("+") + [result.teller]]
                fields.append(",".join(dict.fromkeys(told)) or "-")
            print(f"{client.name:<13}{role:<9}" + "".join(f"{field:<18}" for field in fields))
    print()


def column_of(result):
    if "+" in result.leecher:
        return "swarm"
    if result.tracker in DHTS:
        return "dht"
    if result.tracker == LSD.name:
        return "lsd"
    if result.is_magnet:
        return "magnet"
    if result.teller:
        return "pex"
    if result.fast is not None:
        return "fast" if result.fast else "no fast"
    return "ipv6" if TRACKERS[result.tracker].ipv6 else result.shape


class Idle(clients.Client):
    """A leecher that never does anything."""
    name = "idle"

    def download(self, job):
        return ["sleep", "600"]


class Hermit(clients.Client):
    """A client that the local network hears nothing of."""

    def __init__(self, client):
        self.client, self.name = client, f"{client.name}-alone"

    def download(self, job):
        job.is_lsd_on = False
        return self.client.download(job)


class Missing4(clients.Client):
    """A client in a swarm of IPv6 that has only IPv4."""

    def __init__(self, client):
        self.client, self.name = client, f"{client.name}-4"

    def download(self, job):
        # An address that is not of the swarm's family.
        job.ip = "127.0.0.1"
        return self.client.download(job)


def self_test_cells(args, foreign, used_trackers, shapes):
    """Foreign clients with each other must be right, and every kind of wrong must be noticed."""
    if not foreign or not used_trackers:
        return []
    http = next((tracker for tracker in used_trackers if tracker.scheme == "http" and tracker.name != "taipei"), used_trackers[0])
    first, last, cells = foreign[0], foreign[-1], []

    def wrong(seeder, *leechers, tracker=http, shape="odd", **more):
        cells.append(Cell(seeder, leechers, tracker, shape, is_ok_expected=False, **{"seconds": 15, **more}))

    for at, (seeder, leecher) in enumerate(zip(foreign, foreign[1:] + foreign[:1])):
        for turn, shape in enumerate(shapes):
            cells.append(Cell(seeder, (leecher,), used_trackers[(at + turn) % len(used_trackers)], shape))
    for shape in shapes:
        wrong(first, last, shape=shape, spoil=flip_a_byte)
    wrong(first, last, spoil=remove_the_empty_file)
    wrong(first, Idle(), seconds=3)
    wrong(first, Idle(), last, seconds=8)
    wrong(first, last, *foreign[1:-1], spoil=flip_a_byte)
    # One leecher takes all from the seeder: nobody exchanges anything.
    for seeder in foreign:
        if seeder.name in ("libtorrent", "transmission"):
            wrong(seeder, last, seeder_up=SWARM_SEEDER_UP, seconds=40)
    by_name = {client.name: client for client in foreign}
    if libtorrent := by_name.get("libtorrent"):
        wrong(libtorrent, last, spoil_source=flip_a_byte, seconds=8)
        cells += [Cell(libtorrent, (libtorrent,), http, "odd", fast=fast) for fast in (True, False)]
        wrong(libtorrent, libtorrent, fast=False, is_relay_idle=True)
        cells.append(Cell(libtorrent, (libtorrent,), LSD, "odd"))
        wrong(libtorrent, Hermit(libtorrent), tracker=LSD, seconds=5)
        if rqbit := by_name.get("rqbit"):
            # It has no fast extension, which must not count as done with or without.
            wrong(libtorrent, rqbit, fast=True)
            wrong(libtorrent, rqbit, fast=False)
        if not clients.TAIPEI.missing():
            ipv6 = TRACKERS["taipei-6"]
            cells += [Cell(libtorrent, (client,), ipv6, "odd") for client in foreign if client.can_ipv6]
            wrong(libtorrent, Missing4(libtorrent), tracker=ipv6, seconds=5)
    return cells


def flip_a_byte(folder):
    """In the longest file below the folder."""
    path = max((os.path.join(at, name) for at, _, names in os.walk(folder) for name in names), key=os.path.getsize)
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def remove_the_empty_file(folder):
    os.remove(os.path.join(folder, "odd", "nothing"))


if __name__ == "__main__":
    sys.exit(main())
