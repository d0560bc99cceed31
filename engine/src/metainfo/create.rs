//! Making torrent files.
