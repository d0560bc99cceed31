"""transmission-daemon as a seeder or leecher of one torrent, steered over its RPC.

`download` exits 0 when the torrent is whole; `seed` runs until SIGINT. The daemon ends with this process.
"""
import argparse
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request

import namespace
from processes import Child

ap = argparse.ArgumentParser()
ap.add_argument("verb", choices=("seed", "download"))
ap.add_argument("torrent")
ap.add_argument("--program", required=True)
ap.add_argument("--dir", required=True)
ap.add_argument("--home", required=True)
ap.add_argument("--ip", required=True)
ap.add_argument("--port", type=int, required=True)
args = ap.parse_args()

stopping = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stopping.append(1))

os.makedirs(args.home, exist_ok=True)
with open(os.path.join(args.home, "settings.json"), "w") as file:
    json.dump({
        "bind-address-ipv4": "0.0.0.0" if ":" in args.ip else args.ip,
        "bind-address-ipv6": args.ip if ":" in args.ip else "::1",
        "peer-port": args.port, "port-forwarding-enabled": False, "encryption": 0,
        "dht-enabled": False, "lpd-enabled": False, "pex-enabled": False, "utp-enabled": False,
        "download-dir": args.dir, "incomplete-dir-enabled": False, "rename-partial-files": False,
        "rpc-bind-address": "127.0.0.1", "rpc-port": (rpc_port := namespace.free_port("127.0.0.1")),
        "rpc-authentication-required": False, "rpc-whitelist-enabled": False, "rpc-host-whitelist-enabled": False,
        "ratio-limit-enabled": False, "watch-dir-enabled": False, "peer-limit-global": 50,
    }, file)
daemon = Child("daemon", [args.program, "-f", "-g", args.home, "--log-info"], args.home, stop_signal=signal.SIGTERM)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
session_id = ""


def rpc(method, **arguments):
    """The arguments of the answer; None while the daemon does not listen yet."""
    global session_id
    body = json.dumps({"method": method, "arguments": arguments}).encode()
    for _ in range(2):
        request = urllib.request.Request(f"http://127.0.0.1:{rpc_port}/transmission/rpc", body,
                                         {"X-Transmission-Session-Id": session_id})
        try:
            with opener.open(request, timeout=5) as answer:
                said = json.load(answer)
                if said["result"] != "success":
                    sys.exit(f"{method}: {said['result']}")
                return said["arguments"]
        except urllib.error.HTTPError as error:
            # The first answer is always a refusal that carries the session's id.
            session_id = error.headers.get("X-Transmission-Session-Id", "")
        except OSError:
            return None
    return None


status = 1
try:
    added = False
    while not stopping and daemon.is_running():
        time.sleep(0.1)
        if not added:
            added = rpc("torrent-add", filename=args.torrent, **{"download-dir": args.dir}) is not None
            continue
        torrents = (rpc("torrent-get", fields=["leftUntilDone", "status", "errorString"]) or {}).get("torrents")
        if torrents and torrents[0]["errorString"]:
            print(torrents[0], flush=True)
        # 1 and 2 are waiting for a check and checking.
        if args.verb == "download" and torrents and torrents[0]["leftUntilDone"] == 0 and torrents[0]["status"] > 2:
            break
    status = 0 if daemon.is_running() else 1
finally:
    # What is whole may still be in its cache until it ends.
    daemon.stop(10)
    print(daemon.log(), flush=True)
sys.exit(status)
