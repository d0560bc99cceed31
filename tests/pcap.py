#!/usr/bin/env python3
"""Captures of simulated runs, read by tshark: what peers, trackers and nodes of the DHT said is dissected as that.

    tests/pcap.py TAIPEI_SIM

Exit status: 0 all is well, 1 not, 2 no tshark (told as a skip).
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Of each scenario: filters of Wireshark, and how many packets each finds at least; none: nothing may be found.
WANTED = {
    "crash-resume-leecher": {
        "bittorrent.msg.type == 7": 500,  # Piece.
        "bittorrent.protocol.name": 2,  # Handshake.
        'http.request.uri contains "info_hash"': 4,
        "_ws.malformed": None,
        "tcp.analysis.lost_segment or tcp.analysis.out_of_order": None,
        "ip.checksum.status == 0 or tcp.checksum.status == 0": None,
    },
    "dht-finds-the-swarm": {
        "bittorrent.protocol.name": 10,
        "bt-dht": 100,
        "_ws.malformed": None,
        "tcp.analysis.lost_segment or tcp.analysis.out_of_order": None,
        "udp.checksum.status == 0": None,
    },
    "dual-stack": {"ipv6 and bittorrent": 10, "_ws.malformed": None, "tcp.checksum.status == 0": None},
    # Lost on purpose, and sent again.
    "lossy-swarm": {"tcp.analysis.retransmission": 1, "bittorrent.protocol.name": 10, "_ws.malformed": None},
}
CHECKED = ["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]


def count(capture, what):
    """How many packets a filter finds; an error of tshark's is one of ours."""
    command = ["tshark", "-n", *CHECKED, "-r", capture, "-Y", what, "-T", "fields", "-e", "frame.number"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    errors = [line for line in done.stderr.splitlines() if "Running as user" not in line]
    if done.returncode or errors:
        raise RuntimeError(f"tshark: {errors[:3]}")
    return len(done.stdout.split())


def wrong_with(capture, wanted):
    wrong = []
    for what, least in wanted.items():
        found = count(capture, what)
        if found > 0 if least is None else found < least:
            wrong.append(f"`{what}` finds {found}, wanted {least or 'none'}")
    return wrong


def main():
    if shutil.which("tshark") is None:
        print("!! SKIPPED pcap: tshark is not installed")
        if skips := os.environ.get("TAIPEI_SKIPS"):
            with open(skips, "a", encoding="utf-8") as file:
                file.write("pcap: tshark is not installed\n")
        return 2
    sim, failures = pathlib.Path(sys.argv[1]).resolve(), []
    with tempfile.TemporaryDirectory() as folder:
        for scenario, wanted in WANTED.items():
            capture = pathlib.Path(folder) / f"{scenario}.pcapng"
            file = ROOT / "scenarios" / f"{scenario}.toml"
            command = [sim, "run", file, "--world", "events", "--seed", "1", "--pcap", capture]
            subprocess.run(command, stdout=subprocess.DEVNULL, timeout=120, check=True)
            wrong = wrong_with(capture, wanted)
            print(f"{scenario}: {capture.stat().st_size >> 10} KiB, {len(wanted)} filters, {len(wrong)} wrong")
            failures += [f"{scenario}: {line}" for line in wrong]
        # A capture whose middle is changed must not look like a good one.
        spoilt = pathlib.Path(folder) / "spoilt.pcapng"
        data = bytearray((pathlib.Path(folder) / "crash-resume-leecher.pcapng").read_bytes())
        data[len(data) // 2] ^= 0x55
        spoilt.write_bytes(data)
        try:
            if not wrong_with(spoilt, WANTED["crash-resume-leecher"]):
                failures.append("a spoilt capture passed")
        except RuntimeError:
            pass
    for line in failures:
        print(f"!! {line}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
