//! Bencode from outside: a tolerant pass, then `bendy`.
//!
//! `bendy` decodes canonical bencode only, and real torrents and peers send dictionaries whose keys are not sorted.
//! So each text goes through a pass of our own first. It walks the bytes once without recursion and refuses what
//! nobody may send: more than [`BENCODE_DEPTH_MAX`] levels, more than [`BENCODE_TOKENS_MAX`] values, malformed numbers
//! (`i07e`, `i-0e`, `03:abc`), a text that ends early. What it finds canonical goes to `bendy` as it is, and the tree
//! borrows from it. Otherwise it writes the same values with sorted keys, the first of repeated keys kept, and the
//! tree owns its bytes. White space after the end is passed over.
//!
//! An info-hash is never taken over re-encoded bytes: [`raw_entry`] gives the bytes of an entry as they came.

use std::borrow::Cow;

use bendy::decoding::Decoder;
use bendy::encoding::{Encoder, SingleItemEncoder, ToBencode};
use bendy::state_tracker::Token;
use serde::{Deserialize, Serialize};

use crate::limits::{BENCODE_DEPTH_MAX, BENCODE_TOKENS_MAX};

/// A bencoded value (BEP 3), borrowed from the text it came from where that was canonical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `i42e`. Numbers beyond 64 bits are refused.
    Int(i64),
    /// `4:spam`. Text is UTF-8 by convention only.
    Bytes(Cow<'a, [u8]>),
    /// `l...e`.
    List(Vec<Value<'a>>),
    /// `d...e`.
    Dict(Dict<'a>),
}

/// A dictionary: keys ascending, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dict<'a>(Vec<(Cow<'a, [u8]>, Value<'a>)>);

/// Why bytes are no bencode that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BencodeError {
    /// The text ends within a value.
    #[error("bencode ends early, after {0} bytes")]
    Truncated(usize),
    /// A byte that begins no value, or a key that is no string, or a key without a value.
    #[error("no bencoded value at byte {0}")]
    Unexpected(usize),
    /// A leading zero, a minus zero, no digit, something that is no digit.
    #[error("malformed number at byte {0}")]
    Number(usize),
    /// A number that 64 bits do not hold.
    #[error("number too large at byte {0}")]
    NumberTooLarge(usize),
    /// More nested lists and dictionaries than [`BENCODE_DEPTH_MAX`].
    #[error("nested more than {BENCODE_DEPTH_MAX} levels deep at byte {0}")]
    TooDeep(usize),
    /// More values than [`BENCODE_TOKENS_MAX`].
    #[error("more than {BENCODE_TOKENS_MAX} values")]
    TooManyTokens,
    /// Something other than white space after the end.
    #[error("unexpected data after the end, at byte {0}")]
    Trailing(usize),
}

/// Reads a whole text: one value, then white space at most.
///
/// # Errors
/// When it is no bencode, goes beyond a limit, or has something after its end.
pub fn parse(bytes: &[u8]) -> Result<Value<'_>, BencodeError> {
    let (value, end) = parse_prefix(bytes)?;
    match bytes[end..].iter().position(|byte| !byte.is_ascii_whitespace()) {
        Some(at) => Err(BencodeError::Trailing(end + at)),
        None => Ok(value),
    }
}

/// Reads the value that a text begins with, and says how many bytes it takes. What follows is the caller's: BEP 9 puts
/// data after a dictionary.
///
/// # Errors
/// When it is no bencode or goes beyond a limit.
pub fn parse_prefix(bytes: &[u8]) -> Result<(Value<'_>, usize), BencodeError> {
    let scan = scan(bytes, b"")?;
    let text = &bytes[..scan.end];
    let value = if scan.canonical { build(text)? } else { build(&reorder(text))?.into_owned() };
    Ok((value, scan.end))
}

/// The raw bytes of the entry `key` of a text that is a dictionary, the first one where it is repeated.
///
/// # Errors
/// When it is no bencode or goes beyond a limit.
pub fn raw_entry<'a>(bytes: &'a [u8], key: &[u8]) -> Result<Option<&'a [u8]>, BencodeError> {
    Ok(scan(bytes, key)?.wanted.map(|(start, end)| &bytes[start..end]))
}

/// Writes canonical bencode, with `bendy`.
///
/// # Panics
/// When it is nested deeper than [`BENCODE_DEPTH_MAX`]: what we write is made by us.
pub fn encode(value: &Value<'_>) -> Vec<u8> {
    value.to_bencode().expect("keys are sorted and the depth is bounded")
}

impl<'a> Value<'a> {
    /// A string.
    pub fn bytes(bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        Self::Bytes(bytes.into())
    }

    /// A string that is text.
    pub fn text(text: &'a str) -> Self {
        Self::Bytes(Cow::Borrowed(text.as_bytes()))
    }

    /// A dictionary; of repeated keys the first is kept.
    pub fn dict<K: Into<Cow<'a, [u8]>>>(entries: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Dict(Dict::new(entries))
    }

    /// The number, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(int) = self { Some(*int) } else { None }
    }

    /// The string, if it is one.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The string, if it is one and UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        self.as_bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The items, if it is a list.
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(items) = self { Some(items) } else { None }
    }

    /// The dictionary, if it is one.
    pub fn as_dict(&self) -> Option<&Dict<'a>> {
        if let Self::Dict(dict) = self { Some(dict) } else { None }
    }

    /// The entry of a key, if it is a dictionary that has it.
    pub fn get(&self, key: &[u8]) -> Option<&Self> {
        self.as_dict()?.get(key)
    }

    /// The same value, owning all of its bytes.
    pub fn into_owned(self) -> Value<'static> {
        let own = |bytes: Cow<'_, [u8]>| Cow::Owned(bytes.into_owned());
        match self {
            Self::Int(int) => Value::Int(int),
            Self::Bytes(bytes) => Value::Bytes(own(bytes)),
            Self::List(items) => Value::List(items.into_iter().map(Value::into_owned).collect()),
            Self::Dict(dict) => {
                let entries = dict.0.into_iter().map(|(key, value)| (own(key), value.into_owned()));
                Value::Dict(Dict(entries.collect()))
            }
        }
    }
}

impl From<i64> for Value<'_> {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl<'a> Dict<'a> {
    /// From entries in any order; of repeated keys the first is kept.
    pub fn new<K: Into<Cow<'a, [u8]>>>(entries: impl IntoIterator<Item = (K, Value<'a>)>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().map(|(key, value)| (key.into(), value)).collect();
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        entries.dedup_by(|(later, _), (first, _)| later == first);
        Self(entries)
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&Value<'a>> {
        let at = self.0.binary_search_by(|(other, _)| other.as_ref().cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Keys and values, keys ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &Value<'a>)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), value))
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl ToBencode for Value<'_> {
    const MAX_DEPTH: usize = BENCODE_DEPTH_MAX;

    fn encode(&self, encoder: SingleItemEncoder<'_>) -> Result<(), bendy::encoding::Error> {
        match self {
            Self::Int(int) => encoder.emit_int(*int),
            Self::Bytes(bytes) => encoder.emit_bytes(bytes),
            Self::List(items) => encoder.emit_list(|list: &mut Encoder| {
                items.iter().try_for_each(|item| list.emit_with(|encoder| item.encode(encoder)))
            }),
            Self::Dict(dict) => encoder.emit_dict(|mut sorted| {
                dict.iter()
                    .try_for_each(|(key, value)| sorted.emit_pair_with(key, |encoder| value.encode(encoder)))
            }),
        }
    }
}

/// What the pass found.
struct Scan {
    /// Where the value ends.
    end: usize,
    /// Whether all keys ascend.
    canonical: bool,
    /// Where the value of the key asked for begins and ends.
    wanted: Option<(usize, usize)>,
}

/// A list or dictionary that is not closed yet.
enum Open<'a> {
    List,
    Dict {
        last_key: Option<&'a [u8]>,
        /// A key was read and its value is next.
        value_next: bool,
    },
}

/// Walks one value. `wanted` is looked for among the keys of the outermost dictionary.
fn scan(bytes: &[u8], wanted: &[u8]) -> Result<Scan, BencodeError> {
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut at = 0;
    let mut tokens = 0usize;
    let mut canonical = true;
    let mut found = None;
    let mut found_start = None;
    loop {
        let start = at;
        let token = take(bytes, &mut at)?;
        tokens += 1;
        if tokens > BENCODE_TOKENS_MAX {
            return Err(BencodeError::TooManyTokens);
        }
        if let Some(Open::Dict { last_key, value_next: value_next @ false }) = open.last_mut() {
            match token {
                Raw::Bytes(key) => {
                    canonical &= last_key.is_none_or(|last| last < key);
                    *last_key = Some(key);
                    *value_next = true;
                    if open.len() == 1 && key == wanted && found.is_none() {
                        found_start = Some(at);
                    }
                    continue;
                }
                Raw::End => {}
                _ => return Err(BencodeError::Unexpected(start)),
            }
        }
        match token {
            Raw::Int | Raw::Bytes(_) => {}
            Raw::List | Raw::Dict => {
                if open.len() == BENCODE_DEPTH_MAX {
                    return Err(BencodeError::TooDeep(start));
                }
                let is_list = matches!(token, Raw::List);
                open.push(if is_list {
                    Open::List
                } else {
                    Open::Dict { last_key: None, value_next: false }
                });
                continue;
            }
            Raw::End => match open.pop() {
                None | Some(Open::Dict { value_next: true, .. }) => {
                    return Err(BencodeError::Unexpected(start));
                }
                Some(_) => {}
            },
        }
        if let Some(Open::Dict { value_next, .. }) = open.last_mut() {
            *value_next = false;
        }
        if open.len() == 1
            && let Some(start) = found_start.take()
        {
            found = Some((start, at));
        }
        if open.is_empty() {
            return Ok(Scan { end: at, canonical, wanted: found });
        }
    }
}

/// The smallest unit of a text.
enum Raw<'a> {
    Int,
    Bytes(&'a [u8]),
    List,
    Dict,
    End,
}

/// Reads one unit and moves `at` past it.
fn take<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Raw<'a>, BencodeError> {
    let start = *at;
    let first = *bytes.get(start).ok_or(BencodeError::Truncated(start))?;
    match first {
        b'l' | b'd' | b'e' => {
            *at += 1;
            Ok(match first {
                b'l' => Raw::List,
                b'd' => Raw::Dict,
                _ => Raw::End,
            })
        }
        b'i' => {
            *at += 1;
            take_number(bytes, at, b'e').map(|_| Raw::Int)
        }
        b'0'..=b'9' => {
            let length = take_number(bytes, at, b':')?;
            let length = usize::try_from(length).map_err(|_| BencodeError::NumberTooLarge(start))?;
            let rest = bytes.get(*at..).unwrap_or_default();
            let string = rest.get(..length).ok_or(BencodeError::Truncated(bytes.len()))?;
            *at += length;
            Ok(Raw::Bytes(string))
        }
        _ => Err(BencodeError::Unexpected(start)),
    }
}

/// Reads a number up to `terminator` and moves `at` past that.
fn take_number(bytes: &[u8], at: &mut usize, terminator: u8) -> Result<i64, BencodeError> {
    let start = *at;
    let negative = bytes.get(start) == Some(&b'-');
    let first_digit = start + usize::from(negative);
    let mut number = 0i64;
    let mut index = first_digit;
    loop {
        match *bytes.get(index).ok_or(BencodeError::Truncated(bytes.len()))? {
            digit @ b'0'..=b'9' => {
                let digit = i64::from(digit - b'0');
                number = number
                    .checked_mul(10)
                    .and_then(|ten| if negative { ten.checked_sub(digit) } else { ten.checked_add(digit) })
                    .ok_or(BencodeError::NumberTooLarge(start))?;
                index += 1;
            }
            byte if byte == terminator => break,
            _ => return Err(BencodeError::Number(start)),
        }
    }
    let zero_leads = bytes.get(first_digit) == Some(&b'0');
    if index == first_digit || zero_leads && (index > first_digit + 1 || negative) {
        return Err(BencodeError::Number(start));
    }
    *at = index + 1;
    Ok(number)
}

/// Writes the same value with sorted keys. The text has passed [`scan`].
fn reorder(text: &[u8]) -> Vec<u8> {
    /// A list or dictionary being written: what is closed within it, by key where it is a dictionary.
    struct Writing<'a> {
        entries: Option<Vec<(&'a [u8], Vec<u8>)>>,
        key: Option<&'a [u8]>,
        out: Vec<u8>,
    }
    let mut open: Vec<Writing<'_>> = Vec::new();
    let mut at = 0;
    loop {
        let start = at;
        let token = take(text, &mut at).expect("the text passed the scan");
        let done = match token {
            Raw::Bytes(key) if open.last().is_some_and(|top| top.entries.is_some() && top.key.is_none()) => {
                if let Some(top) = open.last_mut() {
                    top.key = Some(key);
                }
                continue;
            }
            Raw::Int | Raw::Bytes(_) => Cow::Borrowed(&text[start..at]),
            Raw::List => {
                open.push(Writing { entries: None, key: None, out: vec![b'l'] });
                continue;
            }
            Raw::Dict => {
                open.push(Writing { entries: Some(Vec::new()), key: None, out: vec![b'd'] });
                continue;
            }
            Raw::End => {
                let mut top = open.pop().expect("the text passed the scan");
                if let Some(mut entries) = top.entries {
                    entries.sort_by_key(|(key, _)| *key);
                    entries.dedup_by_key(|(key, _)| *key);
                    for (key, value) in entries {
                        top.out.extend_from_slice(format!("{}:", key.len()).as_bytes());
                        top.out.extend_from_slice(key);
                        top.out.extend_from_slice(&value);
                    }
                }
                top.out.push(b'e');
                Cow::Owned(top.out)
            }
        };
        let Some(parent) = open.last_mut() else { return done.into_owned() };
        match (&mut parent.entries, parent.key.take()) {
            (Some(entries), Some(key)) => entries.push((key, done.into_owned())),
            _ => parent.out.extend_from_slice(&done),
        }
    }
}

/// Reads canonical text with `bendy`, without recursion.
fn build(canonical: &[u8]) -> Result<Value<'_>, BencodeError> {
    enum Building<'a> {
        List(Vec<Value<'a>>),
        Dict(Vec<(Cow<'a, [u8]>, Value<'a>)>, Option<&'a [u8]>),
    }
    let mut open: Vec<Building<'_>> = Vec::new();
    let decoder = Decoder::new(canonical).with_max_depth(BENCODE_DEPTH_MAX + 1);
    for token in decoder.tokens() {
        // The pass refuses all that `bendy` does, so this does not happen; still it is no reason to panic.
        let token = token.map_err(|_| BencodeError::Unexpected(0))?;
        let value = match token {
            Token::List => {
                open.push(Building::List(Vec::new()));
                continue;
            }
            Token::Dict => {
                open.push(Building::Dict(Vec::new(), None));
                continue;
            }
            Token::String(bytes) => {
                if let Some(Building::Dict(_, key @ None)) = open.last_mut() {
                    *key = Some(bytes);
                    continue;
                }
                Value::Bytes(Cow::Borrowed(bytes))
            }
            Token::Num(digits) => Value::Int(digits.parse().map_err(|_| BencodeError::NumberTooLarge(0))?),
            Token::End => match open.pop() {
                Some(Building::List(mut items)) => {
                    items.shrink_to_fit();
                    Value::List(items)
                }
                Some(Building::Dict(mut entries, _)) => {
                    entries.shrink_to_fit();
                    Value::Dict(Dict(entries))
                }
                None => return Err(BencodeError::Unexpected(0)),
            },
        };
        match open.last_mut() {
            Some(Building::List(items)) => items.push(value),
            Some(Building::Dict(entries, key)) => {
                let key = key.take().ok_or(BencodeError::Unexpected(0))?;
                entries.push((Cow::Borrowed(key), value));
            }
            None => return Ok(value),
        }
    }
    Err(BencodeError::Truncated(canonical.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str) -> Result<String, BencodeError> {
        parse(text.as_bytes()).map(|value| encode(&value).escape_ascii().to_string())
    }

    #[test]
    fn canonical_text_comes_back_the_same_and_borrows() {
        for text in [
            "i0e",
            "i-7e",
            "0:",
            "4:spam",
            "le",
            "de",
            "d1:ai1e1:bl2:xy0:ded1:zi9eeee",
            "i9223372036854775807e",
        ] {
            assert_eq!(check(text).as_deref(), Ok(text));
        }
        let value = parse(b"d1:a1:be").unwrap();
        assert!(matches!(value.get(b"a"), Some(Value::Bytes(Cow::Borrowed(b"b")))));
    }

    #[test]
    fn keys_are_sorted_and_the_first_of_repeated_ones_counts() {
        assert_eq!(check("d1:bi1e1:ai2e1:bi3ee").as_deref(), Ok("d1:ai2e1:bi1ee"));
        assert_eq!(check("ld1:bd1:y0:1:xlee1:aleei5ee").as_deref(), Ok("ld1:ale1:bd1:xle1:y0:eei5ee"));
        assert_eq!(check("d1:a1:x1:a1:ye").as_deref(), Ok("d1:a1:xe"));
    }

    #[test]
    fn malformed_numbers_are_refused() {
        for text in ["i07e", "i-0e", "i00e", "ie", "i-e", "i+1e", "i 1e", "i1", "03:abc", "00:"] {
            assert!(check(text).is_err(), "{text}");
        }
        assert_eq!(check("i9223372036854775808e"), Err(BencodeError::NumberTooLarge(1)));
        assert_eq!(check("i-9223372036854775808e").as_deref(), Ok("i-9223372036854775808e"));
        assert_eq!(check("99999999999999999999:a"), Err(BencodeError::NumberTooLarge(0)));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        use BencodeError::{Trailing, Truncated, Unexpected};
        let cases = [
            ("", Truncated(0)),
            ("e", Unexpected(0)),
            ("x", Unexpected(0)),
            ("l", Truncated(1)),
            ("5:spam", Truncated(6)),
            ("di1ei2ee", Unexpected(1)),
            ("d1:ae", Unexpected(4)),
            ("dlei1ee", Unexpected(1)),
            ("i1ei2e", Trailing(3)),
            ("i1e \n\r\tx", Trailing(7)),
            ("-1:a", Unexpected(0)),
        ];
        for (text, error) in cases {
            assert_eq!(check(text), Err(error), "{text}");
        }
    }

    /// Real torrent files have one, and a client refused them for it.
    #[test]
    fn a_newline_after_the_end_is_passed_over_and_nothing_else() {
        for end in ["", "\n", "\r\n", " \t\n"] {
            assert_eq!(check(&format!("i1e{end}")).as_deref(), Ok("i1e"));
            assert_eq!(check(&format!("d1:bi1e1:ai2ee{end}")).as_deref(), Ok("d1:ai2e1:bi1ee"));
        }
        for end in ["e", "i2e", "\0", "\nx", "\u{a0}", "0:"] {
            assert!(matches!(check(&format!("i1e{end}")), Err(BencodeError::Trailing(_))), "{end:?}");
        }
    }

    #[test]
    fn depth_and_count_are_capped_without_recursion() {
        let nested = |depth: usize| "l".repeat(depth) + &"e".repeat(depth);
        assert!(check(&nested(BENCODE_DEPTH_MAX)).is_ok());
        assert_eq!(check(&nested(BENCODE_DEPTH_MAX + 1)), Err(BencodeError::TooDeep(BENCODE_DEPTH_MAX)));
        assert_eq!(check(&nested(1_000_000)), Err(BencodeError::TooDeep(BENCODE_DEPTH_MAX)));
        let many = format!("l{}e", "le".repeat(BENCODE_TOKENS_MAX));
        assert_eq!(check(&many), Err(BencodeError::TooManyTokens));
    }

    #[test]
    fn a_raw_entry_is_the_bytes_as_they_came() {
        let text = b"d1:z0:4:infod1:bi1e1:ai2ee4:info0:1:ad4:infoi7eee";
        assert_eq!(raw_entry(text, b"info"), Ok(Some(b"d1:bi1e1:ai2ee".as_slice())));
        assert_eq!(raw_entry(text, b"b"), Ok(None));
        assert_eq!(raw_entry(b"4:info", b"info"), Ok(None));
    }

    #[test]
    fn a_prefix_leaves_what_follows() {
        let (value, end) = parse_prefix(b"d8:msg_typei1ee\x00\x01rest").unwrap();
        assert_eq!((value.get(b"msg_type").and_then(Value::as_int), end), (Some(1), 15));
    }

    fn values() -> impl Strategy<Value = Value<'static>> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..6).prop_map(Cow::<[u8]>::Owned);
        let leaf = prop_oneof![any::<i64>().prop_map(Value::Int), bytes().prop_map(Value::Bytes)];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
                proptest::collection::vec((bytes(), inner), 0..6).prop_map(Value::dict),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(value in values()) {
            let text = encode(&value);
            prop_assert_eq!(parse(&text), Ok(value.clone()));
            let (prefix, end) = parse_prefix(&[text.as_slice(), b"e"].concat()).map(|(v, e)| (v.into_owned(), e)).unwrap();
            prop_assert_eq!((prefix, end), (value, text.len()));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(b"ilde0123:-".as_slice())], 0..64)) {
            if let Ok((value, end)) = parse_prefix(&bytes) {
                prop_assert!(end <= bytes.len());
                let again = encode(&value);
                prop_assert_eq!(parse(&again), Ok(value.clone()));
            }
        }

        #[test]
        fn order_of_keys_does_not_matter(entries in proptest::collection::btree_map("[a-c]{0,2}", 0..9i64, 0..6), turn in 0..6usize) {
            let mut items: Vec<_> = entries.iter().map(|(k, v)| format!("{}:{k}i{v}e", k.len())).collect();
            let sorted = format!("d{}e", items.concat());
            let turns = turn % items.len().max(1);
            items.rotate_left(turns);
            prop_assert_eq!(check(&format!("d{}e", items.concat())), Ok(sorted));
        }
    }
}
