"""Puts this process, and all it starts, into a network namespace of its own.

Inside there is only a loopback device that carries 10.88.0.0/24 and fd88::1 to fd88::9 (Transmission and others refuse
peers at 127.x), so nothing reaches the world outside and nothing else on the machine can disturb ports or byte
counters. The namespace has no name: the kernel drops it with the last process in it, so nothing is left behind even by
`kill -9`.

Where none can be made, addresses are 127.0.0.x and ::1 of the machine and `enter` says so.
"""
import ctypes
import fcntl
import itertools
import os
import socket
import struct
import sys

CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
IFF_UP_LOOPBACK_RUNNING = 0x1 | 0x8 | 0x40
IPV6_ADDRESSES = range(1, 10)
# Below what the system gives to outgoing connections (32768 and up), which may take a port between our look and its use.
PORTS = range(10_000, 32_000)

_prefix, _prefix6 = "127.0.0.", None
_ports = None


def enter():
    """Makes the namespace. Call once, before any thread. True when it is one of our own."""
    global _prefix, _prefix6
    why = _unshare()
    if why is not None:
        print(f"!! no network namespace ({why}): using 127.0.0.x of this machine", file=sys.stderr, flush=True)
        return False
    _bring_up()
    _prefix, _prefix6 = "10.88.0.", "fd88::"
    return True


def address(number, ipv6=False):
    """Address `number` of the test network (1..254; 1..9 for IPv6)."""
    if ipv6:
        return f"{_prefix6}{number}" if _prefix6 else "::1"
    return f"{_prefix}{number}"


def host_port(ip, port):
    """As a URL or a flag has it."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def free_port(ip):
    """A port that nobody uses at any address, and that this process never gives twice."""
    global _ports
    if _ports is None:
        # Processes that share the machine's addresses begin apart.
        start = os.getpid() * 97 % len(PORTS)
        _ports = itertools.chain(PORTS[start:], PORTS[:start])
    family, everywhere = (socket.AF_INET6, "::") if ":" in ip else (socket.AF_INET, "0.0.0.0")
    for port in _ports:
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(family, kind) as probe:
                    probe.bind((everywhere, port))
            return port
        except OSError:
            continue
    raise RuntimeError("no free port is left")


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
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
        for number in IPV6_ADDRESSES:
            # struct in6_ifreq: address, length of the prefix, index of the device.
            packed = socket.inet_pton(socket.AF_INET6, f"fd88::{number}")
            fcntl.ioctl(control, SIOCSIFADDR, struct.pack("=16sIi", packed, 128, socket.if_nametoindex("lo")))
