//! Jobs, on a disk that does nothing, with a hash that is free.

use std::sync::Arc;

use bytes::Bytes;
use taipei_engine::disk::{
    At, HashPiece, Job, JobResult, Place, Run, Stat, Storage, StorageError, Work, execute,
};
use taipei_engine::limits::BLOCK_BYTES;
use taipei_engine::metainfo::{Layout, ListedFile, StoragePath};
use taipei_engine::{BlockData, InfoHash};

/// Each time four pieces are written, one by one, and hashed together.
pub(super) fn hash(times: u64) -> String {
    let (piece_bytes, total_bytes) = (BLOCKS * BLOCK_BYTES, u64::from(PIECES * BLOCKS * BLOCK_BYTES));
    // Two files, so that a piece lies in both.
    let files =
        ["a", "b"].map(|name| ListedFile::plain(StoragePath::from_names(["x", name]), total_bytes / 2));
    let layout = Layout::new(piece_bytes, files.into()).expect("a small torrent");
    let pieces: Vec<_> = layout.pieces().collect();
    let place = Arc::new(Place {
        info_hash: InfoHash([7; 20]),
        root: "/out".to_owned(),
        state_root: String::new(),
        layout,
        piece_hashes: vec![[0; 20]; PIECES as usize],
        boot_id: [0; 16],
    });
    // As a block is that came in two reads.
    let half = Bytes::from(vec![0; BLOCK_BYTES as usize / 2]);
    let blocks = || vec![BlockData::from_parts(vec![half.clone(), half.clone()]); BLOCKS as usize];
    let job = |work| Job { place: Arc::clone(&place), work };
    let write = |piece| {
        let runs = vec![Run { begin: 0, blocks: blocks() }];
        job(Work::Write { piece, runs, reaches: Vec::new(), forget: Vec::new(), digests: false })
    };
    let writes: Vec<_> = pieces.iter().map(|piece| write(*piece)).collect();
    let asked = pieces.iter().map(|piece| HashPiece { piece: *piece, blocks: blocks(), digests: false });
    let hash = job(Work::Hash { pieces: asked.collect() });
    let (mut sink, mut good) = (Sink::default(), 0u64);
    for _ in 0..times {
        for job in &writes {
            let result = execute(job, &mut sink, &free_hash);
            assert!(matches!(result, JobResult::Written(Ok(_))), "{result:?}");
        }
        let JobResult::Hashed(Ok(hashes)) = execute(&hash, &mut sink, &free_hash) else {
            panic!("what is in memory can be hashed")
        };
        good += hashes.iter().filter(|hash| hash.good).count() as u64;
    }
    assert_eq!((good, sink.bytes), (times * u64::from(PIECES), times * total_bytes), "all of it is there");
    format!("{good} pieces good, {} bytes written in {} calls", sink.bytes, sink.calls)
}

/// Every digest is zero.
fn free_hash(messages: &[Vec<&[u8]>], digests: &mut Vec<[u8; 20]>) {
    digests.extend(messages.iter().map(|_| [0; 20]));
}

/// Takes everything and keeps nothing.
#[derive(Default)]
struct Sink {
    calls: u64,
    bytes: u64,
}

impl Storage for Sink {
    fn read_at(&mut self, _at: At<'_>, _offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        Ok(buffer.len())
    }

    fn write_at(&mut self, _at: At<'_>, _offset: u64, parts: &[&[u8]]) -> Result<(), StorageError> {
        self.calls += 1;
        self.bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        Ok(())
    }

    fn stat(&mut self, _at: At<'_>) -> Result<Option<Stat>, StorageError> {
        Ok(None)
    }

    fn set_len(&mut self, _at: At<'_>, _length: u64) -> Result<(), StorageError> {
        Ok(())
    }

    fn allocate(&mut self, _at: At<'_>, _length: u64) -> Result<(), StorageError> {
        Ok(())
    }

    fn sync(&mut self, _at: At<'_>) -> Result<(), StorageError> {
        Ok(())
    }

    fn sync_dir(&mut self, _at: At<'_>) -> Result<(), StorageError> {
        Ok(())
    }

    fn create_dir(&mut self, _at: At<'_>) -> Result<(), StorageError> {
        Ok(())
    }

    fn rename(&mut self, _from: At<'_>, _to: &StoragePath) -> Result<(), StorageError> {
        Ok(())
    }

    fn remove(&mut self, _at: At<'_>) -> Result<(), StorageError> {
        Ok(())
    }

    fn free_bytes(&mut self, _root: &str) -> Result<u64, StorageError> {
        Ok(u64::MAX)
    }

    fn lock(&mut self, _at: At<'_>) -> Result<(), StorageError> {
        Ok(())
    }

    fn unlock(&mut self, _at: At<'_>) {}
}

const PIECES: u32 = 4;
const BLOCKS: u32 = 16;
