"""Nodes of libtorrent's DHT, several in one process, until SIGINT or SIGTERM; run by the Python that has its wheel."""
import argparse
import signal
import sys
import time

sys.dont_write_bytecode = True
from lt_dht import session_of       # noqa: E402

ap = argparse.ArgumentParser()
ap.add_argument("--ip", required=True)
ap.add_argument("--first", required=True, help="IP:PORT of the node that all begin with")
ap.add_argument("ports", type=int, nargs="+")
args = ap.parse_args()

stopping = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stopping.append(1))
sessions = [session_of(args.ip, port, args.first) for port in args.ports]
told = None
while not stopping:
    time.sleep(0.2)
    nodes = [session.status().dht_nodes for session in sessions]
    if nodes != told:
        print(f"nodes known: {nodes}", flush=True)
        told = nodes
