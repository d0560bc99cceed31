"""Lines of files that ran, of a coverage report in lcov's format.

lines.py REPORT PATTERN: a line for each file whose path PATTERN matches, and what did not run.
"""

import re
import sys


def main(report, pattern):
    ran = {}
    path = None
    for line in open(report, encoding="utf-8"):
        kind, _, rest = line.rstrip("\n").partition(":")
        if kind == "SF":
            path = rest
        elif kind == "DA":
            number, count = map(int, rest.split(",")[:2])
            lines = ran.setdefault(path, {})
            lines[number] = max(lines.get(number, 0), count)
    covered_in_all = lines_in_all = 0
    for path in sorted(ran):
        found = re.search(pattern, path)
        if not found:
            continue
        lines = ran[path]
        missed = [number for number, count in sorted(lines.items()) if not count]
        covered = len(lines) - len(missed)
        covered_in_all += covered
        lines_in_all += len(lines)
        print(f"{found[0]:42} {100 * covered / max(1, len(lines)):6.1f} %  {covered} of {len(lines)}  {ranges(missed)}")
    print(f"{'all':42} {100 * covered_in_all / max(1, lines_in_all):6.1f} %  {covered_in_all} of {lines_in_all}")


def ranges(numbers):
    out = []
    for number in numbers:
        if out and out[-1][1] == number - 1:
            out[-1][1] = number
        else:
            out.append([number, number])
    return " ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in out)


main(*sys.argv[1:])
