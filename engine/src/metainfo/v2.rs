//! The version 2 half of a torrent file (BEP 52): the file tree, and piece layers against their roots.
//!
//! Every file begins with a piece. A torrent with this half alone is laid out with pad files that are not in its list;
//! in a hybrid both halves must list the same files.

use super::layout::{FileEntry, ListedFile};
use super::merkle::{self, Node};
use super::paths::{self, PathRules};
use super::{MetainfoError, StoragePath};
use crate::bencode::{Dict, Value};
use crate::limits::{BLOCK_BYTES, PATH_COMPONENTS_MAX, PIECES_MAX};

/// A file of the tree.
#[derive(Debug)]
pub(super) struct TreeFile {
    pub(super) path: StoragePath,
    pub(super) length: u64,
    pub(super) symlink: Option<StoragePath>,
    /// As the torrent names it, where that is not `path`.
    pub(super) original: Option<Box<str>>,
    /// None for an empty file or a symlink.
    pub(super) root: Option<Node>,
}

/// Reads `file tree`. `raw_name` is the torrent's name as it came: a tree that consists of one file of that name is a
/// torrent of that file, without a directory.
pub(super) fn files(
    tree: &Dict<'_>,
    (raw_name, name): (&[u8], &str),
    piece_length: u32,
    rules: PathRules,
) -> Result<Vec<TreeFile>, MetainfoError> {
    let single = match tree.iter().next() {
        Some((only, node)) => tree.len() == 1 && only == raw_name && leaf_of(node).is_some(),
        None => return Err(MetainfoError::NoFiles),
    };
    let top: &[&[u8]] = if single { &[] } else { &[name.as_bytes()] };
    let mut files = Vec::new();
    // Directories under way, each with what of it is left; the names down to there.
    let mut walk: Vec<_> = vec![tree.iter()];
    let mut names: Vec<&[u8]> = Vec::new();
    while let Some(directory) = walk.last_mut() {
        let Some((entry, node)) = directory.next() else {
            walk.pop();
            names.pop();
            continue;
        };
        let index = files.len();
        let dict = node.as_dict().ok_or(MetainfoError::FileEntry(index))?;
        if entry.is_empty() || dict.is_empty() {
            return Err(MetainfoError::FileEntry(index));
        }
        names.push(entry);
        if let Some(leaf) = leaf_of(node) {
            if dict.len() != 1 {
                return Err(MetainfoError::FileEntry(index));
            }
            let shown: &[&[u8]] = if single { &[name.as_bytes()] } else { &names };
            let mut file = file(leaf, index, top, shown, rules)?;
            let before = if single { None } else { Some(raw_name) };
            file.original = paths::original(before.into_iter().chain(names.iter().copied()), &file.path);
            files.push(file);
            names.pop();
        } else if walk.len() > PATH_COMPONENTS_MAX {
            let error = paths::PathError::TooDeep(walk.len() + 1);
            return Err(MetainfoError::UnstorablePath { file: index, error });
        } else {
            walk.push(dict.iter());
        }
    }
    let most = u64::from(piece_length) * u64::from(PIECES_MAX);
    if let Some(index) = files.iter().position(|file| file.length > most) {
        return Err(MetainfoError::Length(index));
    }
    let mut unique: Vec<_> = files.iter().map(|file| file.path.clone()).collect();
    paths::make_unique(&mut unique, |_| false);
    for (file, path) in files.iter_mut().zip(unique) {
        paths::relocate(&mut file.path, &mut file.original, path);
    }
    Ok(files)
}

/// What describes a file: the value of the empty name.
fn leaf_of<'d, 'a>(node: &'d Value<'a>) -> Option<&'d Value<'a>> {
    node.get(b"")
}

fn file(
    leaf: &Value<'_>,
    index: usize,
    top: &[&[u8]],
    names: &[&[u8]],
    rules: PathRules,
) -> Result<TreeFile, MetainfoError> {
    let below = |names: &[&[u8]]| {
        paths::storage_path(top.iter().chain(names).copied(), rules)
            .map_err(|error| MetainfoError::UnstorablePath { file: index, error })
    };
    let leaf = leaf.as_dict().ok_or(MetainfoError::FileEntry(index))?;
    let path = below(names)?;
    let attributes = leaf.get(b"attr").and_then(Value::as_bytes).unwrap_or_default();
    if attributes.contains(&b'p') {
        return Err(MetainfoError::PadFile(index));
    }
    if attributes.contains(&b'l') {
        let target: Option<Vec<&[u8]>> = leaf
            .get(b"symlink path")
            .and_then(Value::as_list)
            .and_then(|names| names.iter().map(Value::as_bytes).collect());
        let target = target.filter(|names| !names.is_empty()).ok_or(MetainfoError::FileEntry(index))?;
        let symlink = Some(below(&target)?);
        return Ok(TreeFile { path, length: 0, symlink, original: None, root: None });
    }
    let length = leaf.get(b"length").and_then(Value::as_int);
    let length = length.and_then(|length| u64::try_from(length).ok()).ok_or(MetainfoError::Length(index))?;
    let root = leaf.get(b"pieces root").and_then(Value::as_bytes);
    let root = root.and_then(|root| Node::try_from(root).ok()).filter(|root| *root != Node::default());
    if length > 0 && root.is_none() {
        return Err(MetainfoError::PiecesRoot(index));
    }
    Ok(TreeFile { path, length, symlink: None, original: None, root: root.filter(|_| length > 0) })
}

/// The files as a layout has them: where there are several, each is followed by a pad file up to the next piece.
pub(super) fn listed(
    files: &[TreeFile],
    piece_length: u32,
    name: &str,
    rules: PathRules,
) -> Result<Vec<ListedFile>, MetainfoError> {
    let mut listed = Vec::with_capacity(files.len());
    for file in files {
        let (symlink, original) = (file.symlink.clone(), file.original.clone());
        listed.push(ListedFile { symlink, original, ..ListedFile::plain(file.path.clone(), file.length) });
        let pad = file.length.next_multiple_of(u64::from(piece_length)).checked_sub(file.length);
        let pad = pad.ok_or(MetainfoError::TotalLength)?;
        if pad > 0 && files.len() > 1 {
            let pad_name = pad.to_string();
            let names: [&[u8]; 3] = [name.as_bytes(), b".pad", pad_name.as_bytes()];
            let path = paths::storage_path(names, rules).map_err(|_| MetainfoError::Name)?;
            listed.push(ListedFile { pad: true, ..ListedFile::plain(path, pad) });
        }
    }
    let mut unique: Vec<_> = listed.iter().map(|file| file.path.clone()).collect();
    let pads: Vec<bool> = listed.iter().map(|file| file.pad).collect();
    paths::make_unique(&mut unique, |index| pads.get(index).is_some_and(|pad| *pad));
    for (file, path) in listed.iter_mut().zip(unique) {
        paths::relocate(&mut file.path, &mut file.original, path);
    }
    Ok(listed)
}

/// Both halves of a hybrid list the same files, and each begins with a piece in the first half too.
pub(super) fn check_same(v1: &[FileEntry], v2: &[TreeFile], piece_length: u32) -> Result<(), MetainfoError> {
    let aligned =
        |entry: &&FileEntry| entry.length == 0 || entry.offset.is_multiple_of(u64::from(piece_length));
    let same = |(entry, file): (&FileEntry, &TreeFile)| {
        (&entry.path, entry.length, &entry.symlink) == (&file.path, file.length, &file.symlink)
    };
    let files: Vec<&FileEntry> = v1.iter().filter(|entry| !entry.pad).collect();
    let fits = files.len() == v2.len() && files.iter().all(aligned) && files.into_iter().zip(v2).all(same);
    fits.then_some(()).ok_or(MetainfoError::HalvesDiffer)
}

/// Holds what `piece layers` says against the roots. A layer that is not there is no error: peers have it.
pub(super) fn check_layers(
    layers: Option<&Value<'_>>,
    files: &[TreeFile],
    piece_length: u32,
) -> Result<(), MetainfoError> {
    let Some(layers) = layers else { return Ok(()) };
    let layers = layers.as_dict().ok_or(MetainfoError::PieceLayers)?;
    let level = merkle::piece_level(piece_length.max(BLOCK_BYTES));
    for (index, file) in files.iter().enumerate() {
        let Some(root) = file.root.filter(|_| file.length > u64::from(piece_length)) else { continue };
        let Some(layer) = layers.get(&root) else { continue };
        let (nodes, rest) = layer.as_bytes().ok_or(MetainfoError::PieceLayers)?.as_chunks::<32>();
        let whole = rest.is_empty() && nodes.len() as u64 == file.length.div_ceil(u64::from(piece_length));
        if !whole || merkle::root(nodes.to_vec(), level) != Some(root) {
            return Err(MetainfoError::PieceLayer(index));
        }
    }
    // What belongs to no file is passed over, but must be a layer.
    let sound = |layer: &Value<'_>| layer.as_bytes().is_some_and(|bytes| bytes.len() % 32 == 0);
    layers.iter().all(|(_, layer)| sound(layer)).then_some(()).ok_or(MetainfoError::PieceLayers)
}
