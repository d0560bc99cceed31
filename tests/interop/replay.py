#!/usr/bin/env python3
"""A download from a foreign seeder, recorded, replays with equal outputs; damage to the recording is noticed; its page names
nobody, and its file is small and its owner's alone.

    replay.py [--seeders libtorrent,rqbit] [--json FILE]
"""
import argparse
import json
import os
import random
import re
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
from trackers import TRACKERS       # noqa: E402

SHAPE = "multi"
MEDDLED_COPIES = 8
# Of a recording for each GiB moved, and of one that hardly moved anything: settings, the torrent file, addresses.
BYTES_A_GIB = 2 << 20
BYTES_AT_LEAST = 128 << 10


class Recording(clients.Taipei):
    """Ours, recording."""

    def __init__(self, path):
        self.path = path

    def download(self, job):
        return [*super().download(job), "--record", self.path]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seeders", default="libtorrent,rqbit")
    ap.add_argument("--json", metavar="FILE")
    args = ap.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    simulator = os.path.join(os.path.dirname(clients.TAIPEI.program), "taipei-sim")
    for program in (clients.TAIPEI.program, simulator):
        if not os.access(program, os.X_OK):
            print(f"!! no {program}")
            return 1
    namespace.enter()
    work = tempfile.mkdtemp(prefix="taipei-replay-")
    os.chmod(work, 0o755)
    results, failed = [], False
    try:
        for name in args.seeders.split(","):
            seeder = clients.FOREIGN[name]
            if why := seeder.missing():
                clients.report_skip(f"replay of a download from {name}", why)
                continue
            problems, figures = one(seeder, simulator, work)
            results.append({"seeder": name, "problems": problems, **figures})
            failed |= bool(problems)
            for problem in problems:
                print(f"!! replay of a download from {name}: {problem}")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)
    return 1 if failed else (0 if results else 2)


def one(seeder, simulator, work):
    """(what is wrong, figures)"""
    record = os.path.join(work, f"{seeder.name}.record")
    cell = transfer.Cell(seeder, (Recording(record),), TRACKERS["taipei"], SHAPE)
    result = transfer.run(cell, transfer.Payloads(work), os.path.join(work, "cell"))
    if not result.is_ok:
        print(result.logs, file=sys.stderr, flush=True)
        return [f"the download itself: {result.verdict}"], {}
    if not os.path.exists(record):
        return ["no recording was written"], {}
    with open(record, "rb") as file:
        recording = file.read()
    figures = {"recording_bytes": len(recording), "payload_bytes": payload.SHAPES[SHAPE].total}
    problems = []
    status, text = replay(simulator, record)
    print(f"{seeder.name}: {len(recording)} bytes recorded of a download of {payload.SHAPES[SHAPE].total} bytes; "
          f"replay: status {status}: {' '.join(text.split())[-200:]}", flush=True)
    if status != 0:
        problems.append(f"status {status}:\n{text}")
    allowed = BYTES_AT_LEAST + payload.SHAPES[SHAPE].total * BYTES_A_GIB // (1 << 30)
    if len(recording) > allowed:
        problems.append(f"the recording has {len(recording)} bytes, and {allowed} are allowed")
    mode = os.stat(record).st_mode & 0o7777
    if mode != 0o600:
        problems.append(f"the recording can be read by others: mode {mode:o}")
    page = record + ".html"
    replay(simulator, record, "--report", page)
    with open(page, encoding="utf-8") as file:
        text = file.read()
    if "Repeated to the byte" not in text:
        problems.append("its page does not say that it was repeated")
    if found := re.search(r"\b\d{1,3}(\.\d{1,3}){3}\b", text):
        problems.append(f"its page has an address: {found[0]}")
    cut = len(recording) * 2 // 3
    with open(record, "wb") as file:
        file.write(recording[:cut])
    status, text = replay(simulator, record)
    if status != 0 or f"it ends at byte {cut}" not in text:
        problems.append(f"a recording that was cut: status {status}: {text[-600:]}")
    noticed, draw = 0, random.Random(1)
    for _ in range(MEDDLED_COPIES):
        meddled = bytearray(recording)
        meddled[draw.randrange(len(meddled) // 4, len(meddled))] ^= 1 << draw.randrange(8)
        with open(record, "wb") as file:
            file.write(meddled)
        status, text = replay(simulator, record)
        noticed += status != 0
        if status is None or status < 0 or "panicked" in text:
            problems.append(f"a meddled recording made it crash (status {status}):\n{text[-600:]}")
    print(f"{seeder.name}: {noticed} of {MEDDLED_COPIES} recordings with one flipped bit were noticed")
    if noticed < MEDDLED_COPIES:
        problems.append("not every flipped bit in the recording was noticed")
    return problems, {**figures, "flipped_bits_noticed": noticed}


def replay(simulator, record, *flags):
    """(status, output); status None when it took more than a minute."""
    try:
        done = subprocess.run([simulator, "replay", record, *flags], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return None, "took more than a minute"
    return done.returncode, done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
