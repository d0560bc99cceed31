//! Messages with random fields: most of them legal by themselves, in an order that is not, so that a connection lasts
//! long enough to come into strange states.

use bytes::BufMut as _;
use taipei_engine::InfoHash;
use taipei_engine::limits::BLOCK_BYTES;
use taipei_engine::rng::Rng;

/// What the fields are drawn around.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) info_hash: InfoHash,
    pub(super) pieces: u32,
    pub(super) piece_bytes: u32,
}

/// The bitfield of everything, spare bits zero.
pub(super) fn full_bitfield(pieces: u32) -> Vec<u8> {
    let mut bits = vec![0xff; pieces.div_ceil(8) as usize];
    if let Some(last) = bits.last_mut().filter(|_| !pieces.is_multiple_of(8)) {
        *last = 0xff << (8 - pieces % 8);
    }
    bits
}

/// Appends one message.
pub(super) fn message(rng: &mut Rng, shape: &Shape, out: &mut Vec<u8>) {
    let is_wild = rng.below(40) == 0;
    if is_wild {
        return wild(rng, shape, out);
    }
    let id = LEGAL[rng.below(LEGAL.len() as u64) as usize];
    let mut body = Vec::new();
    match id {
        HAVE | SUGGEST | ALLOWED_FAST => body.put_u32(piece(rng, shape)),
        REQUEST | CANCEL | REJECT => {
            body.put_u32(piece(rng, shape));
            body.put_u32(begin(rng, shape));
            body.put_u32(BLOCK_BYTES);
        }
        BITFIELD => {
            body = full_bitfield(shape.pieces);
            let mask = rng.next_u32() as u8;
            body.iter_mut().for_each(|byte| *byte &= mask);
        }
        PIECE => {
            body.put_u32(piece(rng, shape));
            body.put_u32(begin(rng, shape));
            let length = [0, 1, BLOCK_BYTES as usize - 1, BLOCK_BYTES as usize][rng.below(4) as usize];
            body.resize(body.len() + length, 0xa5);
        }
        PORT => body.put_u16(rng.next_u32() as u16),
        EXTENDED => {
            body.put_u8(rng.below(4) as u8);
            body.extend_from_slice(EXTENDED_BODIES[rng.below(EXTENDED_BODIES.len() as u64) as usize]);
        }
        UNKNOWN => body.resize(rng.below(100) as usize, 0),
        _ => {}
    }
    if id != KEEP_ALIVE {
        out.put_u32(1 + body.len() as u32);
        out.put_u8(id);
        out.extend(body);
    } else {
        out.put_u32(0);
    }
}

/// Something that no peer may send.
fn wild(rng: &mut Rng, shape: &Shape, out: &mut Vec<u8>) {
    match rng.below(10) {
        // A second handshake, of this torrent or another.
        0 => {
            out.extend_from_slice(b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0");
            let other = rng.below(2) == 0;
            out.extend_from_slice(&if other { [0x77; 20] } else { shape.info_hash.0 });
            out.extend_from_slice(&[b'x'; 20]);
        }
        // A length that its kind cannot have, with as many bytes.
        1 => {
            let (id, length) = (rng.below(21) as u8, rng.below(40) as usize);
            out.put_u32(1 + length as u32);
            out.put_u8(id);
            out.resize(out.len() + length, 0);
        }
        // A length and then less, more or other than that.
        2 => {
            out.put_u32(rng.next_u32() >> rng.below(32));
            out.put_u8(rng.next_u32() as u8);
        }
        // Spare bits, too short, too long.
        3 => {
            let bytes = shape.pieces.div_ceil(8) as i64 + rng.below(3) as i64 - 1;
            out.put_u32(1 + bytes.max(0) as u32);
            out.put_u8(BITFIELD);
            out.resize(out.len() + bytes.max(0) as usize, 0xff);
        }
        // Pieces and blocks beyond the end.
        4 => {
            out.put_u32(5);
            out.put_u8([HAVE, SUGGEST, ALLOWED_FAST][rng.below(3) as usize]);
            out.put_u32(shape.pieces.saturating_add(rng.next_u32() >> rng.below(32)));
        }
        5 => {
            out.put_u32(13);
            out.put_u8([REQUEST, CANCEL, REJECT][rng.below(3) as usize]);
            for _ in 0..3 {
                out.put_u32(rng.next_u32() >> rng.below(33).min(31));
            }
        }
        6 => {
            out.put_u32(9 + 100);
            out.put_u8(PIECE);
            out.put_u32(shape.pieces.wrapping_sub(rng.below(2) as u32));
            out.put_u32(u32::MAX - rng.below(200) as u32);
            out.resize(out.len() + 100, 0);
        }
        // A block that is longer than blocks are.
        7 => {
            out.put_u32(9 + BLOCK_BYTES + 1);
            out.put_u8(PIECE);
            out.put_u64(0);
            out.resize(out.len() + BLOCK_BYTES as usize + 1, 0);
        }
        // Lists in lists in lists.
        8 => {
            let depth = 50_000;
            out.put_u32(2 + depth);
            out.put_u8(EXTENDED);
            out.put_u8(0);
            out.resize(out.len() + depth as usize, b'l');
        }
        // Noise.
        _ => {
            let mut noise = vec![0; rng.below(200) as usize];
            rng.fill(&mut noise);
            out.extend(noise);
        }
    }
}

fn piece(rng: &mut Rng, shape: &Shape) -> u32 {
    rng.below(u64::from(shape.pieces)) as u32
}

fn begin(rng: &mut Rng, shape: &Shape) -> u32 {
    rng.below(u64::from(shape.piece_bytes.div_ceil(BLOCK_BYTES))) as u32 * BLOCK_BYTES
}

const HAVE: u8 = 4;
const BITFIELD: u8 = 5;
const REQUEST: u8 = 6;
const PIECE: u8 = 7;
const CANCEL: u8 = 8;
const PORT: u8 = 9;
const SUGGEST: u8 = 13;
const REJECT: u8 = 16;
const ALLOWED_FAST: u8 = 17;
const EXTENDED: u8 = 20;
const UNKNOWN: u8 = 99;
/// Stands for a message without a kind.
const KEEP_ALIVE: u8 = 255;
const LEGAL: [u8; 18] = [
    0,
    1,
    2,
    3,
    HAVE,
    BITFIELD,
    REQUEST,
    PIECE,
    CANCEL,
    PORT,
    SUGGEST,
    14,
    15,
    REJECT,
    ALLOWED_FAST,
    EXTENDED,
    UNKNOWN,
    KEEP_ALIVE,
];
const EXTENDED_BODIES: [&[u8]; 6] = [
    b"d1:md6:ut_pexi1eee",
    b"d1:mi7e4:reqqi-5ee",
    b"d4:reqqi9223372036854775807e13:metadata_sizei-1ee",
    b"de",
    b"d1:pi99999e6:yourip3:abc1:v2:\xff\xfee",
    b"d8:msg_typei0e5:piecei999999999ee",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_it_is_framed_and_some_is_not() {
        let shape = Shape { info_hash: InfoHash([1; 20]), pieces: 13, piece_bytes: 100_000 };
        let mut rng = Rng::stream(1, "grammar", 0);
        let (mut fine, mut kinds) = (0, [false; 256]);
        for _ in 0..10_000 {
            let mut out = Vec::new();
            message(&mut rng, &shape, &mut out);
            let length = out.first_chunk().map(|head| u32::from_be_bytes(*head) as usize);
            fine += u32::from(length == Some(out.len().wrapping_sub(4)));
            out.get(4).inspect(|id| kinds[usize::from(**id)] = true);
        }
        assert!((9_700..10_000).contains(&fine), "{fine}");
        assert!(LEGAL[..17].iter().all(|id| kinds[usize::from(*id)]));
        assert_eq!(full_bitfield(13), [0xff, 0xf8]);
    }
}
