#!/usr/bin/env python3
"""Every scenario, in each world it names: passes, does the same twice, and means the same in both worlds and profiles.

For each file of scenarios/ and scenarios/museum/, and each seed it runs `taipei-sim run FILE --seed N --world W --json` as a process of its own:

- the verdict is "pass";
- for the first seeds a second run has the same trace and the same end state;
- for seeds run in both worlds the end states are equal (have sets, content, bans, announces; not times);
- on turmoil, for the first seeds, the debug build has the trace of the release build. (In the event world that is seen of
  hundreds of swarms drawn by chance; `--full` sees it here as well.)

A file with a matrix is swept, every cell of it twice, and says how many there were. Every file of scenarios/corpus/, a
failure that was found and mended, passes with the seed that found it.

With TAIPEI_SCENARIOS=full, or --full, it takes 50 seeds of the event world and 5 of turmoil instead of 10 and 1, all of them
twice.

    scenarios.py --release PROGRAM [--debug PROGRAM] [--full | --events-seeds 10 --turmoil-seeds 1 --twice-seeds 2] [--profile-seeds 1]
"""
import argparse
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUN_SECONDS = 120


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--release", required=True)
    ap.add_argument("--debug")
    ap.add_argument("--full", action="store_true", default=os.environ.get("TAIPEI_SCENARIOS") == "full")
    ap.add_argument("--events-seeds", type=int)
    ap.add_argument("--turmoil-seeds", type=int)
    ap.add_argument("--twice-seeds", type=int)
    ap.add_argument("--profile-seeds", type=int, default=1)
    ap.add_argument("files", nargs="*", type=Path, help="instead of all")
    args = ap.parse_args()
    everything = [*(ROOT / "scenarios").glob("*.toml"), *(ROOT / "scenarios" / "museum").glob("*.toml")]
    files = [path.resolve() for path in args.files] or sorted(everything)
    if not files:
        print("!! no scenario found")
        return 1
    events, turmoil, twice = (50, 5, 50) if args.full else (10, 1, 2)
    seeds = {"events": args.events_seeds or events, "turmoil": args.turmoil_seeds or turmoil}
    args.twice_seeds = args.twice_seeds or twice
    began = time.monotonic()
    failures = 0
    pool = ThreadPoolExecutor(os.cpu_count() or 2)
    try:
        matrices = [path for path in files if "\n[matrix]" in path.read_text()]
        # All at once, told in order, so that no core waits for the last run of a file.
        # Stage canaries is about those of the museum: here a few seeds show that they pass.
        few = {"events": min(seeds["events"], 3)}
        begun = [
            begin(path, few if path.parent.name == "museum" else seeds, args, pool) for path in files if path not in matrices
        ]
        failures += sum(map(one_scenario, begun))
        failures += sum(one_matrix(path, args) for path in matrices)
        corpus = [] if args.files else sorted((ROOT / "scenarios" / "corpus").glob("*.toml"))
        failures += mended(corpus, args, pool)
    finally:
        pool.shutdown(cancel_futures=True)
    print(f"{len(files)} scenarios, {failures} failures, {time.monotonic() - began:.0f} s")
    return 1 if failures else 0


class Begun:
    """The runs of a scenario that were asked for, by world, seed and which of them."""

    def __init__(self, path):
        self.path, self.worlds, self.runs = path, worlds_of(path), {}


def begin(path, seeds, args, pool):
    begun = Begun(path)
    for world in begun.worlds:
        for seed in range(1, seeds[world] + 1):
            programs = {"first": args.release}
            if seed <= args.twice_seeds:
                programs["second"] = args.release
            if args.debug and seed <= args.profile_seeds and (world == "turmoil" or args.full):
                programs["debug"] = args.debug
            begun.runs[world, seed] = {
                which: pool.submit(run, program, path, seed, world) for which, program in programs.items()
            }
    return begun


def one_scenario(begun):
    """Waits for all of it; prints a line a world; how many things were wrong."""
    path, worlds = begun.path, begun.worlds
    problems, ends = [], {}
    for world in worlds:
        twice, debug, seconds = 0, 0, 0
        seeds = [seed for of, seed in begun.runs if of == world]
        for seed in seeds:
            runs = {which: future.result() for which, future in begun.runs[world, seed].items()}
            seconds += sum(one.seconds for one in runs.values())
            a = ends[world, seed] = runs["first"]
            problems += a.problems
            if b := runs.get("second"):
                twice += 1
                problems += [words for words in b.problems if words not in a.problems]
                if a.trace != b.trace:
                    problems.append(f"{a.again}: not deterministic: traces {a.trace} and {b.trace}")
                if a.end_state != b.end_state:
                    problems.append(f"{a.again}: not deterministic: the end states of two runs differ")
            if built := runs.get("debug"):
                debug += 1
                if built.trace != a.trace:
                    problems.append(f"{built.again}: debug and release differ: traces {built.trace} and {a.trace} "
                                    f"{' '.join(built.problems)}")
        distinct = len({ends[world, seed].trace for seed in seeds})
        print(f"{path.stem:<32} {world:<8} {len(seeds):>3} seeds, {distinct} different traces, "
              f"{twice} twice, {debug} in debug, {seconds:6.1f} s in all", flush=True)
        if len(seeds) > 2 and distinct < 2:
            problems.append(f"{path.name} in {world}: every seed has the same trace, so the seed decides nothing")
    compared = 0
    if set(worlds) == {"events", "turmoil"}:
        for seed in sorted({seed for _, seed in ends}):
            a, b = ends["events", seed], ends.get(("turmoil", seed))
            if b is None or a.problems or b.problems:
                continue
            compared += 1
            if a.end_state != b.end_state:
                problems.append(f"{path.name} seed {seed}: the worlds end differently:\n"
                                f"    events  {json.dumps(a.end_state, sort_keys=True)[:1500]}\n"
                                f"    turmoil {json.dumps(b.end_state, sort_keys=True)[:1500]}")
        print(f"{'':<32} both     {compared:>3} seeds end alike" if not problems else "", flush=True)
    for problem in problems[:20]:
        print(f"!! {problem}")
    if len(problems) > 20:
        print(f"!! and {len(problems) - 20} more")
    return len(problems)


def one_matrix(path, args):
    """Every cell twice, in the event world."""
    began = time.monotonic()
    argv = [args.release, "sweep", str(path), "--seeds", "1", "--twice", "--world", "events", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=RUN_SECONDS * 5, stdin=subprocess.DEVNULL)
    try:
        told = json.loads(done.stdout)
    except ValueError:
        print(f"!! {path.name}: status {done.returncode}\n{done.stdout[-800:]}{done.stderr[-800:]}")
        return 1
    print(f"{path.stem:<32} events   {told['runs']} of {told['wanted']} cells twice, {told['verdicts']}, "
          f"{time.monotonic() - began:6.1f} s", flush=True)
    if done.returncode != 0:
        print(f"!! {path.name}: status {done.returncode}\n{done.stderr[-2000:]}")
    return int(done.returncode != 0)


def mended(corpus, args, pool):
    """Failures of old pass now, in the world in which they were found. One whose fault strikes nothing any more (vacuous)
    proves nothing, and wants another in its place."""
    def again(path):
        argv = [args.release, "replay", str(path), "--json"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=RUN_SECONDS, stdin=subprocess.DEVNULL)
        return done.returncode == 0 or f"!! {path.name} fails again: status {done.returncode}\n{done.stderr[-800:]}"
    results = list(pool.map(again, corpus))
    wrong = [result for result in results if result is not True]
    print(*wrong, sep="\n" if wrong else "")
    print(f"{'corpus':<32} {len(results) - len(wrong)} of {len(results)} failures of old pass", flush=True)
    return len(wrong)


class Outcome:
    """What one run said in its last line."""

    def __init__(self, again):
        self.again, self.trace, self.end_state, self.problems, self.seconds = again, None, None, [], 0


def run(program, path, seed, world):
    """One process. Never raises: what went wrong is in `problems`."""
    shown = os.path.relpath(path, ROOT)
    outcome = Outcome(f"taipei-sim run {shown} --seed {seed} --world {world}")
    argv = [program, "run", str(path), "--seed", str(seed), "--world", world, "--json"]
    began = time.monotonic()
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=RUN_SECONDS, stdin=subprocess.DEVNULL)
        outcome.seconds = time.monotonic() - began
    except (OSError, subprocess.TimeoutExpired) as error:
        outcome.problems.append(f"{outcome.again}: {error}")
        return outcome
    try:
        last = json.loads(done.stdout.strip().rsplit("\n", 1)[-1])
        outcome.trace, outcome.end_state = last["trace"], last["end_state"]
        verdict = last["verdict"]
    except (ValueError, KeyError, TypeError):
        verdict = "no JSON object at the end of its output"
    if done.returncode != 0 or verdict != "pass":
        tail = (done.stdout + done.stderr).strip()[-800:]
        outcome.problems.append(f"{outcome.again}: status {done.returncode}, {verdict}\n{tail}")
    elif not outcome.trace or not outcome.end_state:
        outcome.problems.append(f"{outcome.again}: passes without a trace or an end state")
    return outcome


def worlds_of(path):
    """The worlds that the file names; the event world when it names none."""
    found = re.search(r"^\s*worlds\s*=\s*\[([^\]]*)\]", path.read_text(), re.MULTILINE)
    return re.findall(r'"(\w+)"', found.group(1)) if found else ["events"]


if __name__ == "__main__":
    sys.exit(main())
