"""Puts this process, and all it starts, into a network namespace of its own.

Inside there is only a loopback device that carries 10.88.0.0/24 (Transmission and others refuse peers at 127.x), so
nothing reaches the world outside and nothing else on the machine can disturb ports or byte counters. The namespace
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
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
IFF_UP_LOOPBACK_RUNNING = 0x1 | 0x8 | 0x40

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


def free_port(ip):
    """A TCP port that nobody listens on at `ip` right now."""
    with socket.socket() as probe:
        probe.bind((ip, 0))
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
