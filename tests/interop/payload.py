"""Payloads that are the same on every machine, torrent files for them, and the comparison of what arrived."""
import hashlib
import os
from dataclasses import dataclass

MIB = 1 << 20
NO_ZEROES = bytes([1]) + bytes(range(1, 256))     # a hole in a sparse file must never look like content


@dataclass(frozen=True)
class Shape:
    """What a torrent holds: paths below `name`, or one file called `name`."""
    name: str
    files: tuple            # (path or "", length)
    piece_length: int
    pads: bool = False      # every file but the first begins with a piece, after a pad file (BEP 47)

    @property
    def total(self):
        return sum(length for _, length in self.files)

    @property
    def is_single(self):
        return self.files[0][0] == ""

    def listed(self):
        """(path, length, is a pad file) as the torrent lists them."""
        for path, length in self.files[:-1]:
            yield path, length, False
            if self.pads and (pad := -length % self.piece_length):
                yield f".pad/{pad}", pad, True
        yield *self.files[-1], False


SHAPES = {
    "single": Shape("single.bin", (("", 24 * MIB + 12_345),), 256 << 10),
    "multi": Shape("multi", (
        ("a.bin", 5 * MIB + 1),
        ("empty.txt", 0),
        ("name with spaces \u00e9.bin", 3 * MIB + 7),
        ("sub/b.bin", 9 * MIB),
        ("sub/deeper/one-byte", 1),
        ("sub/deeper/small.bin", 16_384),
        ("z.bin", 40_001),
    ), 64 << 10),
    # A piece length that no block size divides: pieces end in a short block, files begin anywhere.
    "odd": Shape("odd", (
        ("first.bin", 3 * MIB + 11),
        ("nothing", 0),
        ("second.bin", 49_999),
        ("third.bin", 4 * MIB + 3),
    ), 50_000),
    "many": Shape("many", tuple(
        (f"d{number % 7}/{number:03}.txt", number * number % 60_001) for number in sorted(range(300), key=lambda n: (n % 7, n))
    ), 32 << 10),
    "pads": Shape("pads", (
        ("a.bin", 2 * MIB + 17),
        ("b.bin", 3 * MIB + 70_001),
        ("c/small", 5),
        ("d.bin", 4 * MIB + 33_333),
    ), 64 << 10, pads=True),
}


def content(key, length):
    """Bytes that `key` decides, none of them zero."""
    return hashlib.shake_128(key.encode()).digest(length).translate(NO_ZEROES)


def write(shape, folder):
    """Writes the payload below `folder`; returns the path of its file or directory."""
    for path, length, is_pad in shape.listed():
        target = os.path.join(folder, shape.name, path) if path else os.path.join(folder, shape.name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            # Clients that do not know pad files look for them on disk.
            file.write(bytes(length) if is_pad else content(f"{shape.name}/{path}", length))
    return os.path.join(folder, shape.name)


def digests(shape, folder):
    """sha256 per file, None where the file is missing."""
    out = {}
    for path, _ in shape.files:
        try:
            with open(os.path.join(folder, shape.name, path) if path else os.path.join(folder, shape.name), "rb") as file:
                digest = hashlib.sha256()
                while block := file.read(MIB):
                    digest.update(block)
                out[path] = digest.hexdigest()
        except OSError:
            out[path] = None
    return out


def differences(shape, source, copy, empty_files=True):
    """Words on what is missing or different in `copy`; empty when all is equal. Not all clients make empty files."""
    want, got = digests(shape, source), digests(shape, copy)
    words = []
    for path, length in shape.files:
        if want[path] is None:
            words.append(f"{path or shape.name}: missing in the source")
        elif got[path] is None and (length or empty_files):
            words.append(f"{path or shape.name}: missing")
        elif got[path] is not None and got[path] != want[path]:
            words.append(f"{path or shape.name}: different content")
    return words


def pieces(shape, folder):
    """The payload below `folder` piece by piece, as the torrent cuts it; missing bytes are zeroes."""
    buffer = bytearray()
    for path, length, is_pad in shape.listed():
        if is_pad:
            buffer += bytes(length)
            continue
        try:
            with open(os.path.join(folder, shape.name, path) if path else os.path.join(folder, shape.name), "rb") as file:
                data = file.read(length)
        except OSError:
            data = b""
        buffer += data + bytes(length - len(data))
    for begin in range(0, len(buffer), shape.piece_length):
        yield bytes(buffer[begin:begin + shape.piece_length])


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    items = sorted((key.encode(), item) for key, item in value.items())
    return b"d" + b"".join(bencode(key) + bencode(item) for key, item in items) + b"e"


def info(shape, folder):
    """The info dictionary, bencoded. Files lie in the order of their paths, part by part."""
    out = {
        "name": shape.name,
        "piece length": shape.piece_length,
        "pieces": b"".join(hashlib.sha1(piece).digest() for piece in pieces(shape, folder)),
    }
    if shape.is_single:
        out["length"] = shape.total
    else:
        out["files"] = [{**({"attr": "p"} if is_pad else {}), "length": length, "path": path.split("/")}
                        for path, length, is_pad in shape.listed()]
    return bencode(out)


def torrent(shape, folder, announce):
    """(torrent file, info-hash) for the payload below `folder`; `announce` may be None."""
    raw = info(shape, folder)
    head = b"8:announce" + bencode(announce) if announce else b""
    return b"d" + head + b"4:info" + raw + b"e", hashlib.sha1(raw).digest()


def raw_info(torrent_file):
    """The bytes of the info dictionary as they lie in a torrent file."""
    at = 1
    while torrent_file[at:at + 1] != b"e":
        key_end = _skip(torrent_file, at)
        value_end = _skip(torrent_file, key_end)
        if torrent_file[at:key_end] == b"4:info":
            return torrent_file[key_end:value_end]
        at = value_end
    raise ValueError("a torrent file without info")


def _skip(data, at):
    """The offset behind the value that begins at `at`."""
    kind = data[at:at + 1]
    if kind == b"i":
        return data.index(b"e", at) + 1
    if kind in (b"l", b"d"):
        at += 1
        while data[at:at + 1] != b"e":
            at = _skip(data, at)
        return at + 1
    colon = data.index(b":", at)
    return colon + 1 + int(data[at:colon])
