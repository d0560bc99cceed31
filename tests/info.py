#!/usr/bin/env python3
"""`taipei-cli info --json` gives what the manifest of the fixtures says, of every torrent, in time and in little memory.

    info.py PROGRAM

Expectations are explained at the head of the manifest; values are compared where a torrent loads, the class of the error
where it is refused.
"""
import json
import os
import subprocess
import sys
import tomllib

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "torrents")
SECONDS_MAX, MIB_MAX = 1.0, 64


def main():
    program = sys.argv[1]
    with open(os.path.join(FIXTURES, "manifest.toml"), "rb") as file:
        rows = tomllib.load(file)["torrent"]
    wrong, slowest, largest = [], 0.0, 0.0
    for row in rows:
        status, output, seconds, mib = run(program, os.path.join(FIXTURES, row["file"]))
        slowest, largest = max(slowest, seconds), max(largest, mib)
        try:
            problems = judge(row, status, json.loads(output))
        except ValueError:
            problems = [f"no JSON: {output[:200]!r}"]
        if seconds > SECONDS_MAX:
            problems.append(f"took {seconds:.2f} s")
        if mib > MIB_MAX:
            problems.append(f"needed {mib:.0f} MiB")
        wrong += [f"{row['file']}: {problem}" for problem in problems]
    for line in wrong:
        print(f"!! {line}")
    print(f"{len(rows)} torrents, {len(wrong)} things wrong; slowest {slowest:.3f} s, largest {largest:.1f} MiB")
    return 1 if wrong or not rows else 0


def run(program, torrent):
    """Exit status, standard output, seconds, peak resident MiB."""
    read, write = os.pipe()
    child = subprocess.Popen([program, "info", "--json", torrent], stdout=write, stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        output = pipe.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, output, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def judge(row, status, said):
    """What is wrong."""
    if "error" in said or status != 0:
        if row["expect"] == "ok":
            return [f"refused: {said}"]
        if status != 1:
            return [f"refused with status {status}"]
        classes = row.get("error_class", [])
        if classes and said["error_class"] not in classes:
            return [f"refused as {said['error_class']}, not one of {classes}"]
        return []
    if row["expect"] == "error":
        return ["loaded"]
    files = said["files"]
    got = {
        **said,
        "total_size_padded": sum(file["length"] for file in files),
        "num_files": sum(not file["pad"] for file in files),
        "num_files_listed": len(files),
        "paths": sorted(file["path"] for file in files),
        "symlinks": sorted(file["symlink"] for file in files if file["symlink"]),
    }
    keys = ["info_hash_v1", "info_hash_v2", "piece_length", "num_pieces", "total_size", "total_size_padded", "num_files",
            "num_files_listed", "private", "trackers", "web_seeds", "dht_nodes", "kind"]
    if row["expect"] == "ok" and row.get("name_exact"):
        keys += ["name", "paths", "symlinks"]
    want = {**row, **{key: sorted(row[key]) for key in ("paths", "symlinks") if key in row}}
    problems = []
    for key in keys:
        if key in want and got[key] != want[key]:
            problems.append(f"{key} is {got[key]!r}, not {want[key]!r}")
    return problems


if __name__ == "__main__":
    sys.exit(main())
