//! Quantities as scenario files write them: a number, a space, a unit. Everything becomes an integer here.
//!
//! Fractions of a unit are taken where they come out whole (`1.5 s` is 1 500 000 000 ns); nothing is rounded.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// Simulated time or a length of it, in nanoseconds: `20 ms`, `5 s`, `90 min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Time(pub u64);

/// A time, or two with `..` between them: both ends may be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct TimeRange {
    /// Nanoseconds, the least.
    pub low: u64,
    /// Nanoseconds, the most; never below `low`.
    pub high: u64,
}

/// A count, or two with `..` between them: `17`, `"1 .. 200"`; both ends may be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "CountText")]
pub struct CountRange {
    /// The least.
    pub low: u64,
    /// The most; never below `low`.
    pub high: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum CountText {
    One(u64),
    Range(String),
}

/// A time forwards or backwards, in nanoseconds: `8760 h`, `-3 h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Jump(pub i64);

/// Bytes: `512 B`, `16 KiB`, `64 MiB`, `1 GiB`, also `kB`, `MB`, `GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(pub u64);

/// How much a queue holds: what passes in a time, `200 ms`, or bytes, `64 KiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Depth {
    /// What passes in this time.
    Time(Time),
    /// This many bytes.
    Bytes(Size),
}

/// Bits per second: `10 Mbit/s`, `1 Gbit/s`, `800 kB/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate(pub u64);

/// A part of a whole: `1/2000` or `0.5 %`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Share {
    /// Above the line, at most `of`.
    pub part: u64,
    /// Below the line, never zero.
    pub of: u64,
}

/// A size, or two with `..` between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SizeRange {
    /// Bytes, the least.
    pub low: u64,
    /// Bytes, the most; never below `low`.
    pub high: u64,
}

/// A rate, or two with `..` between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RateRange {
    /// Bits per second, the least.
    pub low: u64,
    /// Bits per second, the most; never below `low`.
    pub high: u64,
}

/// The most that is allowed: `<= 4 MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SizeMax(pub u64);

/// Why a quantity is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// There is no unit, or one that does not fit here.
    #[error("`{text}`: wants a number, a space and one of {units}")]
    Unit {
        /// As written.
        text: String,
        /// What would do.
        units: String,
    },
    /// What stands before the unit is no number.
    #[error("`{0}`: not a number")]
    Number(String),
    /// It does not come out whole, or is too large to count.
    #[error("`{0}`: too large, or finer than can be counted")]
    Range(String),
    /// The second end of a range is below the first.
    #[error("`{0}`: the range runs backwards")]
    Backwards(String),
    /// Not of the form `<= 4 MiB`.
    #[error("`{0}`: wants `<=`, a space and a size")]
    Bound(String),
    /// Not of the form `1/8` or `5 %`, or more than the whole.
    #[error("`{0}`: wants a part of a whole, as `1/8` or `5 %`")]
    Share(String),
}

const TIMES: &[(&str, u64)] =
    &[("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", SECOND), ("min", 60 * SECOND), ("h", 3600 * SECOND)];
const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];
const RATES: &[(&str, u64)] = &[
    ("bit/s", 1),
    ("kbit/s", 1_000),
    ("Mbit/s", 1_000_000),
    ("Gbit/s", 1_000_000_000),
    ("B/s", 8),
    ("kB/s", 8_000),
    ("MB/s", 8_000_000),
    ("KiB/s", 8 << 10),
    ("MiB/s", 8 << 20),
];

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
pub const MILLISECOND: u64 = 1_000_000;

fn quantity(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let unknown = || UnitError::Unit {
        text: text.to_owned(),
        units: units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" "),
    };
    let (number, unit) = text.trim().split_once(' ').ok_or_else(unknown)?;
    let unit = unit.trim();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(unknown)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || number.ends_with('.') {
        return Err(UnitError::Number(text.to_owned()));
    }
    let range = || UnitError::Range(text.to_owned());
    let scale =
        u32::try_from(fraction.len()).ok().and_then(|places| 10u128.checked_pow(places)).ok_or_else(range)?;
    let mantissa: u128 = format!("{whole}{fraction}").parse().map_err(|_| range())?;
    let product = mantissa.checked_mul(u128::from(*factor)).ok_or_else(range)?;
    if product % scale != 0 {
        return Err(range());
    }
    u64::try_from(product / scale).map_err(|_| range())
}

impl TryFrom<String> for Time {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        quantity(&text, TIMES).map(Self)
    }
}

impl TryFrom<String> for Jump {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        let (sign, time) = text.strip_prefix('-').map_or((1, text.as_str()), |time| (-1, time));
        let time = i64::try_from(quantity(time, TIMES)?).map_err(|_| UnitError::Range(text.clone()))?;
        Ok(Self(sign * time))
    }
}

/// Both ends of a range; of a single quantity it is both.
fn ends(text: &str, read: impl Fn(&str) -> Result<u64, UnitError>) -> Result<(u64, u64), UnitError> {
    let (low, high) = text.split_once("..").unwrap_or((text, text));
    let (low, high) = (read(low)?, read(high)?);
    if high < low { Err(UnitError::Backwards(text.to_owned())) } else { Ok((low, high)) }
}

impl TryFrom<String> for TimeRange {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        ends(&text, |end| quantity(end, TIMES)).map(|(low, high)| Self { low, high })
    }
}

impl TryFrom<String> for SizeRange {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        ends(&text, |end| quantity(end, SIZES)).map(|(low, high)| Self { low, high })
    }
}

impl TryFrom<String> for RateRange {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        ends(&text, |end| quantity(end, RATES)).map(|(low, high)| Self { low, high })
    }
}

impl TryFrom<String> for CountRange {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        let count = |end: &str| end.trim().parse().map_err(|_| UnitError::Number(text.clone()));
        ends(&text, count).map(|(low, high)| Self { low, high })
    }
}

impl TryFrom<CountText> for CountRange {
    type Error = UnitError;

    fn try_from(text: CountText) -> Result<Self, UnitError> {
        let text = match text {
            CountText::One(count) => return Ok(Self { low: count, high: count }),
            CountText::Range(text) => text,
        };
        Self::try_from(text)
    }
}

impl TryFrom<String> for Size {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        quantity(&text, SIZES).map(Self)
    }
}

impl TryFrom<String> for Depth {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        match quantity(&text, TIMES) {
            Err(UnitError::Unit { text, units }) => {
                let sizes: Vec<&str> = SIZES.iter().map(|(name, _)| *name).collect();
                let units = format!("{units} {}", sizes.join(" "));
                let size = quantity(&text, SIZES).map_err(|error| match error {
                    UnitError::Unit { text, .. } => UnitError::Unit { text, units },
                    error => error,
                })?;
                Ok(Self::Bytes(Size(size)))
            }
            time => Ok(Self::Time(Time(time?))),
        }
    }
}

impl Depth {
    /// How long what it holds takes at a rate, nanoseconds.
    pub fn lasts_at(self, rate: Rate) -> u64 {
        match self {
            Self::Time(time) => time.0,
            Self::Bytes(size) => {
                let nanobits = u128::from(size.0) * 8 * u128::from(SECOND);
                u64::try_from(nanobits / u128::from(rate.0)).unwrap_or(u64::MAX)
            }
        }
    }
}

impl TryFrom<String> for SizeMax {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        let size = text.trim().strip_prefix("<=").ok_or_else(|| UnitError::Bound(text.clone()))?;
        quantity(size, SIZES).map(Self)
    }
}

impl TryFrom<String> for Rate {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        match quantity(&text, RATES)? {
            0 => Err(UnitError::Range(text)),
            rate => Ok(Self(rate)),
        }
    }
}

impl TryFrom<String> for Share {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        let wrong = || UnitError::Share(text.clone());
        let (part, of) = if let Some((part, of)) = text.split_once('/') {
            (part.trim().parse().map_err(|_| wrong())?, of.trim().parse().map_err(|_| wrong())?)
        } else {
            // A thousandth of a percent is fine enough.
            (quantity(&text, &[("%", 1_000)]).map_err(|_| wrong())?, 100_000)
        };
        if of == 0 || part > of { Err(wrong()) } else { Ok(Self { part, of }) }
    }
}

/// As a scenario file would write it, so that it reads back as the same number: the largest unit that it is whole in.
fn write_exact(number: u64, units: &[(&str, u64)]) -> String {
    let whole =
        units.iter().filter(|(_, factor)| number.is_multiple_of(*factor) && (number > 0 || *factor == 1));
    let (name, factor) = whole.max_by_key(|(_, factor)| *factor).unwrap_or(&units[0]);
    format!("{} {name}", number / factor)
}

impl Time {
    /// As a scenario file would write it; to the nanosecond, unlike what is displayed.
    pub fn exact(self) -> String {
        write_exact(self.0, TIMES)
    }

    /// The same, cut to whole numbers of `unit` nanoseconds.
    pub fn exact_to(self, unit: u64) -> String {
        Self(self.0 / unit * unit).exact()
    }
}

impl Rate {
    /// As a scenario file would write it.
    pub fn exact(self) -> String {
        write_exact(self.0, RATES)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.exact())
    }
}

impl Serialize for TimeRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let low = write_exact(self.low, TIMES);
        if self.low == self.high {
            serializer.serialize_str(&low)
        } else {
            serializer.collect_str(&format_args!("{low} .. {}", write_exact(self.high, TIMES)))
        }
    }
}

impl Serialize for CountRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.low == self.high {
            serializer.serialize_u64(self.low)
        } else {
            serializer.collect_str(&format_args!("{} .. {}", self.low, self.high))
        }
    }
}

impl Serialize for Jump {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sign = if self.0 < 0 { "-" } else { "" };
        serializer.collect_str(&format_args!("{sign}{}", write_exact(self.0.unsigned_abs(), TIMES)))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&write_exact(self.0, SIZES))
    }
}

impl Serialize for Depth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Time(time) => time.serialize(serializer),
            Self::Bytes(size) => size.serialize(serializer),
        }
    }
}

impl Serialize for SizeMax {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("<= {}", write_exact(self.0, SIZES)))
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.exact())
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}/{}", self.part, self.of))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0 / SECOND, self.0 % SECOND / MILLISECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Result<u64, UnitError> {
        Time::try_from(text.to_owned()).map(|time| time.0)
    }

    #[test]
    fn each_unit_of_time_counts_nanoseconds() {
        for (text, want) in [
            ("7 ns", 7),
            ("3 us", 3_000),
            ("20 ms", 20 * MILLISECOND),
            ("1.5 s", 1_500 * MILLISECOND),
            ("90 min", 5_400 * SECOND),
            ("2 h", 7_200 * SECOND),
        ] {
            assert_eq!(time(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn each_unit_of_size_and_rate_is_whole() {
        for (text, want) in [("512 B", 512), ("16 KiB", 16384), ("1 GiB", 1 << 30), ("2 MB", 2_000_000)] {
            assert_eq!(Size::try_from(text.to_owned()), Ok(Size(want)), "{text}");
        }
        for (text, want) in [("10 Mbit/s", 10_000_000), ("800 kB/s", 6_400_000), ("1 MiB/s", 8 << 20)] {
            assert_eq!(Rate::try_from(text.to_owned()), Ok(Rate(want)), "{text}");
        }
        assert_eq!(SizeMax::try_from("<= 4 MiB".to_owned()), Ok(SizeMax(4 << 20)));
    }

    #[test]
    fn what_is_written_reads_back_as_the_same() {
        for text in ["7 ns", "90 min", "2500 us", "1 ms .. 20 ms"] {
            let range = TimeRange::try_from(text.to_owned()).expect("reads");
            let written = toml::Value::try_from(range).expect("writes");
            let again = written.as_str().map(|text| TimeRange::try_from(text.to_owned()));
            assert_eq!(again, Some(Ok(range)), "{text}");
        }
        for number in [0, 1, 8, 8_000, 1 << 23, 10_000_000, 10_000_001] {
            assert_eq!(Rate::try_from(write_exact(number.max(1), RATES)), Ok(Rate(number.max(1))));
            assert_eq!(Size::try_from(write_exact(number, SIZES)), Ok(Size(number)));
        }
        assert_eq!(toml::Value::try_from(Jump(-60_000_000_000)), Ok(toml::Value::from("-1 min")));
        assert_eq!(toml::Value::try_from(SizeMax(4 << 20)), Ok(toml::Value::from("<= 4 MiB")));
        assert_eq!(toml::Value::try_from(Share { part: 1, of: 10 }), Ok(toml::Value::from("1/10")));
    }

    #[test]
    fn a_number_without_its_unit_is_refused() {
        for text in
            ["20", "20ms", "ms", "", "20 MiB", "-3 s", "1e3 s", "0.5 ns", "1. s", "99999999999999999999 h"]
        {
            assert!(time(text).is_err(), "{text}");
        }
        assert!(Rate::try_from("0 bit/s".to_owned()).is_err());
        assert!(SizeMax::try_from("4 MiB".to_owned()).is_err());
    }

    #[test]
    fn a_queue_is_as_deep_as_a_time_or_as_bytes() {
        let depth = |text: &str| Depth::try_from(text.to_owned());
        assert_eq!(depth("200 ms").map(|depth| depth.lasts_at(Rate(1))), Ok(200 * MILLISECOND));
        assert_eq!(depth("1 kB").map(|depth| depth.lasts_at(Rate(8_000))), Ok(SECOND));
        for text in ["64 KiB", "200 ms"] {
            let written = depth(text).map(|depth| toml::Value::try_from(depth).expect("writes"));
            assert_eq!(written, Ok(toml::Value::from(text)));
        }
        let error = depth("64").expect_err("no unit").to_string();
        assert!(error.contains("ms") && error.contains("KiB"), "{error}");
    }

    #[test]
    fn ranges_and_shares_have_both_ends() {
        assert_eq!(
            TimeRange::try_from("1 ms .. 20 ms".to_owned()),
            Ok(TimeRange { low: MILLISECOND, high: 20 * MILLISECOND })
        );
        assert!(TimeRange::try_from("20 ms .. 1 ms".to_owned()).is_err());
        assert_eq!(Share::try_from("1/2000".to_owned()), Ok(Share { part: 1, of: 2000 }));
        assert_eq!(Share::try_from("0.5 %".to_owned()), Ok(Share { part: 500, of: 100_000 }));
        assert!(Share::try_from("3/2".to_owned()).is_err());
        assert!(Share::try_from("1/0".to_owned()).is_err());
    }
}
