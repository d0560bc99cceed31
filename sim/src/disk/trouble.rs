//! What a disk was told to do wrong for a while: calls that fail, jobs that are slow, reads that end early, syncs that
//! lie, writes that are refused.

use taipei_engine::disk::StorageErrorKind;
use taipei_engine::rng::Rng;

use crate::trace::mix;
use crate::units::TimeRange;

/// What a disk does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Calls fail.
    Call {
        /// From this one on, counted from 1 when it begins.
        call: u64,
        /// How many.
        span: Span,
        /// How.
        kind: StorageErrorKind,
    },
    /// Each job takes so much longer, nanoseconds; drawn for each.
    Slow(TimeRange),
    /// Each read ends before what was asked for.
    ShortRead,
    /// A sync returns at once and does nothing.
    SyncLies,
    /// Nothing can be written.
    ReadOnly,
}

/// How many calls fail, once they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// So many.
    Calls(u64),
    /// All for so long, nanoseconds.
    Time(u64),
}

/// What is wrong with one disk now.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    active: Vec<Active>,
    struck: Vec<(usize, u64)>,
}

#[derive(Debug)]
struct Active {
    number: usize,
    trouble: Trouble,
    calls: u64,
    until: Option<u64>,
    effects: u64,
}

impl Troubles {
    pub(super) fn begin(&mut self, number: usize, trouble: Trouble) {
        self.active.push(Active { number, trouble, calls: 0, until: None, effects: 0 });
    }

    pub(super) fn end(&mut self, number: usize) -> u64 {
        let at = self.active.iter().position(|active| active.number == number);
        at.map_or(0, |at| self.active.remove(at).effects)
    }

    /// Failing calls that have begun to fail, each with the time at which it is over.
    pub(super) fn take_struck(&mut self) -> Vec<(usize, u64)> {
        std::mem::take(&mut self.struck)
    }

    /// A call is made: how it fails, if it does.
    pub(super) fn on_call(&mut self, now: u64, writes: bool) -> Option<StorageErrorKind> {
        let mut failed = None;
        for active in &mut self.active {
            let fails = match active.trouble {
                Trouble::Call { call, span, kind } => {
                    active.calls += 1;
                    let fails = active.calls >= call
                        && match span {
                            Span::Calls(count) => active.calls - call < count,
                            Span::Time(_) => active.until.is_none_or(|until| now < until),
                        };
                    let over = match span {
                        Span::Calls(count) => {
                            (active.calls - call.min(active.calls) + 1 == count).then_some(now)
                        }
                        Span::Time(time) => active.until.is_none().then_some(now + time),
                    };
                    if let Some(over) = over.filter(|_| fails) {
                        active.until = Some(over);
                        self.struck.push((active.number, over));
                    }
                    fails.then_some(kind)
                }
                Trouble::ReadOnly => writes.then_some(StorageErrorKind::ReadOnly),
                _ => None,
            };
            active.effects += u64::from(fails.is_some());
            failed = failed.or(fails);
        }
        failed
    }

    /// How many of `there` bytes a read gives; `call` numbers it.
    pub(super) fn on_read(&mut self, there: usize, call: u64) -> usize {
        let short = |active: &&mut Active| active.trouble == Trouble::ShortRead;
        match self.active.iter_mut().find(short) {
            Some(active) if there > 0 => {
                active.effects += 1;
                (mix(call) % there as u64) as usize
            }
            _ => there,
        }
    }

    /// Whether a sync does nothing.
    pub(super) fn on_sync(&mut self) -> bool {
        let lies = |active: &&mut Active| active.trouble == Trouble::SyncLies;
        self.active.iter_mut().find(lies).map(|active| active.effects += 1).is_some()
    }

    /// How much longer a job takes.
    pub(super) fn on_job(&mut self, rng: &mut Rng) -> u64 {
        let mut longer = 0;
        for active in &mut self.active {
            if let Trouble::Slow(range) = active.trouble {
                active.effects += 1;
                longer += range.low + rng.below(range.high - range.low + 1);
            }
        }
        longer
    }
}
