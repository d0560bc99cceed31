//! Hashing the pieces of files on disk, on every core, several pieces side by side on each.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use taipei_engine::disk::Sha1Many as _;
use taipei_engine::metainfo::{FileRun, Layout};
use taipei_engine::{FileIndex, PieceIndex};
use taipei_net::Sha1Lanes;

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
/// Memory is [`BUFFER_BYTES`] a thread, whatever the length of pieces.
pub(crate) fn hash_pieces(
    layout: &Layout,
    paths: &[PathBuf],
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Vec<Result<[u8; 20], Unread>> {
    assert_eq!(paths.len(), layout.files().len(), "one path a file");
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let batch_pieces = layout.piece_count().div_ceil(cores as u32).clamp(1, BATCH_PIECES_MAX);
    let batches = layout.piece_count().div_ceil(batch_pieces);
    let threads = cores.min(batches as usize).max(1);
    let next = AtomicU32::new(0);
    let work = || {
        let mut reader = Reader { paths, open: None };
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut done = Vec::new();
        loop {
            let batch = next.fetch_add(1, Ordering::Relaxed);
            if batch >= batches {
                return done;
            }
            let first = batch * batch_pieces;
            let pieces: Vec<PieceIndex> =
                (first..first + batch_pieces).map_while(|index| layout.piece(index)).collect();
            done.push((batch, reader.hash(layout, &pieces, &mut buffer, on_bytes)));
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
}

impl Reader<'_> {
    /// Pieces side by side.
    fn hash(
        &mut self,
        layout: &Layout,
        pieces: &[PieceIndex],
        buffer: &mut [u8],
        on_bytes: &(dyn Fn(u64) + Sync),
    ) -> Vec<Result<[u8; 20], Unread>> {
        let lengths: Vec<u32> = pieces.iter().map(|piece| layout.piece_bytes(*piece)).collect();
        let mut unread: Vec<Option<Unread>> = pieces.iter().map(|_| None).collect();
        let mut left: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
        let digests = Sha1Lanes.digests_read(&lengths, buffer, &mut |at, begin, mut part| {
            let bytes = part.len();
            for run in layout.runs(pieces[at], begin, bytes as u32) {
                let (now, later) = part.split_at_mut(run.length as usize);
                part = later;
                if let Err(error) = self.fill(run, now) {
                    unread[at] = Some(error);
                    return false;
                }
            }
            left -= bytes as u64;
            on_bytes(bytes as u64);
            true
        });
        // What could not be read is done with as well.
        on_bytes(left);
        let judged = digests.into_iter().zip(unread);
        judged
            .map(|(digest, unread)| match unread {
                Some(unread) => Err(unread),
                None => Ok(digest.expect("what was read has a digest")),
            })
            .collect()
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

/// Pieces hashed side by side at most; what [`Sha1Lanes`] makes use of.
const BATCH_PIECES_MAX: u32 = 16;
/// What one thread has in memory: a part of each piece.
const BUFFER_BYTES: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use sha1::{Digest as _, Sha1};
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
        for piece_length in [1000, 16384, 1 << 20, 2 << 20] {
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
