#!/usr/bin/env python3
"""Real foreign clients give us files and take them from us.

    matrix.py                     every client, both ways, every shape; over the trackers in turn, so that each client
                                  meets each of them both ways; then over IPv6; then all in one swarm
    matrix.py --self-test         proves the harness: foreign clients with each other, and everything that can be wrong
    matrix.py --clients rqbit --roles leecher --trackers taipei-udp --shapes multi     a part of it
    matrix.py --json FILE         the results as JSON as well

Exit status: 0 all fine, 1 something is wrong, 2 nothing could be run.
"""
import argparse
import concurrent.futures
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
import clients      # noqa: E402
import namespace    # noqa: E402
import payload      # noqa: E402
import transfer     # noqa: E402
from trackers import TRACKERS   # noqa: E402


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--self-test", action="store_true")
    ap.add_argument("--clients", default=",".join(clients.FOREIGN))
    ap.add_argument("--roles", default="seeder,leecher", help="of the foreign client")
    ap.add_argument("--trackers", default=",".join(TRACKERS))
    ap.add_argument("--shapes", default=",".join(payload.SHAPES))
    ap.add_argument("--seconds", type=float, default=90, help="for one transfer at most")
    ap.add_argument("--json", metavar="FILE")
    args = ap.parse_args()
    # So that `finally` runs, and our processes end with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    namespace.enter()
    work = tempfile.mkdtemp(prefix="taipei-interop-")
    os.chmod(work, 0o755)
    try:
        results, failed = (self_test if args.self_test else matrix)(args, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump([result.as_json() for result in results], file, indent=1)
    return 1 if failed else (0 if results else 2)


def available(things):
    """Those that are installed; says loudly which are not."""
    out = []
    for thing in things:
        if why := thing.missing():
            clients.report_skip(thing.name, why)
        else:
            out.append(thing)
    return out


def matrix(args, work):
    ours = clients.TAIPEI
    if why := ours.missing():
        print(f"taipei-cli: {why}", file=sys.stderr)
        return [], True
    foreign = available(clients.FOREIGN[name] for name in args.clients.split(","))
    used_trackers = available(TRACKERS[name] for name in args.trackers.split(","))
    if not foreign or not used_trackers:
        return [], False
    show_versions([ours, *foreign])
    shapes, payloads = args.shapes.split(","), transfer.Payloads(work)
    cells = []
    for number, client in enumerate(foreign):
        for role in args.roles.split(","):
            pair = (client, ours) if role == "seeder" else (ours, client)
            for at, shape in enumerate(shapes):
                # Shifted by client and role, so that no tracker always meets the same shape.
                tracker = used_trackers[(at + number + (role == "leecher")) % len(used_trackers)]
                cells.append({"pair": pair, "shape": shape, "tracker": tracker})
            if client.ipv6 and namespace.address_v6(1) and (over_http := by_scheme(used_trackers, "taipei-http")):
                cells.append({"pair": pair, "shape": shapes[0], "tracker": over_http, "ipv6": True})
    for shape in shapes:
        payloads.source(shape)
    head()

    def cell(number, slot, what):
        # `taipei-cli create` offers powers of two and no pad files; these are torrents that others made.
        create = None if what["shape"] in ("odd", "pads") else create_by_us
        seeder, leecher = what["pair"]
        return transfer.run(seeder, leecher, what["tracker"], what["shape"], payloads,
                            os.path.join(work, f"cell-{number}"), args.seconds, create, slot=slot,
                            ipv6=what.get("ipv6", False))

    results = side_by_side(cell, cells)
    if len(foreign) >= 3:
        # Slow to begin with: whoever ends first goes, so one that stays seeds.
        seeder = foreign[0]
        mixed = transfer.swarm(seeder, [ours, *foreign[1:]], used_trackers[0], "single", payloads,
                               os.path.join(work, "swarm"))
        for result in mixed:
            row(result)
        results += mixed
    failed = [result for result in results if not result.is_ok]
    fast = {client.name: {result.fast for result in results if result.seeder == client.name and result.fast is not None}
            for client in foreign}
    told = ", ".join(f"{name} {'yes' if True in said else 'no' if said else 'unknown'}" for name, said in fast.items())
    print(f"the fast extension: {told}")
    print(f"{len(results) - len(failed)} transfers right, {len(failed)} wrong")
    return results, bool(failed)


def by_scheme(used_trackers, name):
    return next((tracker for tracker in used_trackers if tracker.name == name), None)


def side_by_side(run, cells):
    """`run(number, slot, cell)` for each, some at once, in slots of addresses of their own."""
    free = queue.SimpleQueue()
    for slot in range(AT_ONCE):
        free.put(slot)

    def one(numbered):
        slot = free.get()
        try:
            result = run(numbered[0], slot, numbered[1])
        finally:
            free.put(slot)
        row(result)
        return result

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, enumerate(cells)))


def create_by_us(path, torrent, announce, piece_length):
    """`taipei-cli create`, whose result must be the one our own Python makes."""
    argv = [clients.TAIPEI.program, "create", path, "-o", torrent, "-t", announce, "--piece-size", str(piece_length)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}")


def self_test(args, work):
    """Foreign clients with each other must be right, and every kind of wrong must be noticed."""
    foreign = available(clients.FOREIGN[name] for name in args.clients.split(","))
    # Our own tracker is judged here as well once it is built, by clients that are not ours.
    used_trackers = available(TRACKERS[name] for name in args.trackers.split(",")
                              if name != "taipei" or not clients.TAIPEI.missing())
    shapes, payloads, failed = args.shapes.split(","), transfer.Payloads(work), []
    if not foreign or not used_trackers:
        return [], False
    show_versions(foreign)
    head()

    def cell(number, slot, what):
        what = dict(what)
        want_ok = what.pop("want_ok")
        seeder, leecher, tracker, shape = (what.pop(key) for key in ("seeder", "leecher", "tracker", "shape"))
        result = transfer.run(seeder, leecher, tracker, shape, payloads, os.path.join(work, f"cell-{number}"),
                              quiet=not want_ok, slot=slot, **what)
        if result.is_ok != want_ok:
            failed.append(result)
            print(f"!! {result}: must " + ("be right" if want_ok else "NOT be right"))
        return result

    cells = []
    for number, (seeder, leecher) in enumerate(zip(foreign, [*foreign[1:], foreign[0]])):
        for at, shape in enumerate(shapes):
            # aria2 and Transmission of this age make pad files of their own: they do not tell them from others.
            cells.append({"seeder": seeder, "leecher": leecher, "shape": shape, "want_ok": True,
                          "tracker": used_trackers[(number + at) % len(used_trackers)]})
    bad = {"seeder": foreign[0], "leecher": foreign[-1], "tracker": used_trackers[-1], "shape": "odd", "want_ok": False}
    cells.append({**bad, "spoil": flip_a_byte})
    cells.append({**bad, "spoil": remove_the_empty_file})
    cells.append({**bad, "seeder": None, "seconds": 4})
    if liar := next((client for client in foreign if client.name == "libtorrent"), None):
        lies = os.path.join(work, "bad")
        payload.write(payload.SHAPES["odd"], lies)
        flip_a_byte(lies)
        cells.append({**bad, "seeder": liar, "source": lies, "trust": True, "seconds": 8})
    for shape in payload.SHAPES:
        payloads.source(shape)
    results = side_by_side(cell, cells)
    print(f"harness: {len(results) - len(failed)} as expected, {len(failed)} not")
    return results, bool(failed)


def flip_a_byte(folder):
    with open(os.path.join(folder, "odd", "third.bin"), "r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)
        file.seek(1_000_000)
        file.write(bytes([byte[0] ^ 1]))


def remove_the_empty_file(folder):
    os.remove(os.path.join(folder, "odd", "nothing"))


def show_versions(used):
    print(" | ".join(f"{client.name}: {client.version()}" for client in used), flush=True)


def head():
    print(f"{'seeder':<13} {'leecher':<13} {'tracker':<17} {'shape':<20} {'seconds':>8} {'MiB/s':>7}  verdict")


def row(result):
    shape = result.shape + (" over IPv6" if result.family == "IPv6" else "")
    print(f"{result.seeder:<13} {result.leecher:<13} {result.tracker:<17} {shape:<20} {result.seconds:>8.2f} "
          f"{result.mib_per_second:>7.1f}  {result.verdict}", flush=True)


# Transfers side by side: most of their time they wait.
AT_ONCE = 4

if __name__ == "__main__":
    sys.exit(main())
