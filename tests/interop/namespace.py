"""Puts this process, and all it starts, into a network namespace of its own.

Inside there is only a loopback device that carries 10.88.0.0/24 and some addresses of fd88::/64 (Transmission and others
refuse peers at 127.x), so nothing reaches the world outside and nothing else on the machine can disturb ports or byte counters. The namespace
has no name: the kernel drops it with the last process in it, so nothing is left behind even by `kill -9`.

Where none can be made, addresses are 127.0.0.x of the machine and `enter` says so.
"""
import ctypes
import fcntl
import os
import socket
import struct
import sys

CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
SIOCADDRT, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x890B, 0x8914, 0x8916, 0x891C
RTF_UP = 1
IFF_UP_LOOPBACK_RUNNING = 0x1 | 0x8 | 0x40

ADDRESSES_V6 = 40

_prefix = "127.0.0."


def enter():
    """Makes the namespace. Call once, before any thread. True when it is one of our own."""
    global _prefix
    why = _unshare()
    if why is not None:
        print(f"!! no network namespace ({why}): using 127.0.0.x of this machine", file=sys.stderr, flush=True)
        return False
    _bring_up()
    _prefix = "10.88.0."
    return True


def address(number):
    """Address `number` (1..254) of the test network."""
    return f"{_prefix}{number}"


def address_v6(number):
    """The same for IPv6; none outside a namespace of our own."""
    return f"fd88::{number}" if _prefix.startswith("10.") and number <= ADDRESSES_V6 else None


def literal(ip):
    """As in a URL."""
    return f"[{ip}]" if ":" in ip else ip


def free_port(ip):
    """A port that nobody uses at `ip` right now, over TCP or UDP."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    while True:
        with socket.socket(family) as probe, socket.socket(family, socket.SOCK_DGRAM) as datagrams:
            probe.bind((ip, 0))
            try:
                datagrams.bind((ip, probe.getsockname()[1]))
            except OSError:
                continue
            return probe.getsockname()[1]


def _unshare():
    """None, or why it was refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNET) == 0:
        return None
    if libc.unshare(CLONE_NEWNET | CLONE_NEWUSER) != 0:
        return os.strerror(ctypes.get_errno())
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    return None


def _bring_up():
    def ioctl(number, device, payload):
        fcntl.ioctl(control, number, struct.pack("16s24s", device.encode(), payload))

    def inet(ip):
        return struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(ip))

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        ioctl(SIOCSIFFLAGS, "lo", struct.pack("=H", IFF_UP_LOOPBACK_RUNNING))
        # With a /24 on the loopback device all of its addresses are local.
        ioctl(SIOCSIFADDR, "lo:1", inet("10.88.0.1"))
        ioctl(SIOCSIFNETMASK, "lo:1", inet("255.255.255.0"))
    # Each IPv6 address is added for itself.
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
            device = socket.if_nametoindex("lo")
            for number in range(1, ADDRESSES_V6 + 1):
                ip = socket.inet_pton(socket.AF_INET6, f"fd88::{number}")
                fcntl.ioctl(control, SIOCSIFADDR, struct.pack("=16sIi", ip, 64, device))
            # Some clients believe in IPv6 only where the world can be reached. This route leads nowhere.
            route = struct.pack("16s16s16sIHHILIi", b"", b"", b"", RTF_UP, 0, 0, 1, 0, RTF_UP, device)
            fcntl.ioctl(control, SIOCADDRT, route)
    except OSError as error:
        print(f"!! no IPv6 here ({error})", file=sys.stderr, flush=True)
