#!/usr/bin/env python3
"""No bench takes more instructions than its committed figure says, and a little.

A count of instructions is the same on a busy machine and on an idle one, so it can be red where a time cannot. valgrind counts
them; its processor has no SHA instructions, so hashing costs more there than it does otherwise.

Each `[[bench]]` of instructions.toml is a command of a release build, `run`, and the `instructions` that it took. `less` is a command
whose count is taken away: what comes before that which is measured. `only` is a function: what is not done in it, or by it,
does not count. `over` and `percent` bound it by another bench: so much more
than that one at most. `units` says how many of something that is (blocks, rounds), and `at_most` how many instructions
each may take, whatever the figure says. More than a tenth above its figure is red; more than a tenth below asks for a new
figure.

    instructions.py DIRECTORY-OF-PROGRAMS [--update] [NAME...]

Exit status: 0 all within, 1 not, 2 nothing can count here.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "tests" / "instructions.toml"
COUNTER = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
COUNTER_OF_ONE = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
SECONDS = 300
TOLERANCE = 0.10


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("programs", type=Path)
    ap.add_argument("--update", action="store_true", help="write what is counted now")
    ap.add_argument("names", nargs="*", help="instead of all")
    args = ap.parse_intermixed_args()
    if not shutil.which(COUNTER[0]):
        print("!! no valgrind: nothing can count instructions here")
        return 2
    benches = tomllib.loads(FIGURES.read_text())["bench"]
    counts, wrong = {}, []
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        chosen = [bench for bench in benches if not args.names or bench["name"] in args.names]
        for bench, count in zip(chosen, pool.map(lambda bench: measure(args.programs, bench), chosen)):
            counts[bench["name"]] = count
    for bench in chosen:
        wrong += judge(bench, counts, args.update)
    if args.update:
        update(counts)
    print(*(f"!! {words}" for words in wrong), sep="\n" if wrong else "")
    return 1 if wrong else 0


def judge(bench, counts, is_update):
    """Prints a line; what is wrong."""
    name, count, figure = bench["name"], counts[bench["name"]], bench["instructions"]
    if isinstance(count, str):
        return [f"{name}: {count}"]
    wrong, more = [], count / figure - 1 if figure else 0.0
    print(f"{name:<24} {count:>15,} instructions, {more:+7.2%} against its figure")
    if not is_update and more > TOLERANCE:
        wrong.append(f"{name}: {more:+.1%} against its figure; where that is meant, --update")
    if not is_update and more < -TOLERANCE:
        print(f"   better than its figure by more than a tenth: --update")
    if "units" in bench:
        each = count / bench["units"]
        most = f", at most {bench['at_most']:,}" if "at_most" in bench else ""
        print(f"{'':<24} {each:>15,.0f} for each of {bench['units']:,}{most}")
        if each > bench.get("at_most", each):
            wrong.append(f"{name}: {each:,.0f} instructions for each, at most {bench['at_most']:,}")
    other = counts.get(bench.get("over"))
    if isinstance(other, int):
        over = count / other - 1
        print(f"{'':<24} {over:+.1%} over {bench['over']}, at most {bench['percent']} %")
        if over * 100 > bench["percent"]:
            wrong.append(f"{name}: {over:+.1%} over {bench['over']}, at most {bench['percent']} %")
    return wrong


def measure(programs, bench):
    """How many instructions, or why none could be counted."""
    only = bench.get("only")
    whole = count(programs, bench["run"], only)
    before = count(programs, bench["less"], only) if "less" in bench else 0
    for found in (whole, before):
        if isinstance(found, str):
            return found
    return whole - before


def count(programs, command, only):
    counter = [*COUNTER_OF_ONE, f"--toggle-collect={only}"] if only else COUNTER
    argv = [*counter, str((programs / command[0]).resolve()), *command[1:]]
    try:
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if done.returncode != 0 or not found:
        return f"status {done.returncode}: {done.stderr[-400:]}"
    if only and found.group(1) == "0":
        return f"no function {only}"
    return int(found.group(1).replace(",", ""))


def update(counts):
    text = FIGURES.read_text()
    for name, count in counts.items():
        if isinstance(count, int):
            figure = f"{count:_}"
            text = re.sub(rf'(name = "{re.escape(name)}"[^\n]*\n(?:[^\[].*\n)*?instructions = )[\d_]+', rf"\g<1>{figure}", text)
    FIGURES.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
