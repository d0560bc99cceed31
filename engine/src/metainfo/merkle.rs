//! SHA-256 trees over files (BEP 52, "merkle trees"): leaves are blocks of 16 KiB, a level is padded to a power of two.

use sha2::{Digest as _, Sha256};

use crate::limits::BLOCK_BYTES;

/// A node of a tree: 32 bytes.
pub type Node = [u8; 32];

/// The leaf of a block, 16 KiB or the end of a file.
pub fn leaf(block: &[u8]) -> Node {
    Sha256::digest(block).into()
}

/// The root over one level of a tree. `level` is its height: 0 for blocks, 1 for pairs of them. What is missing to a power
/// of two counts as a subtree of that height whose leaves are zero. None for no node at all.
pub fn root(mut nodes: Vec<Node>, level: u32) -> Option<Node> {
    let mut pad = (0..level).fold(Node::default(), |pad, _| parent(&pad, &pad));
    while nodes.len() > 1 {
        nodes = nodes.chunks(2).map(|pair| parent(&pair[0], pair.get(1).unwrap_or(&pad))).collect();
        pad = parent(&pad, &pad);
    }
    nodes.pop()
}

/// The height of the level that has one node for each piece; `piece_length` is a power of two from 16 KiB.
pub fn piece_level(piece_length: u32) -> u32 {
    (piece_length / BLOCK_BYTES).trailing_zeros()
}

fn parent(left: &Node, right: &Node) -> Node {
    Sha256::new().chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(length: usize) -> Vec<Node> {
        vec![0; length].chunks(BLOCK_BYTES as usize).map(leaf).collect()
    }

    #[test]
    fn a_piece_layer_has_the_root_of_its_blocks() {
        for blocks in 1..40 {
            let whole = root(leaves(blocks * 16384 - 5), 0);
            for piece_length in [1 << 14, 1 << 15, 1 << 16, 1 << 18] {
                let level = piece_level(piece_length);
                let per_piece = 1usize << level;
                let mut leaves = leaves(blocks * 16384 - 5);
                // The last piece is padded as the others are.
                leaves.resize(leaves.len().next_multiple_of(per_piece), Node::default());
                let layer: Vec<_> =
                    leaves.chunks(per_piece).filter_map(|piece| root(piece.to_vec(), 0)).collect();
                if blocks > per_piece {
                    assert_eq!(root(layer, level), whole, "{blocks} blocks in pieces of {piece_length}");
                }
            }
        }
        assert_eq!(root(Vec::new(), 0), None);
    }
}
