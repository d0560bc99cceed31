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
    is_padded: bool = False     # pad files (BEP 47) between the files, so that each begins with a piece

    @property
    def total(self):
        return sum(length for _, length in self.files)

    @property
    def is_single(self):
        return self.files[0][0] == ""


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
    # Pieces that hold many files, files that lie in a part of one piece.
    "many": Shape("many", tuple((f"{at // 25:02}/{at:03}.bin", at * 7919 % 40_000) for at in range(300)), 32 << 10),
    "pads": Shape("pads", (
        ("a.bin", 3 * MIB + 5),
        ("b.bin", 0),
        ("c/d.bin", 100_001),
        ("c/e.bin", 128 << 10),
        ("f.bin", 4 * MIB + 77),
    ), 64 << 10, is_padded=True),
}


def content(key, length):
    """Bytes that `key` decides, none of them zero."""
    return hashlib.shake_128(key.encode()).digest(length).translate(NO_ZEROES)


def write(shape, folder, with_pads=False):
    """Writes the payload below `folder`; returns the path of its file or directory.

    `with_pads`: pad files as well, named as libtorrent names them, for clients that take them for files like others.
    """
    if with_pads:
        for _, length in shape.files:
            if pad := -length % shape.piece_length:
                path = os.path.join(folder, shape.name, ".pad", str(pad))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(bytes(pad))
    for path, length in shape.files:
        target = os.path.join(folder, shape.name, path) if path else os.path.join(folder, shape.name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(content(f"{shape.name}/{path}", length))
    return os.path.join(folder, shape.name)


def digests(shape, folder, inside_name=True):
    """sha256 per file, None where the file is missing. `inside_name`: files lie in a directory named as the torrent."""
    out = {}
    for path, _ in shape.files:
        parts = ([shape.name] if inside_name or not path else []) + ([path] if path else [])
        try:
            with open(os.path.join(folder, *parts), "rb") as file:
                digest = hashlib.sha256()
                while block := file.read(MIB):
                    digest.update(block)
                out[path] = digest.hexdigest()
        except OSError:
            out[path] = None
    return out


def differences(shape, source, copy, inside_name=True, with_empty_files=True):
    """Words on what is missing or different in `copy`; empty when all is equal. Files without a byte may be left out."""
    want, got = digests(shape, source), digests(shape, copy, inside_name)
    words = []
    lengths = dict(shape.files)
    for path, digest in want.items():
        if not lengths[path] and got[path] is None and not with_empty_files:
            continue
        if digest is None:
            words.append(f"{path or shape.name}: missing in the source")
        elif got[path] is None:
            words.append(f"{path or shape.name}: missing")
        elif got[path] != digest:
            words.append(f"{path or shape.name}: different content")
    return words


def pieces(shape, folder):
    """The payload below `folder` piece by piece, as the torrent cuts it; missing bytes are zeroes."""
    buffer = bytearray()
    for path, length in shape.files:
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
        out["files"] = [{"length": length, "path": path.split("/")} for path, length in shape.files]
    return bencode(out)


def torrent(shape, folder, announce):
    """A torrent file for the payload below `folder`; `announce` may be None."""
    head = b"8:announce" + bencode(announce) if announce else b""
    return b"d" + head + b"4:info" + info(shape, folder) + b"e"


def info_hash(raw):
    """Of the bytes of an info dictionary."""
    return hashlib.sha1(raw).digest()


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
