#!/usr/bin/env python3
"""Ports at a real router: miniupnpd of Debian, with nftables, between two networks of our own.

    port_mapping.py [--only NAME,...]

Three network namespaces: this process is the router, with a client of ours on one side and the world on the other. By
UPnP alone, NAT-PMP alone and PCP alone, `hold_port` (an example of taipei-net) must be mapped for TCP and UDP and reached
from the world, renewed, mapped again after the router was killed and begins with nothing, and released when it ends; where
the port is taken it gets another one. Then `taipei-cli seed` must do as much by itself, and nothing with `--no-upnp`.

Exit status: 0 all fine, 1 something is wrong, 2 it could not run here, and why was said.
"""
import argparse
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import clients                                          # noqa: E402
import namespace                                        # noqa: E402
from processes import Child, eventually, logs_of        # noqa: E402

HOLD_PORT = os.path.join(os.path.dirname(clients.TAIPEI.program), "examples", "hold_port")
ROUTER, CLIENT, NEIGHBOUR = "192.168.77.1", "192.168.77.2", "192.168.77.3"
# Addresses that are somebody's, because miniupnpd maps nothing for a router that is itself in a private network. They are
# in namespaces of ours, and no packet leaves those.
OUTSIDE, WORLD = "11.22.33.44", "11.22.33.1"
PORT, LEASE_SECONDS = 6881, 4

# What is forwarded is let through: of two mappings of one port, miniupnpd 2.3.1 takes away the wrong protocol's rule for that
# when PCP renews one of them.
RULES = """
table inet filter {
  chain miniupnpd {}
  chain prerouting_miniupnpd {}
  chain postrouting_miniupnpd {}
  chain forward { type filter hook forward priority 0; policy accept; jump miniupnpd; }
  chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
  chain postrouting { type nat hook postrouting priority 100; jump postrouting_miniupnpd; }
}
"""


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--only", help="of " + ", ".join(CASES))
    args = ap.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for program in (HOLD_PORT, clients.TAIPEI.program):
        if not os.access(program, os.X_OK):
            print(f"!! no {program}")
            return 1
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    # With --only by hand; all of it otherwise.
    for program in ("miniupnpd", "nft", "ip", "unshare", "nsenter"):
        if not shutil.which(program):
            clients.report_skip("port mapping", f"{program} is not installed")
            return 2
    if not namespace.enter():
        clients.report_skip("port mapping", "no network namespace")
        return 2
    work = tempfile.mkdtemp(prefix="taipei-ports-")
    failed, began = False, time.monotonic()
    try:
        try:
            networks = Networks(work)
        except (OSError, subprocess.CalledProcessError) as error:
            clients.report_skip("port mapping", f"no networks: {error}: {getattr(error, 'stderr', '')}")
            return 2
        for name in args.only.split(",") if args.only else CASES:
            case_began = time.monotonic()
            problem = CASES[name](networks, os.path.join(work, name))
            print(f"{name:<10} {problem or 'as it should be'} ({time.monotonic() - case_began:.1f} s)", flush=True)
            failed |= bool(problem)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{time.monotonic() - began:.0f} s in all")
    return 1 if failed else 0


class Networks:
    """The client's and the world's namespaces, and ours between them."""

    def __init__(self, work):
        self.client, self.world = (self._beside(work, name) for name in ("client", "world"))
        for end, other, address, space in (("lan0", "lan1", ROUTER, self.client), ("wan0", "wan1", OUTSIDE, self.world)):
            run("ip", "link", "add", end, "type", "veth", "peer", "name", other, "netns", str(space.pid))
            run("ip", "address", "add", f"{address}/24", "dev", end)
            run("ip", "link", "set", end, "up")
        for other, addresses, space in (("lan1", (CLIENT, NEIGHBOUR), self.client), ("wan1", (WORLD,), self.world)):
            for address in addresses:
                run(*inside(space), "ip", "address", "add", f"{address}/24", "dev", other)
            run(*inside(space), "ip", "link", "set", other, "up")
            run(*inside(space), "ip", "link", "set", "lo", "up")
        run(*inside(self.client), "ip", "route", "add", "default", "via", ROUTER)
        with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
            file.write("1")

    @staticmethod
    def _beside(work, name):
        child = Child(name, ["unshare", "--net", "sleep", "600"], work)
        ours = os.readlink("/proc/self/ns/net")
        if not eventually(lambda: child.is_running() and os.readlink(f"/proc/{child.pid}/ns/net") != ours, 5):
            raise OSError(child.log())
        return child


class Router:
    """miniupnpd. It begins with no mapping, whatever was before."""

    def __init__(self, folder, name="router", http_port=5000, natpmp=True, upnp=True):
        self.leases = os.path.join(folder, f"{name}.leases")
        config = os.path.join(folder, f"{name}.conf")
        os.makedirs(folder, exist_ok=True)
        yes = {True: "yes", False: "no"}
        with open(config, "w") as file:
            file.write(f"""ext_ifname=wan0
listening_ip=lan0
http_port={http_port}
enable_natpmp={yes[natpmp]}
enable_upnp={yes[upnp]}
secure_mode=yes
system_uptime=no
min_lifetime=1
lease_file={self.leases}
uuid=5a4d6f6a-8d5b-4c57-9f2f-0a3b0d9c1e77
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
allow 1024-65535 192.168.77.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
""")
        subprocess.run(["nft", "flush", "ruleset"], check=True, timeout=10)
        subprocess.run(["nft", "-f", "-"], input=RULES, text=True, check=True, timeout=10)
        self.child = Child(name, ["miniupnpd", "-d", "-f", config, "-P", os.path.join(folder, f"{name}.pid")], folder)
        if not eventually(lambda: "istening" in self.child.log(), 5):
            raise RuntimeError(f"no router:\n{self.child.log()}")

    def mapped(self):
        """What it forwards, as its own file says: protocol and port -> (to whom, until when)."""
        found = {}
        try:
            with open(self.leases) as file:
                for line in file:
                    protocol, port, ip, internal, until = line.strip().split(":")[:5]
                    found[protocol, int(port)] = f"{ip}:{internal}", int(until)
        except FileNotFoundError:
            pass
        return found

    def has(self, port, client=f"{CLIENT}:{PORT}"):
        """Whether it forwards both protocols there, by its file and by the kernel's rules."""
        mapped = self.mapped()
        return all(mapped.get((protocol, port), ("",))[0] == client for protocol in ("TCP", "UDP")) \
            and rules().count("dnat") == len(mapped)


def rules():
    return subprocess.run(["nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"], capture_output=True, text=True,
                          timeout=10).stdout


def run(*argv):
    subprocess.run(argv, check=True, capture_output=True, text=True, timeout=10)


def inside(space):
    """What goes before a command to run it there."""
    return "nsenter", "--target", str(space.pid), "--net", "--"


def is_reached(networks, port):
    """Whether somebody out in the world can connect to us by the router. It takes its rule away for a moment when a mapping
    is renewed, so one failure says nothing."""
    code = f"import socket; socket.create_connection(('{OUTSIDE}', {port}), 2)"
    argv = [*inside(networks.world), sys.executable, "-c", code]
    return eventually(lambda: subprocess.run(argv, capture_output=True, timeout=10).returncode == 0, 5)


def take_as_neighbour(networks, port):
    """Another client has this port at the router, for TCP, by NAT-PMP."""
    request = struct.pack(">BBHHHI", 0, 2, 0, port, port, 600).hex()
    code = f"""import socket
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.bind(('{NEIGHBOUR}', 0))
asked.settimeout(2)
asked.sendto(bytes.fromhex('{request}'), ('{ROUTER}', 5351))
assert asked.recv(100)[2:4] == bytes(2)"""
    run(*inside(networks.client), sys.executable, "-c", code)


def one_way(way):
    def case(networks, folder):
        # UPnP must do without the other two. Those are one service there, and told apart by our side.
        router = Router(folder, natpmp=way != "upnp", upnp=way == "upnp")
        held = Child("hold-port", [*inside(networks.client), HOLD_PORT, "--port", PORT, "--by", way, "--lease", LEASE_SECONDS],
                     folder)
        everybody = [router.child, held]
        try:
            if not eventually(lambda: router.has(PORT), 8):
                return f"not mapped: {router.mapped()}\n{rules()}\n{logs_of(everybody)}"
            if not eventually(lambda: f"port: {PORT}" in held.log() and OUTSIDE in held.log(), 2):
                return f"it does not say so:\n{logs_of(everybody)}"
            if not is_reached(networks, PORT):
                return f"not reached from outside:\n{logs_of(everybody)}"
            until = router.mapped()["TCP", PORT][1]
            if not eventually(lambda: router.has(PORT) and router.mapped()["TCP", PORT][1] > until, LEASE_SECONDS + 1):
                return f"not renewed: {router.mapped()}\n{logs_of(everybody)}"
            router.child.kill()
            # A device that begins anew may listen at another port.
            router = Router(folder, "router-2", http_port=5001, natpmp=way != "upnp", upnp=way == "upnp")
            everybody.append(router.child)
            if router.mapped():
                return f"it remembers: {router.mapped()}"
            if not eventually(lambda: router.has(PORT), 2 * LEASE_SECONDS + 6):
                return f"not mapped again: {router.mapped()}\n{logs_of(everybody)}"
            if not is_reached(networks, PORT):
                return f"not reached again:\n{rules()}\n{logs_of(everybody)}"
            held.process.send_signal(signal.SIGINT)
            status = held.wait(4)
            if status != 0:
                return f"ended with {status}:\n{logs_of(everybody)}"
            if not eventually(lambda: not router.mapped() and "dnat" not in rules(), 1):
                return f"not released: {router.mapped()}\n{rules()}\n{logs_of(everybody)}"
            return None
        finally:
            for child in everybody:
                child.kill()

    return case


def taken(networks, folder):
    """Two of us at one router have two ports."""
    router = Router(folder)
    everybody = [router.child]
    try:
        take_as_neighbour(networks, PORT)
        for way in ("upnp", "nat-pmp", "pcp"):
            held = Child(f"hold-port-{way}", [*inside(networks.client), HOLD_PORT, "--port", PORT, "--by", way], folder)
            everybody.append(held)

            def other():
                mapped = router.mapped().items()
                return {port for (protocol, port), (to, _) in mapped if to == f"{CLIENT}:{PORT}" and protocol == "TCP"}

            if not eventually(lambda: any(f"port: {port}," in held.log() for port in other() - {PORT}), 8):
                return f"{way}: no other port: {router.mapped()}\n{logs_of(everybody)}"
            held.stop(4)
            if other():
                return f"{way}: not released: {router.mapped()}\n{logs_of(everybody)}"
        if ("TCP", PORT) not in router.mapped():
            return "what is the neighbour's was released too"
        return None
    finally:
        for child in everybody:
            child.kill()


def program(networks, folder):
    """`taipei-cli` by itself, and with `--no-upnp`."""
    router = Router(folder)
    with open(os.path.join(folder, "payload"), "wb") as file:
        file.write(b"x" * 100_000)
    argv = [*inside(networks.client), clients.TAIPEI.program, "-v", "seed", "payload", "--no-dht", "--no-lsd", "--no-pex", "--json",
            "-t", "http://127.0.0.1:9/announce", "--port", PORT]
    env = {"HOME": folder, "XDG_STATE_HOME": folder, "TAIPEI_NO_UPNP": "0"}
    everybody = [router.child]
    try:
        for flags, wanted in ((["--no-upnp"], False), ([], True)):
            ours = Child(f"taipei{'-not' if flags else ''}", argv + flags, folder, env, stdout=f"out{len(flags)}")
            everybody.append(ours)
            listens = eventually(lambda: '"listening"' in ours.log(), 5)
            found = eventually(lambda: router.has(PORT), 8 if wanted else 3)
            if not listens or bool(found) != wanted:
                return f"{flags}: mapped: {router.mapped()}\n{logs_of(everybody)}"
            if wanted and not eventually(lambda: told(ours), 3):
                return f"it does not say so:\n{logs_of(everybody)}"
            if wanted and not is_reached(networks, PORT):
                return f"not reached from outside:\n{logs_of(everybody)}"
            ours.process.send_signal(signal.SIGINT)
            if ours.wait(10) is None:
                return f"it does not end:\n{logs_of(everybody)}"
            if router.mapped() or "dnat" in rules():
                return f"not released: {router.mapped()}\n{rules()}\n{logs_of(everybody)}"
        return None
    finally:
        for child in everybody:
            child.kill()


def told(ours):
    """The event by which a program knows the port."""
    with open(ours.stdout_path) as file:
        events = [json.loads(line) for line in file if line.endswith("\n")]
    return any(event["event"] == "port" and event.get("port") == PORT and event.get("external_ip") == OUTSIDE for event in events)


CASES = {"upnp": one_way("upnp"), "nat-pmp": one_way("nat-pmp"), "pcp": one_way("pcp"), "taken": taken, "program": program}

if __name__ == "__main__":
    sys.exit(main())
