#!/usr/bin/env python3
"""Seeders that a client meets all at once: one process, one loop, and no more of BitTorrent than that takes.

    crowd.py TORRENT FILE --to IP:PORT --from IP --seeders 200 --out JSON     by dialling it, each from an address of its own
    crowd.py ... --slow 190 --slow-rate 2000                           of whom so many send so many bytes a second at most

They have all, unchoke at once and answer what they are asked. Ends when the client has closed every connection. JSON: how many
bytes the quick and the slow sent, and how long the quick waited between two blocks (seconds: median, of 100 the longest but
one, longest).
"""
import argparse
import array
import collections
import ipaddress
import json
import mmap
import os
import select
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True
import payload      # noqa: E402

DIAL_SECONDS = 30
READ_BYTES = 64 << 10
WRITE_BLOCKS = 16
HANDSHAKE_BYTES = 68
BITFIELD, REQUEST, PIECE = 5, 6, 7
UNCHOKE = struct.pack(">IB", 1, 1)


class Seeder:
    """One connection."""

    def __init__(self, number, stream, crowd, rate):
        self.number, self.stream, self.crowd, self.rate = number, stream, crowd, rate
        self.came, self.greeted = b"", False
        self.wanted, self.going = collections.deque(), []
        self.sent_bytes, self.sent_at, self.next_at = 0, None, 0.0

    def read(self):
        """Takes what the client says; false when it has closed."""
        try:
            read = self.stream.recv(READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not read:
            return False
        came, at = self.came + read, 0
        if not self.greeted:
            if len(came) < HANDSHAKE_BYTES:
                self.came = came
                return True
            self.greeted, at = True, HANDSHAKE_BYTES
        while len(came) - at >= 4:
            length, = struct.unpack_from(">I", came, at)
            if len(came) - at < 4 + length:
                break
            if length == 13 and came[at + 4] == REQUEST:
                self.wanted.append(struct.unpack_from(">III", came, at + 5))
            at += 4 + length
        self.came = came[at:]
        return True

    def write(self, now):
        """Sends what is wanted and may go now; false when the client has closed."""
        while self.going or self.wanted and now >= self.next_at:
            if not self.going:
                count = WRITE_BLOCKS if self.rate is None else 1
                for _ in range(min(count, len(self.wanted))):
                    self._block(*self.wanted.popleft(), now)
            try:
                sent = self.stream.sendmsg(self.going)
            except BlockingIOError:
                return True
            except OSError:
                return False
            self.sent_bytes += sent
            self._note(now)
            while self.going and sent >= len(self.going[0]):
                sent -= len(self.going.pop(0))
            if self.going:
                self.going[0] = self.going[0][sent:]
                return True
        return True

    def _block(self, index, begin, length, now):
        at = index * self.crowd.piece_length + begin
        self.going += (memoryview(struct.pack(">IBII", 9 + length, PIECE, index, begin)), self.crowd.data[at:at + length])
        if self.rate is not None:
            self.next_at = max(now, self.next_at) + length / self.rate

    def _note(self, now):
        if self.rate is None and self.sent_at is not None:
            self.crowd.gaps.append(now - self.sent_at)
        self.sent_at = now


class Crowd:
    """All of them."""

    def __init__(self, args):
        with open(args.torrent, "rb") as file:
            info = payload.raw_info(file.read())
        self.piece_length = int(info.partition(b"12:piece lengthi")[2].partition(b"e")[0])
        self.gaps = array.array("d")
        with open(args.file, "rb") as file:
            self.data = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        pieces = -(-len(self.data) // self.piece_length)
        bits = ((1 << pieces) - 1 << -pieces % 8).to_bytes((pieces + 7) // 8, "big")
        self.hello = b"\x13BitTorrent protocol" + bytes(8) + payload.info_hash(info) + b"-XX0000-%012d"
        self.rest = struct.pack(">IB", 1 + len(bits), BITFIELD) + bits + UNCHOKE
        self.args, self.deadline = args, time.monotonic() + DIAL_SECONDS
        self.seeders = [self._dial(number) for number in range(args.seeders)]

    def _dial(self, number):
        ip, _, port = self.args.to.rpartition(":")
        source = ipaddress.ip_address(self.args.first) + number
        while True:
            try:
                stream = socket.create_connection((ip, int(port)), 5, (str(source), 0))
                stream.sendall(self.hello % number + self.rest)
                break
            except OSError:
                if time.monotonic() > self.deadline:
                    raise
                time.sleep(0.005)
        stream.setblocking(False)
        return Seeder(number, stream, self, self.args.slow_rate if number < self.args.slow else None)

    def serve(self):
        """Until nobody is connected."""
        poll, there, gone = select.epoll(), {}, set()

        def begin(seeder):
            there[seeder.stream.fileno()] = seeder
            poll.register(seeder.stream, select.EPOLLIN)

        for seeder in self.seeders:
            begin(seeder)
        while there:
            for at, event in poll.poll(0.01):
                seeder = there[at]
                if event & ~select.EPOLLOUT and not seeder.read() or not seeder.write(time.monotonic()):
                    gone.add(at)
                else:
                    poll.modify(at, select.EPOLLIN | (select.EPOLLOUT if seeder.going else 0))
            now = time.monotonic()
            gone |= {at for at, seeder in there.items() if seeder.rate is not None and not seeder.write(now)}
            for at in gone:
                poll.unregister(at)
                seeder = there.pop(at)
                seeder.stream.close()
                if not seeder.greeted and now < self.deadline:
                    # It listens before it has its torrent.
                    seeder = self.seeders[seeder.number] = self._dial(seeder.number)
                    begin(seeder)
            gone.clear()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("torrent")
    ap.add_argument("file")
    ap.add_argument("--to", required=True, metavar="IP:PORT")
    ap.add_argument("--from", dest="first", required=True, metavar="IP", help="address of the first; the others have the next ones")
    ap.add_argument("--seeders", type=int, required=True)
    ap.add_argument("--slow", type=int, default=0)
    ap.add_argument("--slow-rate", type=float, default=2000, metavar="BYTES")
    ap.add_argument("--out", required=True, metavar="JSON")
    args = ap.parse_args()
    crowd = Crowd(args)
    crowd.serve()
    gaps = sorted(crowd.gaps)
    sent = {True: 0, False: 0}
    for seeder in crowd.seeders:
        sent[seeder.rate is None] += seeder.sent_bytes
    with open(args.out + ".part", "w") as file:
        json.dump({"quick_bytes": sent[True], "slow_bytes": sent[False], "gap_median": gaps[len(gaps) // 2],
                   "gap_p99": gaps[len(gaps) * 99 // 100], "gap_max": gaps[-1]}, file)
    os.rename(args.out + ".part", args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
