"""A DHT of nodes that have no torrent to fetch: some of libtorrent, some of ours, on neighbouring ports of one address.

The first is at `--port`; the others begin with it. Says `ready` and runs until SIGTERM or SIGINT.
"""
import argparse
import os
import signal
import sys
import time

sys.dont_write_bytecode = True
import clients                              # noqa: E402
from namespace import free_port, host_port  # noqa: E402
from processes import Child                 # noqa: E402


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--ip", required=True)
    ap.add_argument("--port", type=int, required=True)
    ap.add_argument("--folder", required=True)
    ap.add_argument("--libtorrent", type=int, default=0, help="how many of them")
    ap.add_argument("--taipei", type=int, default=0, help="how many of them")
    args = ap.parse_args()
    stopping = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.append(1))
    ports = [args.port] + [free_port(args.ip) for _ in range(args.libtorrent + args.taipei - 1)]
    first = host_port(args.ip, args.port)
    children = []
    if args.libtorrent:
        argv = [clients.Libtorrent.python, os.path.join(clients.HERE, "lt_nodes.py"), "--ip", args.ip, "--first", first,
                *ports[:args.libtorrent]]
        children.append(Child("libtorrent-nodes", argv, args.folder))
    for number, port in enumerate(ports[args.libtorrent:]):
        # A node needs a torrent to be there for.
        folder = os.path.join(args.folder, f"node-{number}")
        os.makedirs(folder)
        with open(os.path.join(folder, "own"), "wb") as file:
            file.write(b"%d" % number)
        job = clients.Job(os.path.join(folder, "own"), folder, folder, args.ip, port, dht=first)
        children.append(Child(f"node-{number}", clients.TAIPEI.seed(job), folder, clients.TAIPEI.env(job)))
    with open(os.path.join(args.folder, "ports"), "w") as file:
        file.write(" ".join(map(str, ports)))
    print("ready", flush=True)
    while not stopping and all(child.is_running() for child in children):
        time.sleep(0.1)
    for child in children:
        child.kill()
        if not stopping:
            print(child.log(), flush=True)
    return 0 if stopping else 1


if __name__ == "__main__":
    sys.exit(main())
