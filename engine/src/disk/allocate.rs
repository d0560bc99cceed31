//! Making room for whole files before anything is fetched.
//!
//! The length of a file stays what it was: only bytes that we wrote lie within it, so no zeros are ever taken for data
//! and what earlier runs left is judged as always. Where the system cannot make room, files stay sparse.

use super::{Place, Storage, StorageError, StorageErrorKind};
use crate::command::{Allocation, Priority};
use crate::ids::FileIndex;
use crate::metainfo::Layout;

/// The files to make before the download begins: all that are stored and wanted, or those without a byte alone, as no
/// piece ever writes them.
pub(crate) fn files_to_allocate(
    layout: &Layout,
    priorities: &[Priority],
    allocation: Allocation,
) -> Vec<FileIndex> {
    let priorities = priorities.iter().copied().chain(std::iter::repeat(Priority::Normal));
    let wanted = (0..).zip(layout.files().iter().zip(priorities)).filter(|(_, (file, priority))| {
        let now = allocation == Allocation::Full || file.length == 0;
        file.is_stored() && *priority != Priority::Skip && now
    });
    wanted.map(|(index, _)| FileIndex(index)).collect()
}

/// Does the job. When there is too little room for all of them nothing is begun.
pub(super) fn allocate<S: Storage>(
    place: &Place,
    files: &[FileIndex],
    storage: &mut S,
) -> Result<(), StorageError> {
    let mut short_bytes = 0u64;
    for file in files {
        let there = storage.stat(place.at(*file))?.map_or(0, |stat| stat.allocated_bytes);
        short_bytes = short_bytes.saturating_add(place.layout.file(*file).length.saturating_sub(there));
    }
    if short_bytes > storage.free_bytes(&place.root)? {
        return Err(StorageError { path: place.root.clone(), kind: StorageErrorKind::Full });
    }
    for file in files {
        let length = place.layout.file(*file).length;
        if length == 0 {
            storage.write_at(place.at(*file), 0, &[])?;
        } else {
            storage.allocate(place.at(*file), length)?;
        }
    }
    Ok(())
}
