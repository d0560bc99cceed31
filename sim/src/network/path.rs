//! What paths do to what passes: jitter, loss, and for datagrams copies and overtaking.
//!
//! All of it is drawn from one stream per sender, in whole numbers. Loss has a state of its own per sender (the last mile
//! is where bursts are made): a packet finds it quiet or in a burst, and each packet may end or begin one.

use serde::{Deserialize, Serialize};
use taipei_engine::rng::Rng;

use crate::scenario::Net;
use crate::units::{SECOND, Share, Time};

/// How much longer than the least a packet takes: a distribution and its mean, as `exponential 5 ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Jitter {
    /// How it is spread.
    pub shape: Shape,
    /// Its mean.
    pub mean: Time,
}

/// How jitter is spread around its mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// There is none.
    #[default]
    None,
    /// Anything from nothing to twice the mean.
    Uniform,
    /// Mostly little, seldom five times the mean.
    Exponential,
    /// Mostly little, seldom twelve times the mean.
    Pareto,
}

/// Loss in bursts: two states, and packets are dropped in one of them. A burst is of packets that follow each other: who
/// sends nothing for [`BURST_SILENCE`] finds it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// Of the packets outside of a burst: each begins one.
    pub enter: Share,
    /// Of the packets inside: each ends it.
    pub leave: Share,
    /// Of the packets inside: they are dropped.
    pub drop: Share,
}

/// Datagrams that are overtaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reorder {
    /// Of all datagrams.
    pub share: Share,
    /// How much later they come.
    pub by: Time,
}

/// The paths that begin at one sender.
#[derive(Debug)]
pub struct Sender {
    rng: Rng,
    in_burst: bool,
    /// When the last packet left.
    sent: u64,
    /// Of the packets, while a fault makes it so: they are lost as well.
    worse: Option<Share>,
    /// How many that were.
    worse_count: u64,
    /// Packets that came late or twice, or were lost in a burst.
    disturbed: u64,
}

impl Sender {
    /// With nothing sent yet.
    pub fn new(rng: Rng) -> Self {
        Self { rng, in_burst: false, sent: 0, worse: None, worse_count: 0, disturbed: 0 }
    }

    /// Whether the next packet is lost, which leaves at `now`.
    pub fn loses(&mut self, now: u64, net: &Net) -> bool {
        let mut lost = net.loss.is_some_and(|share| self.draws(share));
        if let Some(burst) = net.burst {
            let silent = now.saturating_sub(std::mem::replace(&mut self.sent, now));
            self.in_burst &= silent < BURST_SILENCE;
            let turns = if self.in_burst { burst.leave } else { burst.enter };
            self.in_burst ^= self.draws(turns);
            if self.in_burst && self.draws(burst.drop) {
                self.disturbed += 1;
                lost = true;
            }
        }
        if let Some(share) = self.worse
            && self.draws(share)
        {
            self.worse_count += 1;
            lost = true;
        }
        lost
    }

    /// How much later the next packet comes.
    pub fn jitter(&mut self, net: &Net) -> u64 {
        let Jitter { shape, mean } = net.jitter;
        let late = match shape {
            Shape::None => 0,
            Shape::Uniform => self.rng.below(2 * mean.0 + 1),
            Shape::Exponential => self.quantile(&EXPONENTIAL, mean.0),
            Shape::Pareto => self.quantile(&PARETO, mean.0),
        };
        self.disturbed += u64::from(late > 0);
        late
    }

    /// When the copies of the next datagram come, which leaves at `now`: how much later than the least that the path takes;
    /// none where it is lost.
    pub fn copies(&mut self, now: u64, net: &Net) -> impl Iterator<Item = u64> + use<> {
        let first = (!self.loses(now, net)).then(|| self.late(net));
        let second = net.duplicate.filter(|_| first.is_some()).filter(|share| self.draws(*share));
        let second = second.map(|_| self.late(net));
        self.disturbed += u64::from(second.is_some());
        first.into_iter().chain(second)
    }

    fn late(&mut self, net: &Net) -> u64 {
        let overtaken = net.reorder.filter(|reorder| self.draws(reorder.share));
        self.disturbed += u64::from(overtaken.is_some());
        self.jitter(net) + overtaken.map_or(0, |reorder| reorder.by.0)
    }

    /// How often a packet came later than the least, or twice, or was lost in a burst.
    pub fn disturbed(&self) -> u64 {
        self.disturbed
    }

    /// From now on more is lost.
    pub fn worsen(&mut self, share: Share) {
        (self.worse, self.worse_count) = (Some(share), 0);
    }

    /// No longer. Gives how much that was.
    pub fn recover(&mut self) -> u64 {
        self.worse = None;
        self.worse_count
    }

    fn draws(&mut self, share: Share) -> bool {
        self.rng.below(share.of) < share.part
    }

    /// A draw by a table of quantiles, straight between them.
    fn quantile(&mut self, table: &[u32; STEPS + 1], mean: u64) -> u64 {
        let draw = self.rng.next_u64();
        let step = (draw >> 59) as usize;
        let part = u128::from(draw & ((1 << 59) - 1));
        let (low, high) = (u128::from(table[step]), u128::from(table[step + 1]));
        let times = (low << 59) + (high - low) * part;
        // A table counts in 1/1024, which are 10 bits more.
        u64::try_from((times * u128::from(mean)) >> 69).unwrap_or(u64::MAX)
    }
}

impl TryFrom<String> for Jitter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (shape, mean) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let shape = match shape {
            "none" if mean.is_empty() => return Ok(Self::default()),
            "uniform" => Shape::Uniform,
            "exponential" => Shape::Exponential,
            "pareto" => Shape::Pareto,
            _ => {
                return Err(format!(
                    "`{text}`: wants `none`, or `uniform`, `exponential` or `pareto` and a time"
                ));
            }
        };
        let mean = Time::try_from(mean.to_owned()).map_err(|error| error.to_string())?;
        if mean.0 > JITTER_MAX {
            return Err(format!("`{text}`: wants an hour at most"));
        }
        Ok(Self { shape, mean })
    }
}

impl From<Jitter> for String {
    fn from(jitter: Jitter) -> Self {
        let shape = match jitter.shape {
            Shape::None => return "none".to_owned(),
            Shape::Uniform => "uniform",
            Shape::Exponential => "exponential",
            Shape::Pareto => "pareto",
        };
        format!("{shape} {}", jitter.mean.exact())
    }
}

/// What disturbs a link for longer than it is quiet is an outage, and no burst.
const BURST_SILENCE: u64 = 5 * SECOND;
const STEPS: usize = 32;
const JITTER_MAX: u64 = 3_600_000_000_000;

/// Quantiles of `1 - e^-x`, in 1/1024 of the mean; the last one is where the straight lines have that mean.
const EXPONENTIAL: [u32; STEPS + 1] = [
    0, 33, 66, 101, 137, 174, 213, 253, 295, 338, 384, 431, 481, 534, 589, 648, 710, 776, 847, 922, 1004,
    1093, 1191, 1299, 1420, 1556, 1714, 1901, 2129, 2424, 2839, 3549, 5434,
];
/// The same of `1 - (1 + x)^-2.5`.
const PARETO: [u32; STEPS + 1] = [
    0, 20, 40, 62, 84, 108, 133, 159, 187, 217, 248, 282, 318, 356, 397, 442, 491, 544, 602, 666, 738, 818,
    910, 1015, 1138, 1285, 1464, 1691, 1993, 2423, 3120, 4608, 12418,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::MILLISECOND;

    fn sender() -> Sender {
        Sender::new(Rng::stream(7, "test", 0))
    }

    fn share(part: u64, of: u64) -> Share {
        Share { part, of }
    }

    #[test]
    fn loss_comes_as_often_as_it_is_told() {
        let net = Net { loss: Some(share(1, 50)), ..Net::default() };
        let mut sender = sender();
        let lost = (0..100_000).filter(|_| sender.loses(0, &net)).count();
        assert!((1_850..2_150).contains(&lost), "{lost} of 100,000 at 2 %");
        assert!((0..1_000).all(|_| !sender.loses(0, &Net::default())));
    }

    #[test]
    fn bursts_have_their_length_and_their_share() {
        let burst = Burst { enter: share(1, 100), leave: share(1, 10), drop: share(1, 2) };
        let net = Net { burst: Some(burst), ..Net::default() };
        let mut sender = sender();
        let (mut inside, mut lost, mut bursts, mut was_in) = (0u64, 0u64, 0u64, false);
        for _ in 0..200_000 {
            lost += u64::from(sender.loses(0, &net));
            inside += u64::from(sender.in_burst);
            bursts += u64::from(sender.in_burst && !was_in);
            was_in = sender.in_burst;
        }
        // One packet in eleven finds a burst, of ten packets each, and half of those are lost.
        assert!((16_500..20_000).contains(&inside), "{inside} inside");
        assert!((9..=11).contains(&(inside / bursts)), "{inside} in {bursts} bursts");
        assert!((inside * 45 / 100..inside * 55 / 100).contains(&lost), "{lost} lost of {inside}");
        // Who sends seldom finds none that lasts.
        let seldom =
            (0..100_000).filter(|n| sender.loses(n * BURST_SILENCE, &net) && sender.in_burst).count();
        assert!((450..550).contains(&seldom), "{seldom} lost");
    }

    #[test]
    fn each_shape_of_jitter_has_its_mean_and_its_tail() {
        for (text, most, over_twice) in [
            ("uniform 5 ms", 10 * MILLISECOND, 0..1),
            ("exponential 5 ms", 27 * MILLISECOND, 12_500..14_500),
            ("pareto 5 ms", 61 * MILLISECOND, 11_000..13_000),
        ] {
            let net = Net { jitter: Jitter::try_from(text.to_owned()).expect(text), ..Net::default() };
            let mut sender = sender();
            let drawn: Vec<u64> = (0..100_000).map(|_| sender.jitter(&net)).collect();
            let mean = drawn.iter().sum::<u64>() / 100_000;
            assert!((4_900_000..5_100_000).contains(&mean), "{text}: mean {mean} ns");
            assert!(drawn.iter().all(|late| *late <= most), "{text}: {:?}", drawn.iter().max());
            let late = drawn.iter().filter(|late| **late > 10 * MILLISECOND).count();
            assert!(over_twice.contains(&late), "{text}: {late} over twice the mean");
        }
    }

    #[test]
    fn datagrams_come_never_once_or_twice_and_some_are_overtaken() {
        let net = Net {
            loss: Some(share(1, 10)),
            duplicate: Some(share(1, 20)),
            reorder: Some(Reorder { share: share(1, 4), by: Time(MILLISECOND) }),
            ..Net::default()
        };
        let mut sender = sender();
        let (mut by_count, mut late) = ([0; 3], 0);
        for _ in 0..10_000 {
            let copies: Vec<u64> = sender.copies(0, &net).collect();
            by_count[copies.len()] += 1;
            late += copies.iter().filter(|late| **late == MILLISECOND).count();
        }
        assert!((900..1_100).contains(&by_count[0]), "{by_count:?}");
        assert!((400..500).contains(&by_count[2]), "{by_count:?}");
        assert!((2_200..2_600).contains(&late), "{late}");
        assert_eq!(sender.disturbed(), (late + by_count[2]) as u64, "each is counted");
    }

    #[test]
    fn what_a_fault_loses_is_counted_until_it_is_over() {
        let mut sender = sender();
        sender.worsen(share(1, 1));
        assert!((0..5).all(|_| sender.loses(0, &Net::default())));
        assert_eq!(sender.recover(), 5);
        assert!(!sender.loses(0, &Net::default()));
    }

    #[test]
    fn jitter_is_written_as_it_is_read() {
        for text in ["none", "uniform 5 ms", "exponential 250 us", "pareto 1 s"] {
            assert_eq!(Jitter::try_from(text.to_owned()).map(String::from).as_deref(), Ok(text));
        }
        for text in ["", "none 5 ms", "normal 5 ms", "pareto", "uniform 5", "uniform 2 h"] {
            assert!(Jitter::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
