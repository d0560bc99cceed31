"""Transmission as a seeder or leecher: a daemon of its own for one torrent, told what to do by RPC on this machine.

`download` exits 0 when the torrent is whole and the daemon has ended; `seed` runs until SIGINT. The last line is
`uploaded N`, in bytes of payload.
"""
import argparse
import base64
import json
import os
import shutil
import signal
import socket
import struct
import sys
import time
import urllib.error
import urllib.request

sys.dont_write_bytecode = True
from processes import Child, eventually     # noqa: E402

STOPPED = 0


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("verb", choices=("seed", "download"))
    ap.add_argument("torrent")
    ap.add_argument("--dir", required=True)
    ap.add_argument("--home", required=True)
    ap.add_argument("--ip", required=True)
    ap.add_argument("--port", type=int, required=True)
    ap.add_argument("--up", type=int, default=0, help="bytes per second to upload at most")
    ap.add_argument("--down", type=int, default=0, help="the same to download")
    ap.add_argument("--pex", action="store_true", help="tell peers of each other")
    ap.add_argument("--dht", help="IP and the ports of nodes of the DHT to begin with, IP:PORT,PORT...")
    ap.add_argument("--limit", type=float, default=600)
    args = ap.parse_args()
    stopping = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.append(1))

    with open(os.path.join(args.home, "settings.json"), "w") as file:
        json.dump(settings(args), file)
    if args.dht:
        with open(os.path.join(args.home, "dht.dat"), "wb") as file:
            file.write(saved_nodes(args.dht))
    argv = [shutil.which("transmission-daemon"), "--foreground", "--config-dir", args.home]
    daemon = Child("transmission-daemon", argv, args.home, stop_signal=signal.SIGTERM)
    rpc, status = Rpc(args.port), 3
    try:
        if not eventually(lambda: rpc.is_there() or not daemon.is_running(), 20) or not daemon.is_running():
            raise RuntimeError("transmission-daemon does not answer")
        added = rpc.ask("torrent-add", paused=True, **source(args.torrent), **{"download-dir": args.dir})
        torrent = added["torrent-added"]["id"]
        if args.verb == "seed":
            rpc.ask("torrent-verify", ids=[torrent])
            eventually(lambda: stopping or rpc.torrent(torrent)["status"] == STOPPED, 60)
            if rpc.torrent(torrent)["percentDone"] < 1:
                raise RuntimeError("the data to seed are not whole")
        rpc.ask("torrent-start-now", ids=[torrent])
        deadline = time.monotonic() + args.limit
        while not stopping and time.monotonic() < deadline:
            now = rpc.torrent(torrent)
            if args.verb == "download" and now["percentDone"] == 1:
                status = 0
                break
            time.sleep(0.1)
        if args.verb == "seed" and stopping:
            status = 0
        uploaded = rpc.torrent(torrent)["uploadedEver"]
    finally:
        # What is whole may still be in its cache.
        if daemon.stop(10) is None:
            status = 4
        print(daemon.log(), flush=True)
    print(f"uploaded {uploaded}", flush=True)
    return status


def source(torrent):
    """A torrent file or a magnet link, as it takes them."""
    if torrent.startswith("magnet:"):
        return {"filename": torrent}
    with open(torrent, "rb") as file:
        return {"metainfo": base64.b64encode(file.read()).decode()}


def saved_nodes(dht):
    """As an earlier run would have left them: it does nothing for torrents before it knows nine."""
    ip, _, ports = dht.partition(":")
    nodes = b"".join(socket.inet_aton(ip) + struct.pack(">H", int(port)) for port in ports.split(","))
    return b"d2:id20:%b5:nodes%d:%be" % (os.urandom(20), len(nodes), nodes)


def settings(args):
    ipv6 = ":" in args.ip
    return {
        # Its HTTP client binds to the IPv4 address where one is set.
        "bind-address-ipv4": "0.0.0.0" if ipv6 else args.ip, "bind-address-ipv6": args.ip if ipv6 else "::1",
        "peer-port": args.port, "peer-port-random-on-start": False, "port-forwarding-enabled": False,
        "dht-enabled": bool(args.dht), "lpd-enabled": False, "pex-enabled": args.pex, "utp-enabled": False, "encryption": 0,
        "rpc-enabled": True, "rpc-bind-address": "127.0.0.1", "rpc-port": args.port, "rpc-whitelist-enabled": False,
        "rpc-authentication-required": False, "rename-partial-files": False, "message-level": 2,
        "speed-limit-up-enabled": args.up > 0, "speed-limit-up": args.up // 1000,
        "speed-limit-down-enabled": args.down > 0, "speed-limit-down": args.down // 1000,
    }


class Rpc:
    """Its control interface at a port of this machine."""

    def __init__(self, port):
        self.url, self.session = f"http://127.0.0.1:{port}/transmission/rpc", ""
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def is_there(self):
        try:
            return self.ask("session-get") is not None
        except OSError:
            return False

    def torrent(self, number):
        return self.ask("torrent-get", ids=[number], fields=["status", "percentDone", "uploadedEver"])["torrents"][0]

    def ask(self, method, **arguments):
        body = json.dumps({"method": method, "arguments": arguments}).encode()
        for _ in range(2):
            request = urllib.request.Request(self.url, body, {"X-Transmission-Session-Id": self.session})
            try:
                with self.opener.open(request, timeout=20) as answer:
                    told = json.load(answer)
                break
            except urllib.error.HTTPError as error:
                if error.code != 409:
                    raise
                # The first answer only names the session.
                self.session = error.headers["X-Transmission-Session-Id"]
        if told["result"] != "success":
            raise RuntimeError(f"{method}: {told['result']}")
        return told["arguments"]


if __name__ == "__main__":
    sys.exit(main())
