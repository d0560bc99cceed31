#!/usr/bin/env python3
"""Items of the DHT (BEP 44): what libtorrent stores we read, and what we store libtorrent reads.

The nodes that store them are half libtorrent's and half ours. Values that cannot change and values that are signed, with a
salt; and a second version of one takes the place of the first, whoever wrote that.

    items.py [--json FILE]

Exit status: 0 all read, 1 not, 2 libtorrent is not there.
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
import clients                               # noqa: E402
import namespace                             # noqa: E402
from processes import Child, eventually, logs_of     # noqa: E402

NODES = 6           # of each
SECONDS = 60
SEED = bytes(range(32)).hex()
SALT = "news"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--json", metavar="FILE")
    args = ap.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if why := clients.FOREIGN["libtorrent"].missing():
        clients.report_skip("items of the DHT with libtorrent", why)
        return 2
    namespace.enter()
    work = tempfile.mkdtemp(prefix="taipei-items-")
    os.chmod(work, 0o755)
    try:
        results = all_ways(work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)
    wrong = [result for result in results if result["problem"]]
    print(f"{len(results)} items, {len(wrong)} wrong")
    return 1 if wrong else 0


def all_ways(work):
    ip = namespace.address(3)
    port = namespace.free_port(ip)
    folder = os.path.join(work, "nodes")
    nodes = Child("nodes", [sys.executable, os.path.join(clients.HERE, "dht_nodes.py"), "--ip", ip, "--port", port, "--folder", folder,
                            "--libtorrent", NODES, "--taipei", NODES], folder, stop_signal=signal.SIGTERM)
    first = namespace.host_port(ip, port)
    key_file = os.path.join(work, "key")
    with open(key_file, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(SEED)
    ours, theirs = Ours(first, key_file), None
    try:
        if not eventually(lambda: ours.knows_all(), SECONDS, every=0.5):
            sys.exit("the nodes do not find each other\n" + logs_of([nodes]))
        theirs, results = Theirs(first), []
        for writer, reader in ((ours, theirs), (theirs, ours), (ours, ours)):
            text = f"written by {writer.name}, read by {reader.name}"
            results.append(outcome(writer, reader, "fixed", lambda: (text, reader.get(writer.put(text)))))
        key = ours.key()
        for number, (writer, reader) in enumerate(((ours, theirs), (theirs, ours), (ours, theirs)), 1):
            text = f"version {number}, by {writer.name}"
            results.append(outcome(writer, reader, "signed", lambda: (
                (text, number), (writer.put_signed(key, text), reader.get_signed(key))[1])))
        return results
    finally:
        if theirs is not None:
            theirs.stop()
        nodes.stop()


def outcome(writer, reader, kind, act):
    try:
        wanted, got = act()
        problem = None if wanted == got else f"{wanted} was stored and {got} read"
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        problem = f"{error} {getattr(error, 'stderr', '') or ''}".strip()
    print(f"{kind:<7} {writer.name:<11} {reader.name:<11} {'ok' if problem is None else '!! ' + problem}", flush=True)
    return {"kind": kind, "writer": writer.name, "reader": reader.name, "problem": problem}


class Ours:
    """Items by `taipei-cli dht`."""
    name = "taipei"

    def __init__(self, first, key_file):
        self.first, self.key_file = first, key_file

    def _dht(self, *words):
        argv = [clients.TAIPEI.program, "dht", *words, "--dht-bootstrap", self.first, "--bind", namespace.address(4), "--json"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL, check=True)
        return json.loads(done.stdout.splitlines()[0])

    def knows_all(self):
        return self._dht("stats")["nodes"] >= NODES

    def put(self, text):
        return self._dht("put", text)["target"]

    def get(self, target):
        return self._dht("get", target)["value"]

    def key(self):
        # Under another salt, so that it is no version of what is compared.
        return self._dht("put", "key", "--key", self.key_file, "--salt", "key")["public_key"]

    def put_signed(self, _key, text):
        self._dht("put", text, "--key", self.key_file, "--salt", SALT)

    def get_signed(self, key):
        item = self._dht("get", key, "--salt", SALT)
        return item["value"], item["seq"]


class Theirs:
    """Items by libtorrent, one session for all: a node that is gone is waited for by those that ask after it."""
    name = "libtorrent"

    def __init__(self, first):
        ip = namespace.address(5)
        argv = [clients.Libtorrent.python, os.path.join(clients.HERE, "lt_items.py"), "--ip", ip,
                "--port", str(namespace.free_port(ip)), "--first", first]
        # It gives up by itself, and says why.
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def stop(self):
        self.process.stdin.close()
        self.process.wait()

    def _dht(self, *words):
        print(json.dumps(words), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def put(self, text):
        return self._dht("put", text)["hash"]

    def get(self, target):
        return self._dht("get", target)["value"]

    def put_signed(self, key, text):
        self._dht("put-signed", SEED, key, SALT, text)

    def get_signed(self, key):
        item = self._dht("get-signed", key, SALT)
        return item["value"], item["seq"]


if __name__ == "__main__":
    sys.exit(main())
