"""A torrent file made by libtorrent, v1 with pad files: lt_create.py PATH TORRENT ANNOUNCE PIECE_LENGTH."""
import os
import sys

import libtorrent as lt

path, torrent, announce, piece_length = sys.argv[1:]
files = lt.file_storage()
lt.add_files(files, path)
made = lt.create_torrent(files, int(piece_length), lt.create_torrent.v1_only | lt.create_torrent.canonical_files)
if announce:
    made.add_tracker(announce)
lt.set_piece_hashes(made, os.path.dirname(path))
with open(torrent, "wb") as file:
    file.write(lt.bencode(made.generate()))
