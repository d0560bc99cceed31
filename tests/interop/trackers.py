"""Trackers as processes, and the one question that the harness asks them: is a seeder there?"""
import os
import re
import signal
import subprocess
import sys
import urllib.parse
import urllib.request

import clients
from namespace import host_port
from processes import Child, eventually, listens


class Tracker:
    """A program at one address, and how peers ask it. TCP and UDP have the same port; ours looks at the TCP one."""

    def __init__(self, suffix="", scheme="http", ipv6=False):
        self.name, self.scheme, self.ipv6 = self.name + suffix, scheme, ipv6

    def announce(self, ip, port):
        return f"{self.scheme}://{host_port(ip, port)}/announce"


class Opentracker(Tracker):
    """opentracker as Debian packages it: IPv4 alone, with a whitelist, run chrooted and as nobody when we are root."""
    name = "opentracker"

    def missing(self):
        return None if clients.opentracker() else "not installed (apt install opentracker)"

    def start(self, ip, port, folder, info_hashes):
        program = clients.opentracker()
        argv = [program, "-i", ip, "-p", port, "-P", port, "-d", folder]
        # In a user namespace of our own only one id exists, ours, which looks like root's.
        only_root = os.geteuid() == 0 and open("/proc/self/uid_map").read().split()[2] == "1"
        argv += ["-u", "root" if only_root else "nobody"]
        usage = subprocess.run([program, "-h"], capture_output=True, text=True, timeout=10)
        if "whitelist" in usage.stdout + usage.stderr:
            with open(os.path.join(folder, "whitelist"), "w") as file:
                file.writelines(info_hash.hex() + "\n" for info_hash in info_hashes)
            argv += ["-w", "whitelist"]
        return _started(Child("tracker", argv, folder), ip, port)


class TaipeiTracker(Tracker):
    """`taipei-cli tracker`."""
    name = "taipei"

    def missing(self):
        return clients.TAIPEI.missing()

    def start(self, ip, port, folder, info_hashes):
        argv = [clients.TAIPEI.program, "tracker", "--listen", host_port(ip, port)]
        return _started(Child("tracker", argv, folder), ip, port)


class NoTracker(Tracker):
    """A DHT in its place, of so many nodes of libtorrent and of ours."""
    ipv6 = False

    def __init__(self, name, libtorrent, taipei):
        self.name, self.libtorrent, self.taipei = name, libtorrent, taipei

    def missing(self):
        return clients.FOREIGN["libtorrent"].missing() if self.libtorrent else None

    def announce(self, ip, port):
        return None

    def start(self, ip, port, folder, info_hashes):
        argv = [sys.executable, os.path.join(clients.HERE, "dht_nodes.py"), "--ip", ip, "--port", port, "--folder", folder,
                "--libtorrent", self.libtorrent, "--taipei", self.taipei]
        child = Child("tracker", argv, folder, stop_signal=signal.SIGTERM)
        if not eventually(lambda: "ready" in child.log() or not child.is_running(), 20) or not child.is_running():
            raise RuntimeError(f"no DHT:\n{child.log()}")
        return child

    @staticmethod
    def ports(folder):
        """Of its nodes."""
        with open(os.path.join(folder, "ports")) as file:
            return tuple(map(int, file.read().split()))


class LocalNetwork(Tracker):
    """Nobody in its place: peers find each other by local discovery (BEP 14)."""
    name = "lsd"

    def missing(self):
        return None

    def announce(self, ip, port):
        return None

    def start(self, ip, port, folder, info_hashes):
        return Child("tracker", ["sleep", "600"], folder)


LSD = LocalNetwork()
DHTS = {dht.name: dht for dht in (
    NoTracker("dht-libtorrent", 12, 0), NoTracker("dht-taipei", 0, 10), NoTracker("dht-mixed", 6, 6))}
TRACKERS = {tracker.name: tracker for tracker in (
    TaipeiTracker(), Opentracker(), Opentracker("-udp", "udp"), TaipeiTracker("-udp", "udp"), TaipeiTracker("-6", ipv6=True))}


def seeders(ip, port, info_hash):
    """How many seeders it counts for the torrent, by scrape; 0 when it does not say."""
    url = f"http://{host_port(ip, port)}/scrape?info_hash={urllib.parse.quote(info_hash)}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            found = re.search(rb"8:completei(\d+)e", answer.read(1 << 16))
    except (OSError, ValueError):
        return 0
    return int(found.group(1)) if found else 0


def _started(child, ip, port):
    """The child once it accepts connections; raises when it does not within 10 s."""
    def accepts():
        if not child.is_running():
            return "gone"
        return "yes" if listens(ip, port) else None

    if eventually(accepts, 10) != "yes":
        child.kill()
        raise RuntimeError(f"{child.name} does not listen on {host_port(ip, port)}:\n{child.log()}")
    return child
