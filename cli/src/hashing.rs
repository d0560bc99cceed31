//! Hashing the pieces of files on disk, on every core, several pieces side by side on each.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use sha1::{Digest as _, Sha1};
use taipei_engine::FileIndex;
use taipei_engine::PieceIndex;
use taipei_engine::metainfo::{FileRun, Layout};
use taipei_net::sha1_many;

/// Why a piece has no hash.
#[derive(Debug)]
pub(crate) struct Unread {
    /// The file that stands in the way.
    pub(crate) file: FileIndex,
    /// What is wrong with it.
    pub(crate) error: io::Error,
}

/// The hash of each piece, in order. `paths` has one entry a file of the layout; `on_bytes` is told, from any thread,
/// how many bytes were done.
///
/// Memory is at most [`BATCH_BYTES`] a thread; larger pieces are read through a small buffer.
pub(crate) fn hash_pieces(
    layout: &Layout,
    paths: &[PathBuf],
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Vec<Result<[u8; 20], Unread>> {
    assert_eq!(paths.len(), layout.files().len(), "one path a file");
    let batch_pieces = (BATCH_BYTES / layout.piece_length()).clamp(1, LANES);
    let batches = layout.piece_count().div_ceil(batch_pieces);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(batches as usize).max(1);
    let next = AtomicU32::new(0);
    let work = || {
        let mut reader = Reader { paths, open: None, buffer: Vec::new() };
        let mut done = Vec::new();
        loop {
            let batch = next.fetch_add(1, Ordering::Relaxed);
            if batch >= batches {
                return done;
            }
            let first = batch * batch_pieces;
            let pieces: Vec<PieceIndex> =
                (first..first + batch_pieces).map_while(|index| layout.piece(index)).collect();
            let bytes = pieces.iter().map(|piece| u64::from(layout.piece_bytes(*piece))).sum();
            let hashes = if layout.piece_length() <= BATCH_BYTES {
                reader.batch(layout, &pieces)
            } else {
                pieces.iter().map(|piece| reader.large(layout, *piece)).collect()
            };
            done.push((batch, hashes));
            on_bytes(bytes);
        }
    };
    let mut done = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            done.extend(other.join().expect("hashing does not panic"));
        }
        done
    });
    done.sort_unstable_by_key(|(batch, _)| *batch);
    done.into_iter().flat_map(|(_, hashes)| hashes).collect()
}

/// Reads on one thread.
struct Reader<'a> {
    paths: &'a [PathBuf],
    open: Option<(FileIndex, File)>,
    buffer: Vec<u8>,
}

impl Reader<'_> {
    /// Whole pieces in memory, hashed side by side.
    fn batch(&mut self, layout: &Layout, pieces: &[PieceIndex]) -> Vec<Result<[u8; 20], Unread>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(pieces.iter().map(|piece| layout.piece_bytes(*piece) as usize).sum(), 0);
        let mut rest = buffer.as_mut_slice();
        let mut messages = Vec::with_capacity(pieces.len());
        let mut unread = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let length = layout.piece_bytes(*piece);
            let (bytes, after) = rest.split_at_mut(length as usize);
            rest = after;
            let mut to_fill = &mut *bytes;
            let read = layout.runs(*piece, 0, length).try_for_each(|run| {
                let (part, after) = std::mem::take(&mut to_fill).split_at_mut(run.length as usize);
                to_fill = after;
                self.fill(run, part)
            });
            // A piece that was not read is hashed as well, for nothing: it is the exception.
            unread.push(read.err());
            messages.push(vec![&*bytes]);
        }
        let mut digests = Vec::with_capacity(pieces.len());
        sha1_many(&messages, &mut digests);
        drop(messages);
        self.buffer = buffer;
        digests.into_iter().zip(unread).map(|(digest, unread)| unread.map_or(Ok(digest), Err)).collect()
    }

    /// A piece too large for memory.
    fn large(&mut self, layout: &Layout, piece: PieceIndex) -> Result<[u8; 20], Unread> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ_BYTES as usize, 0);
        let mut sha1 = Sha1::new();
        let length = layout.piece_bytes(piece);
        let mut begin = 0;
        while begin < length {
            let step = READ_BYTES.min(length - begin);
            for run in layout.runs(piece, begin, step) {
                let part = &mut buffer[..run.length as usize];
                self.fill(run, part)?;
                sha1.update(part);
            }
            begin += step;
        }
        self.buffer = buffer;
        Ok(sha1.finalize().into())
    }

    fn fill(&mut self, run: FileRun, part: &mut [u8]) -> Result<(), Unread> {
        if run.pad {
            part.fill(0);
            return Ok(());
        }
        self.read(run, part).map_err(|error| {
            self.open = None;
            Unread { file: run.file, error }
        })
    }

    fn read(&mut self, run: FileRun, part: &mut [u8]) -> io::Result<()> {
        let file = match &mut self.open {
            Some((open, file)) if *open == run.file => file,
            open => {
                let file = File::open(&self.paths[run.file.0 as usize])?;
                &mut open.insert((run.file, file)).1
            }
        };
        file.seek(SeekFrom::Start(run.offset))?;
        file.read_exact(part)
    }
}

/// Of pieces in memory at once, on each thread.
const BATCH_BYTES: u32 = 16 << 20;
/// Pieces hashed side by side at most; what `sha1_many` makes use of.
const LANES: u32 = 8;
/// Of a large piece read at once.
const READ_BYTES: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use taipei_engine::metainfo::{ListedFile, StoragePath};

    use super::*;

    #[test]
    fn pieces_are_those_of_one_stream_whatever_their_length() {
        let place = std::env::temp_dir().join(format!("taipei-hashing-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let lengths = [0u64, 70_000, 3, 1_200_000, 0, 40_001];
        let mut stream = Vec::new();
        let (mut files, mut paths) = (Vec::new(), Vec::new());
        for (number, length) in lengths.into_iter().enumerate() {
            let name = number.to_string();
            let pad = number == 2;
            let bytes: Vec<u8> =
                (0..length).map(|at| if pad { 0 } else { (at * 7 + number as u64) as u8 }).collect();
            paths.push(place.join(&name));
            if !pad {
                std::fs::write(place.join(&name), &bytes).unwrap();
            }
            stream.extend_from_slice(&bytes);
            files.push(ListedFile {
                pad,
                ..ListedFile::plain(StoragePath::from_names([name.as_str()]), length)
            });
        }
        for piece_length in [1000, 16384, 1 << 20, BATCH_BYTES + 1] {
            let layout = Layout::new(piece_length, files.clone()).unwrap();
            let seen = AtomicU64::new(0);
            let hashes = hash_pieces(&layout, &paths, &|bytes| {
                seen.fetch_add(bytes, Ordering::Relaxed);
            });
            let expected: Vec<[u8; 20]> =
                stream.chunks(piece_length as usize).map(|piece| Sha1::digest(piece).into()).collect();
            assert_eq!(hashes.into_iter().map(Result::unwrap).collect::<Vec<_>>(), expected);
            assert_eq!(seen.into_inner(), layout.total_bytes());
        }
        std::fs::remove_file(place.join("3")).unwrap();
        let layout = Layout::new(16384, files).unwrap();
        let hashes = hash_pieces(&layout, &paths, &|_| {});
        let missing: Vec<usize> = (0..hashes.len()).filter(|at| hashes[*at].is_err()).collect();
        assert_eq!(missing, layout.pieces_of(FileIndex(3)).map(|piece| piece as usize).collect::<Vec<_>>());
        std::fs::remove_dir_all(&place).unwrap();
    }
}
