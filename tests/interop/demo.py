#!/usr/bin/env python3
"""`taipei-cli demo` by itself, in a namespace that holds nothing else and a directory that is empty before and after.

Exit status 0: it ended with 0 in time, said that what arrived was verified, left no process and no file.
"""
import os
import shutil
import sys
import tempfile

sys.dont_write_bytecode = True
import clients      # noqa: E402
import namespace    # noqa: E402
from processes import Child     # noqa: E402

SECONDS = 90


def main():
    namespace.enter()
    work = tempfile.mkdtemp(prefix="taipei-demo-")
    logs, own = os.path.join(work, "logs"), os.path.join(work, "own")
    home, here, temp = (os.path.join(own, name) for name in ("home", "here", "tmp"))
    for folder in (logs, home, here, temp):
        os.makedirs(folder)
    problems = []
    try:
        env = {"HOME": home, "XDG_STATE_HOME": home, "XDG_CACHE_HOME": home, "TMPDIR": temp}
        child = Child("demo", [clients.TAIPEI.program, "demo"], logs, env, cwd=here)
        status = child.wait(SECONDS)
        if status != 0:
            problems.append(f"status {status} after {SECONDS} s at most")
        child.kill()
        text = child.log()
        if "verified" not in text.lower():
            problems.append("it never said that anything was verified")
        left = [os.path.join(folder, name) for folder, _, names in os.walk(own) for name in names]
        if left:
            problems.append(f"it left {left[:5]}")
        print("\n".join(text.rstrip().splitlines()[-40:]))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for problem in problems:
        print(f"!! demo: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
