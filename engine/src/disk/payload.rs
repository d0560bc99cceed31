//! Payload to and from files: pieces are checked, written, hashed and read.
//!
//! Files that are missing or too short are not errors of a check: what is not there is not good. Pad files are zeros
//! that are never looked for on disk.

use sha1::{Digest as _, Sha1};

use super::{
    At, BlockDigest, HashPiece, PieceHash, Place, ReadBlock, Run, Sha1Many, Stat, Storage, StorageError,
    StorageErrorKind, Written,
};
use crate::block::BlockData;
use crate::ids::{FileIndex, PieceIndex};
use crate::limits::BLOCK_BYTES;

/// Hashes what is on disk, several pieces side by side.
pub(super) fn check<S: Storage>(
    place: &Place,
    pieces: &[PieceIndex],
    storage: &mut S,
    sha1_many: &dyn Sha1Many,
) -> Result<Vec<bool>, StorageError> {
    if pieces.is_empty() {
        return Ok(Vec::new());
    }
    let lengths: Vec<u32> = pieces.iter().map(|piece| place.layout.piece_bytes(*piece)).collect();
    let bytes = lengths.iter().map(|length| *length as usize).sum::<usize>();
    let mut buffer = storage.lend(bytes.clamp(BLOCK_BYTES as usize, CHECK_BYTES));
    let may_fill = buffer.len().min(CHECK_BYTES);
    let mut failed = None;
    let digests = sha1_many.digests_read(&lengths, &mut buffer[..may_fill], &mut |at, begin, part| {
        if failed.is_some() {
            return false;
        }
        fill_if_there(place, pieces[at], begin, storage, part).unwrap_or_else(|error| {
            failed = Some(error);
            false
        })
    });
    drop(storage.share(buffer));
    if let Some(error) = failed {
        return Err(error);
    }
    assert_eq!(digests.len(), pieces.len(), "every piece asked for is judged");
    let judged = pieces.iter().zip(digests);
    Ok(judged.map(|(piece, digest)| digest.is_some_and(|digest| is_right(place, *piece, &digest))).collect())
}

/// Writes blocks to the files they lie in. Blocks without bytes, as a replay has them, are not written, nor is anything to
/// a file that does not reach as far as it did. Gives those files, and the digests of the blocks if they are wanted.
pub(super) fn write<S: Storage>(
    place: &Place,
    piece: PieceIndex,
    runs: &[Run],
    reaches: &[(FileIndex, u64)],
    digests: bool,
    storage: &mut S,
    sha1_many: &dyn Sha1Many,
) -> Result<Written, StorageError> {
    let mut gone = Vec::new();
    for (file, length) in reaches {
        if !storage.reaches(place.at(*file), *length)? {
            gone.push(*file);
        }
    }
    for run in runs {
        if run.blocks.iter().any(is_absent) {
            continue;
        }
        let mut parts = run.blocks.iter().flat_map(BlockData::parts).map(|part| &part[..]);
        let mut part: &[u8] = &[];
        for file_run in place.layout.runs(piece, run.begin, run.bytes()) {
            let mut left = file_run.length;
            let mut slices = Vec::new();
            while left > 0 {
                if part.is_empty() {
                    part = parts.next().expect("a block's parts are as long as it says");
                    continue;
                }
                let cut = usize::try_from(left).map_or(part.len(), |left| left.min(part.len()));
                let (now, later) = part.split_at(cut);
                slices.push(now);
                left -= now.len() as u64;
                part = later;
            }
            if !file_run.pad && !gone.contains(&file_run.file) {
                storage.write_at(place.at(file_run.file), file_run.offset, &slices)?;
            }
        }
    }
    let blocks = || runs.iter().flat_map(|run| &run.blocks);
    let digests =
        if digests && !blocks().any(is_absent) { digests_of_blocks(blocks(), sha1_many) } else { Vec::new() };
    Ok(Written { gone, digests })
}

/// Hashes pieces side by side, from memory or read back. A piece in memory of which a block has no bytes is not good.
pub(super) fn hash<S: Storage>(
    place: &Place,
    pieces: &[HashPiece],
    storage: &mut S,
    sha1_many: &dyn Sha1Many,
) -> Result<Vec<PieceHash>, StorageError> {
    let stored: Vec<_> =
        pieces.iter().filter(|asked| asked.blocks.is_empty()).map(|asked| asked.piece).collect();
    let mut stored_good = check(place, &stored, storage, sha1_many)?.into_iter();
    let messages: Vec<Vec<&[u8]>> = pieces
        .iter()
        .filter(|asked| is_in_memory(asked))
        .map(|asked| asked.blocks.iter().flat_map(BlockData::parts).map(|part| &part[..]).collect())
        .collect();
    let mut digests = Vec::with_capacity(messages.len());
    sha1_many.digests(&messages, &mut digests);
    let mut digests = digests.into_iter();
    let mut hashes = Vec::with_capacity(pieces.len());
    for asked in pieces {
        let good = if asked.blocks.is_empty() {
            stored_good.next().unwrap_or(false)
        } else {
            is_in_memory(asked) && digests.next().is_some_and(|digest| is_right(place, asked.piece, &digest))
        };
        let wanted = asked.digests || !good;
        let digests = if wanted { digests_of(place, asked, storage, sha1_many)? } else { Vec::new() };
        hashes.push(PieceHash { good, digests });
    }
    Ok(hashes)
}

/// The digest of each block of a piece, from memory or read back; none when its bytes are not there.
fn digests_of<S: Storage>(
    place: &Place,
    asked: &HashPiece,
    storage: &mut S,
    sha1_many: &dyn Sha1Many,
) -> Result<Vec<BlockDigest>, StorageError> {
    let mut digests = Vec::new();
    if is_in_memory(asked) {
        return Ok(digests_of_blocks(asked.blocks.iter(), sha1_many));
    }
    if asked.blocks.is_empty() {
        let length = place.layout.piece_bytes(asked.piece);
        let mut buffer = Vec::new();
        let mut begin = 0;
        while begin < length {
            let step = (length - begin).min(CHECK_BYTES as u32);
            buffer.resize(step as usize, 0);
            if !fill_if_there(place, asked.piece, begin, storage, &mut buffer)? {
                return Ok(Vec::new());
            }
            let messages: Vec<Vec<&[u8]>> =
                buffer.chunks(BLOCK_BYTES as usize).map(|block| vec![block]).collect();
            sha1_many.digests(&messages, &mut digests);
            begin += step;
        }
    }
    Ok(digests.iter().map(short).collect())
}

fn digests_of_blocks<'a>(
    blocks: impl Iterator<Item = &'a BlockData>,
    sha1_many: &dyn Sha1Many,
) -> Vec<BlockDigest> {
    let parts = |block: &'a BlockData| block.parts().iter().map(|part| &part[..]).collect();
    let messages: Vec<Vec<&[u8]>> = blocks.map(parts).collect();
    let mut digests = Vec::with_capacity(messages.len());
    sha1_many.digests(&messages, &mut digests);
    digests.iter().map(short).collect()
}

fn short(digest: &[u8; 20]) -> BlockDigest {
    BlockDigest(digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first)))
}

/// Reads blocks; those that lie one after the other are read at once and share one buffer.
pub(super) fn read<S: Storage>(
    place: &Place,
    blocks: &[ReadBlock],
    storage: &mut S,
) -> Result<Vec<BlockData>, StorageError> {
    let mut data = Vec::with_capacity(blocks.len());
    let mut rest = blocks;
    while let Some(first) = rest.first() {
        let mut length = 0;
        let adjacent = rest.iter().take_while(|block| {
            let follows = block.piece == first.piece && block.begin.checked_sub(first.begin) == Some(length);
            let fits = length == 0 || length.saturating_add(block.length) <= READ_BYTES;
            if follows && fits {
                length += block.length;
            }
            follows && fits
        });
        let (group, after) = rest.split_at(adjacent.count());
        rest = after;
        let mut buffer = storage.lend(length as usize);
        let ended = fill(place, first.piece, first.begin, storage, &mut buffer[..length as usize])?;
        let mut buffer = storage.share(buffer);
        if let Some(file) = ended {
            return Err(place.error(file, StorageErrorKind::ShortRead));
        }
        data.extend(group.iter().map(|block| BlockData::from(buffer.split_to(block.length as usize))));
    }
    assert_eq!(data.len(), blocks.len(), "every block asked for is given");
    Ok(data)
}

/// Like [`fill`]; a file that is missing or too short is no error. One that only reads so, twice, is: what it holds is
/// not known. Gives whether all was there.
fn fill_if_there<S: Storage>(
    place: &Place,
    piece: PieceIndex,
    begin: u32,
    storage: &mut S,
    buffer: &mut [u8],
) -> Result<bool, StorageError> {
    let mut again = false;
    loop {
        let short = match fill(place, piece, begin, storage, buffer) {
            Ok(None) => return Ok(true),
            Ok(Some(file)) => place.error(file, StorageErrorKind::ShortRead),
            Err(error) if error.kind == StorageErrorKind::NotFound => error,
            Err(error) => return Err(error),
        };
        if !is_there(place, piece, begin, buffer.len(), storage)? {
            return Ok(false);
        }
        if std::mem::replace(&mut again, true) {
            return Err(short);
        }
    }
}

/// Whether the files that a part of a piece lies in reach to its end.
fn is_there<S: Storage>(
    place: &Place,
    piece: PieceIndex,
    begin: u32,
    length: usize,
    storage: &mut S,
) -> Result<bool, StorageError> {
    let length = u32::try_from(length).expect("a buffer is no longer than a piece");
    for run in place.layout.runs(piece, begin, length).filter(|run| !run.pad) {
        let reaches = |stat: Stat| stat.is_file && stat.length >= run.offset + run.length;
        if !storage.stat(place.at(run.file))?.is_some_and(reaches) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The files that are missing, or too short to hold all that should be in them.
pub(super) fn look<S: Storage>(place: &Place, storage: &mut S) -> Result<Vec<FileIndex>, StorageError> {
    let mut gone = Vec::new();
    for (file, entry) in (0..).map(FileIndex).zip(place.layout.files()).filter(|(_, entry)| entry.is_stored())
    {
        let reaches = |stat: Stat| stat.is_file && stat.length >= entry.length;
        if entry.length > 0 && !storage.stat(place.at(file))?.is_some_and(reaches) {
            gone.push(file);
        }
    }
    Ok(gone)
}

/// Reads a part of a piece, as long as the buffer. Gives the file that ended early, if one did.
fn fill<S: Storage>(
    place: &Place,
    piece: PieceIndex,
    begin: u32,
    storage: &mut S,
    buffer: &mut [u8],
) -> Result<Option<FileIndex>, StorageError> {
    let mut rest = buffer;
    let length = u32::try_from(rest.len()).expect("a buffer is no longer than a piece");
    for run in place.layout.runs(piece, begin, length) {
        let (part, after) = rest.split_at_mut(run.length as usize);
        rest = after;
        if run.pad {
            part.fill(0);
        } else if storage.read_at(place.at(run.file), run.offset, part)? < part.len() {
            return Ok(Some(run.file));
        }
    }
    Ok(None)
}

/// The digest of so many zeros.
pub(super) fn digest_of_zeros(length: u32) -> [u8; 20] {
    let zeros = [0; BLOCK_BYTES as usize];
    let (mut sha1, mut left) = (Sha1::new(), length as usize);
    while left > 0 {
        let step = left.min(zeros.len());
        sha1.update(&zeros[..step]);
        left -= step;
    }
    sha1.finalize().into()
}

pub(super) fn is_right(place: &Place, piece: PieceIndex, digest: &[u8; 20]) -> bool {
    place.piece_hashes.get(piece.at()) == Some(digest)
}

/// Whether all bytes of a piece came with the job.
fn is_in_memory(asked: &HashPiece) -> bool {
    !asked.blocks.is_empty() && !asked.blocks.iter().any(is_absent)
}

fn is_absent(block: &BlockData) -> bool {
    block.parts().is_empty() && !block.is_empty()
}

impl Place {
    /// Where a file lies.
    pub(super) fn at(&self, file: FileIndex) -> At<'_> {
        At { root: &self.root, path: &self.layout.file(file).path }
    }

    /// What is wrong with a file.
    pub(crate) fn error(&self, file: FileIndex, kind: StorageErrorKind) -> StorageError {
        StorageError { path: format!("{}/{}", self.root, self.layout.file(file).path), kind }
    }
}

/// Payload in memory at once during a check; whole blocks.
const CHECK_BYTES: usize = 4 << 20;
/// The longest read for adjacent blocks.
const READ_BYTES: u32 = 1 << 20;
