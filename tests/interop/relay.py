"""A TCP relay that stands between a leecher and its seeder: slows the transfer, and counts what crosses it. It can
also take the fast extension (BEP 6) out of both handshakes, so that two clients that have it do without.

It reads the peer protocol that the seeder speaks (plain BEP 3 framing) and so knows each block that was delivered,
whatever the clients say of themselves. The pace is kept with small buffers, so what is counted was really handed over.
"""
import asyncio
import socket
import struct
import threading
import time

READ_BYTES = 16 << 10
SOCKET_BUFFER_BYTES = 64 << 10
HANDSHAKE_BYTES = 68
BODY_KEPT_BYTES = 1 << 10      # of the longest message kept whole: a bitfield of 8,000 pieces
HAVE, BITFIELD, REQUEST, PIECE, HAVE_ALL = 4, 5, 6, 7, 14
FAST_MESSAGES = range(13, 18)
FAST_BYTE, FAST_BIT = 27, 0x04      # of the handshake


class Relay:
    """Listens on `listen`, connects each comer to `target`. Runs in a thread of its own until `close`."""

    def __init__(self, listen, target, bytes_per_second, is_fast_cleared=False):
        self.listen, self.target, self.bytes_per_second = listen, target, bytes_per_second
        self.is_fast_cleared = is_fast_cleared
        self.fast_offers = {"leecher": 0, "seeder": 0}      # handshakes that offered the fast extension, by sender
        self.fast_messages = {"leecher": 0, "seeder": 0}    # messages of the fast extension, by sender
        self.lock = threading.Lock()
        self.delivered = {}         # (piece, begin) -> bytes, of all runs
        self.earlier = frozenset()  # blocks that were delivered before the present run
        self.claimed = set()        # pieces that the leecher said it has, in this run
        self.run_bytes = self.refetched_bytes = self.repeated_bytes = self.connections = 0
        self.has_all = False
        self.requests = 0           # blocks asked for, over all runs
        self.free_at = 0.0
        self.loop = asyncio.new_event_loop()
        self.listening = threading.Event()
        self.thread = threading.Thread(target=self._main, daemon=True)
        self.thread.start()
        if not self.listening.wait(10):
            raise RuntimeError("the relay does not listen")

    def begin_run(self):
        """From here on a block is counted as fetched again when it was delivered before now."""
        with self.lock:
            self.earlier, self.claimed, self.has_all = frozenset(self.delivered), set(), False
            self.run_bytes = self.refetched_bytes = self.repeated_bytes = self.connections = 0

    def figures(self):
        """(payload bytes of this run, of those fetched again, of those twice in this run, unique bytes of all runs)."""
        with self.lock:
            return self.run_bytes, self.refetched_bytes, self.repeated_bytes, sum(self.delivered.values())

    def unique_bytes(self):
        with self.lock:
            return sum(self.delivered.values())

    def claims(self, pieces_total):
        """The pieces that the leecher said it has, in this run."""
        with self.lock:
            return set(range(pieces_total)) if self.has_all else set(self.claimed)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def _main(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._serve())
        self.loop.run_forever()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))

    async def _serve(self):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        listener.bind(self.listen)
        self.server = await asyncio.start_server(self._accept, sock=listener, limit=SOCKET_BUFFER_BYTES)
        self.listening.set()

    async def _accept(self, leecher_in, leecher_out):
        with self.lock:
            self.connections += 1
        out = socket.socket()
        out.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        out.setblocking(False)
        pipes = []
        try:
            await self.loop.sock_connect(out, self.target)
            seeder_in, seeder_out = await asyncio.open_connection(sock=out, limit=SOCKET_BUFFER_BYTES)
            leecher_out.transport.set_write_buffer_limits(high=READ_BYTES)
            pipes = [asyncio.ensure_future(self._up(leecher_in, seeder_out)),
                     asyncio.ensure_future(self._down(seeder_in, leecher_out))]
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
            seeder_out.transport.abort()
        except OSError:
            pass
        finally:
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
            out.close()
            leecher_out.transport.abort()

    async def _up(self, source, sink):
        frames, at = _Frames(), 0
        while data := await source.read(READ_BYTES):
            for kind, _, body in frames.handle_bytes(data):
                self._note_claim(kind, body)
                self._note_fast("leecher", kind)
            data, at = self._handshake("leecher", data, at), at + len(data)
            sink.write(data)
            await sink.drain()

    async def _down(self, source, sink):
        frames, at = _Frames(), 0
        while data := await source.read(READ_BYTES):
            # One clock for all connections: each read books its time on it.
            now = time.monotonic()
            begin = max(self.free_at, now)
            self.free_at = begin + len(data) / self.bytes_per_second
            if begin > now:
                await asyncio.sleep(begin - now)
            data, at = self._handshake("seeder", data, at), at + len(data)
            sink.write(data)
            await sink.drain()
            for kind, length, body in frames.handle_bytes(data):
                self._note_fast("seeder", kind)
                if kind == PIECE:
                    self._count(*struct.unpack_from(">II", body), length - 8)

    def _handshake(self, sender, data, at):
        """`data`, which begins at `at` of the stream, without the fast extension's bit when that is to be cleared."""
        index = FAST_BYTE - at
        if not 0 <= index < len(data) or not data[index] & FAST_BIT:
            return data
        with self.lock:
            self.fast_offers[sender] += 1
        if not self.is_fast_cleared:
            return data
        return data[:index] + bytes([data[index] & ~FAST_BIT]) + data[index + 1:]

    def _note_fast(self, sender, kind):
        if kind in FAST_MESSAGES:
            with self.lock:
                self.fast_messages[sender] += 1

    def _note_claim(self, kind, body):
        with self.lock:
            if kind == REQUEST:
                self.requests += 1
            elif kind == HAVE:
                self.claimed.add(struct.unpack_from(">I", body)[0])
            elif kind == HAVE_ALL:
                self.has_all = True
            elif kind == BITFIELD:
                self.claimed.update(at * 8 + bit for at, byte in enumerate(body) for bit in range(8)
                                    if byte & 0x80 >> bit)

    def _count(self, piece, begin, length):
        with self.lock:
            self.run_bytes += length
            if (piece, begin) in self.earlier:
                self.refetched_bytes += length
            elif (piece, begin) in self.delivered:
                self.repeated_bytes += length
            self.delivered[piece, begin] = length


class _Frames:
    """Cuts a stream into messages (BEP 3), of which it keeps the beginnings."""

    def __init__(self):
        self.buffer, self.skip, self.pending = bytearray(), HANDSHAKE_BYTES, None

    def handle_bytes(self, data):
        """(kind, length of the body, beginning of the body) of each message that ends in `data`."""
        self.buffer += data
        done = []
        while True:
            taken = min(self.skip, len(self.buffer))
            del self.buffer[:taken]
            self.skip -= taken
            if self.skip:
                return done
            if self.pending:
                done.append(self.pending)
                self.pending = None
            if len(self.buffer) < 4:
                return done
            length = struct.unpack_from(">I", self.buffer)[0]
            if len(self.buffer) < 4 + min(length, BODY_KEPT_BYTES):
                return done
            if length:
                body = bytes(self.buffer[5:4 + min(length, BODY_KEPT_BYTES)])
                self.pending = (self.buffer[4], length - 1, body)
            self.skip = 4 + length
