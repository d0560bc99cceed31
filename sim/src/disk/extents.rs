//! What the bytes of a file are, by range: canonical content by reference, other bytes as they are, holes as nothing.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::content::Content;

/// Where a range of bytes comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Content `content` from `offset` on.
    Canonical { content: u32, offset: u64 },
    /// These.
    Own(Bytes),
}

impl Source {
    /// `length` bytes of it from `from` on.
    pub(super) fn part(&self, from: u64, length: u64) -> Self {
        match self {
            Self::Canonical { content, offset } => {
                Self::Canonical { content: *content, offset: offset + from }
            }
            Self::Own(bytes) => Self::Own(bytes.slice(from as usize..(from + length) as usize)),
        }
    }
}

/// Ranges by their offset; what is in none of them is a hole of zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Extents(BTreeMap<u64, (u64, Source)>);

impl Extents {
    /// Puts a range over whatever was there.
    pub(super) fn put(&mut self, offset: u64, length: u64, source: Source) {
        if length == 0 {
            return;
        }
        self.cut(offset, offset + length);
        // Neighbours that go on in the same content are one range.
        if let Source::Canonical { content, offset: from } = source {
            let (mut start, mut from, mut length) = (offset, from, length);
            if let Some((before, (bytes, Source::Canonical { content: same, offset: its }))) =
                self.0.range(..start).next_back()
                && before + bytes == start
                && *same == content
                && its + bytes == from
            {
                (start, from, length) = (*before, *its, length + bytes);
            }
            if let Some((bytes, Source::Canonical { content: same, offset: its })) =
                self.0.get(&(start + length))
                && *same == content
                && *its == from + length
            {
                let bytes = *bytes;
                self.0.remove(&(start + length));
                length += bytes;
            }
            self.0.insert(start, (length, Source::Canonical { content, offset: from }));
            return;
        }
        self.0.insert(offset, (length, source));
    }

    /// Forgets everything from `length` on.
    pub(super) fn truncate(&mut self, length: u64) {
        self.cut(length, u64::MAX);
    }

    fn cut(&mut self, from: u64, to: u64) {
        if let Some((start, (length, source))) =
            self.0.range(..from).next_back().map(|(start, range)| (*start, range.clone()))
            && start + length > from
        {
            self.0.insert(start, (from - start, source.part(0, from - start)));
            if start + length > to {
                self.0.insert(to, (start + length - to, source.part(to - start, start + length - to)));
            }
        }
        let inside: Vec<u64> = self.0.range(from..to).map(|(start, _)| *start).collect();
        for start in inside {
            if let Some((length, source)) = self.0.remove(&start)
                && start + length > to
            {
                self.0.insert(to, (start + length - to, source.part(to - start, start + length - to)));
            }
        }
    }

    /// The ranges that overlap `at..at + length`, each cut to it.
    fn within(&self, at: u64, length: u64) -> impl Iterator<Item = (u64, u64, Source)> + '_ {
        let end = at + length;
        let first = self.0.range(..=at).next_back().map_or(at, |(start, _)| *start);
        self.0.range(first..end).filter_map(move |(start, (bytes, source))| {
            let (from, to) = ((*start).max(at), (start + bytes).min(end));
            (from < to).then(|| (from, to - from, source.part(from - start, to - from)))
        })
    }

    /// Copies `buffer.len()` bytes from `at` on; holes are zeros.
    pub(super) fn read(&self, at: u64, buffer: &mut [u8], contents: &[Content]) {
        buffer.fill(0);
        for (from, length, source) in self.within(at, buffer.len() as u64) {
            let target = &mut buffer[(from - at) as usize..(from - at + length) as usize];
            match source {
                Source::Canonical { content, offset } => target.copy_from_slice(
                    &contents[content as usize].as_slice()[offset as usize..(offset + length) as usize],
                ),
                Source::Own(bytes) => target.copy_from_slice(&bytes),
            }
        }
    }

    /// Whether the `length` bytes from `at` on are those of `content` from `offset` on.
    pub(super) fn equal(
        &self,
        at: u64,
        length: u64,
        content: u32,
        offset: u64,
        contents: &[Content],
    ) -> bool {
        let mut next = at;
        for (from, bytes, source) in self.within(at, length) {
            let want = offset + (from - at);
            let same = match source {
                Source::Canonical { content: its, offset: there } if its == content => there == want,
                Source::Canonical { content: its, offset: there } => {
                    let other = &contents[its as usize].as_slice()[there as usize..(there + bytes) as usize];
                    contents[content as usize].is_at(want, other)
                }
                Source::Own(own) => contents[content as usize].is_at(want, &own),
            };
            if !same || !zero(contents, content, offset + (next - at), from - next) {
                return false;
            }
            next = from + bytes;
        }
        zero(contents, content, offset + (next - at), at + length - next)
    }

    /// Bytes that are not holes.
    pub(super) fn bytes(&self) -> u64 {
        self.0.values().map(|(length, _)| length).sum()
    }

    /// Bytes of `at..at + length` that are not holes.
    pub(super) fn bytes_within(&self, at: u64, length: u64) -> u64 {
        self.within(at, length).map(|(_, bytes, _)| bytes).sum()
    }

    /// Bytes that are stored here.
    pub(super) fn own_bytes(&self) -> u64 {
        self.0
            .values()
            .map(|(length, source)| if matches!(source, Source::Own(_)) { *length } else { 0 })
            .sum()
    }
}

/// Whether that part of the content is zeros, as a hole is.
fn zero(contents: &[Content], content: u32, offset: u64, length: u64) -> bool {
    contents[content as usize].as_slice()[offset as usize..(offset + length) as usize]
        .iter()
        .all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_read_back_as_a_plain_array_would(puts in prop::collection::vec((0u64..200, 1u64..60, any::<bool>(), any::<u8>()), 0..30), cut in 0u64..260) {
            let content = Content::new("a", 300);
            let contents = [content];
            let (mut extents, mut plain) = (Extents::default(), vec![0u8; 300]);
            for (offset, length, canonical, byte) in puts {
                let range = offset as usize..(offset + length) as usize;
                if canonical {
                    extents.put(offset, length, Source::Canonical { content: 0, offset });
                    plain[range.clone()].copy_from_slice(&contents[0].as_slice()[range]);
                } else {
                    extents.put(offset, length, Source::Own(vec![byte; length as usize].into()));
                    plain[range].fill(byte);
                }
            }
            extents.truncate(cut);
            plain[cut as usize..].fill(0);
            let mut read = vec![0xff; 300];
            extents.read(0, &mut read, &contents);
            prop_assert_eq!(&read, &plain);
            for (at, length) in [(0, 300), (10, 50), (100, 1)] {
                let same = plain[at as usize..(at + length) as usize] == contents[0].as_slice()[at as usize..(at + length) as usize];
                prop_assert_eq!(extents.equal(at, length, 0, at, &contents), same);
            }
        }
    }

    #[test]
    fn a_file_written_in_order_is_one_range() {
        let mut extents = Extents::default();
        for block in [3u64, 1, 0, 2] {
            extents.put(block * 10, 10, Source::Canonical { content: 0, offset: 100 + block * 10 });
        }
        assert_eq!((extents.0.len(), extents.bytes(), extents.own_bytes()), (1, 40, 0));
    }
}
