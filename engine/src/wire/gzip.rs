//! Bodies compressed with gzip (RFC 1952), inflated to a cap.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;

/// Why a body cannot be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum InflateError {
    /// It is damaged, cut, or no gzip.
    #[error("the answer is not valid gzip")]
    Damaged,
    /// It would become larger than the cap.
    #[error("the answer is too large when unpacked")]
    TooLarge,
}

/// Inflates all of `body`. Never makes more than `bytes_max` bytes and a little: what would be larger is refused as
/// soon as that shows.
///
/// # Errors
/// When it is no gzip, or would be larger.
pub fn inflate(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
    let mut out = Vec::new();
    let limit = bytes_max as u64 + 1;
    MultiGzDecoder::new(body).take(limit).read_to_end(&mut out).map_err(|_| InflateError::Damaged)?;
    if out.len() > bytes_max { Err(InflateError::TooLarge) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_is_refused_at_the_cap() {
        // 538 bytes that become 512,000.
        let bomb = include_bytes!("../../../tests/fixtures/torrents/misc/zeroes.gz");
        assert_eq!(inflate(bomb, 511_999), Err(InflateError::TooLarge));
        assert_eq!(inflate(bomb, 512_000).map(|out| out.len()), Ok(512_000));
        let large = deflate(&vec![0; 100 << 20]);
        assert!(large.len() < 200_000);
        assert_eq!(inflate(&large, 1 << 20), Err(InflateError::TooLarge));
    }

    #[test]
    fn what_is_damaged_is_refused() {
        for bad in [
            &include_bytes!("../../../tests/fixtures/torrents/misc/corrupt.gz")[..],
            include_bytes!("../../../tests/fixtures/torrents/misc/invalid1.gz"),
            b"",
            b"d8:intervali60ee",
        ] {
            assert_eq!(inflate(bad, 1 << 20), Err(InflateError::Damaged));
        }
        let whole = deflate(b"d8:intervali60ee");
        assert_eq!(inflate(&whole[..whole.len() - 1], 1 << 20), Err(InflateError::Damaged));
    }

    proptest! {
        #[test]
        fn bodies_come_back_as_they_went(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(inflate(&deflate(&body), body.len()), Ok(body));
        }

        #[test]
        fn any_bytes_are_judged(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(inflate(&body, 100).is_ok_and(|out| out.len() <= 100) || inflate(&body, 100).is_err());
        }
    }
}
