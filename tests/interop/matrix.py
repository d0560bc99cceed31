#!/usr/bin/env python3
"""Real foreign clients give us files and take them from us: every client, both ways, both trackers, every shape.

    matrix.py                     the matrix (done-when 3 of issue 2)
    matrix.py --self-test         proves the harness without us: foreign clients with each other, and wrong data
    matrix.py --clients rqbit --roles leecher --trackers taipei --shapes multi     a part of it
    matrix.py --json FILE         the results as JSON as well

Exit status: 0 all fine, 1 something is wrong, 2 nothing could be run.
"""
import argparse
import json
import os
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
    show_versions([ours, *foreign])
    payloads, results = transfer.Payloads(work), []
    head()
    for client in foreign:
        for role in args.roles.split(","):
            seeder, leecher = (client, ours) if role == "seeder" else (ours, client)
            for tracker in used_trackers:
                for shape in args.shapes.split(","):
                    # `taipei-cli create` offers powers of two; "odd" is a torrent that others made.
                    create = None if shape == "odd" else create_by_us
                    result = transfer.run(seeder, leecher, tracker, shape, payloads, os.path.join(work, "cell"),
                                          args.seconds, create)
                    row(result)
                    results.append(result)
    failed = [result for result in results if not result.is_ok]
    print(f"{len(results) - len(failed)} transfers right, {len(failed)} wrong")
    return results, bool(failed)


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
    payloads, results, failed = transfer.Payloads(work), [], []
    if not foreign or not used_trackers:
        return [], False
    show_versions(foreign)
    head()

    def cell(seeder, leecher, shape, want_ok, tracker=used_trackers[-1], **more):
        result = transfer.run(seeder, leecher, tracker, shape, payloads, os.path.join(work, "cell"),
                              quiet=not want_ok, **more)
        row(result)
        results.append(result)
        if result.is_ok != want_ok:
            failed.append(result)
            print("!! the row above must " + ("be right" if want_ok else "NOT be right"))

    for seeder, leecher in zip(foreign, foreign[::-1]):
        for tracker in used_trackers:
            for shape in args.shapes.split(","):
                cell(seeder, leecher, shape, True, tracker)
    cell(foreign[0], foreign[-1], "odd", False, spoil=flip_a_byte)
    cell(foreign[0], foreign[-1], "odd", False, spoil=remove_the_empty_file)
    if liar := next((client for client in foreign if client.name == "libtorrent"), None):
        bad = os.path.join(work, "bad")
        payload.write(payload.SHAPES["odd"], bad)
        flip_a_byte(bad)
        cell(liar, foreign[-1], "odd", False, source=bad, trust=True, seconds=8)
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
    print(f"{'seeder':<11} {'leecher':<11} {'tracker':<12} {'shape':<7} {'seconds':>8} {'MiB/s':>7}  verdict")


def row(result):
    print(f"{result.seeder:<11} {result.leecher:<11} {result.tracker:<12} {result.shape:<7} {result.seconds:>8.2f} "
          f"{result.mib_per_second:>7.1f}  {result.verdict}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
