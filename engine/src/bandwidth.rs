//! Grants: how many bytes a connection may read, so that what was received and is not yet on disk stays bounded.
//!
//! A connection begins with a window. What it reads is granted again at once while memory allows, and later when it
//! does not: the owner never stops taking input, readers wait for grants. Unlimited writing is one standing grant.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use crate::ids::ConnectionId;
use crate::output::Output;
use crate::time::Instant;

/// The memory budget and the grants that keep it.
#[derive(Debug)]
pub(crate) struct Bandwidth {
    budget_bytes: u64,
    buffered_bytes: u64,
    /// Bytes read and not granted again, by connection.
    owed: BTreeMap<ConnectionId, u64>,
}

impl Bandwidth {
    pub(crate) fn new(budget_bytes: u64) -> Self {
        Self { budget_bytes, buffered_bytes: 0, owed: BTreeMap::new() }
    }

    /// A connection begins.
    pub(crate) fn open(&mut self, connection: ConnectionId, outputs: &mut VecDeque<Output>) {
        outputs.push_back(Output::Grant { connection, read_bytes: READ_WINDOW, write_bytes: STANDING });
    }

    /// A connection is gone.
    pub(crate) fn close(&mut self, connection: ConnectionId) {
        self.owed.remove(&connection);
    }

    /// A connection spent some of its grant.
    pub(crate) fn on_read(&mut self, connection: ConnectionId, bytes: u64) {
        *self.owed.entry(connection).or_default() += bytes;
    }

    /// Received payload that is not yet on disk changed by this much.
    pub(crate) fn on_buffered(&mut self, before: u64, after: u64) {
        self.buffered_bytes = self.buffered_bytes + after - before;
    }

    /// How far the budget is exceeded.
    pub(crate) fn excess(&self) -> u64 {
        self.buffered_bytes.saturating_sub(self.budget_bytes)
    }

    /// Grants again what was read, while memory allows.
    pub(crate) fn settle(&mut self, outputs: &mut VecDeque<Output>) {
        if self.excess() > 0 {
            return;
        }
        while let Some((connection, read_bytes)) = self.owed.pop_first() {
            outputs.push_back(Output::Grant { connection, read_bytes, write_bytes: 0 });
        }
    }
}

/// How many new connections may be dialled: a bucket that fills steadily.
#[derive(Debug)]
pub(crate) struct Dials {
    per_second: u64,
    /// In billionths of a dial.
    level: u64,
    filled: Instant,
}

impl Dials {
    pub(crate) fn new(per_second: u32) -> Self {
        let per_second = u64::from(per_second.max(1));
        Self { per_second, level: per_second * DIAL, filled: Instant::START }
    }

    /// Takes one; else says when there is one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let gained = (now.since(self.filled).as_nanos() as u64).saturating_mul(self.per_second);
        self.level = self.level.saturating_add(gained).min(self.per_second * DIAL);
        self.filled = now;
        if self.level >= DIAL {
            self.level -= DIAL;
            return Ok(());
        }
        Err(Instant(now.0 + (DIAL - self.level).div_ceil(self.per_second)))
    }
}

/// What a connection may have read and not yet handed over: two of the largest reads.
const READ_WINDOW: u64 = 1 << 20;
const STANDING: u64 = u64::MAX / 2;
const DIAL: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_stops_over_budget_and_goes_on_below() {
        let mut bandwidth = Bandwidth::new(100);
        let mut outputs = VecDeque::new();
        let connection = ConnectionId::dialled(1);
        bandwidth.on_read(connection, 150);
        bandwidth.on_buffered(0, 150);
        bandwidth.settle(&mut outputs);
        assert_eq!((outputs.len(), bandwidth.excess()), (0, 50));
        bandwidth.on_buffered(150, 90);
        bandwidth.settle(&mut outputs);
        assert_eq!(outputs, [Output::Grant { connection, read_bytes: 150, write_bytes: 0 }]);
    }

    #[test]
    fn dials_are_paced() {
        let mut dials = Dials::new(10);
        let now = Instant(5_000_000_000);
        assert_eq!((0..10).filter(|_| dials.take(now).is_ok()).count(), 10);
        let next = dials.take(now).unwrap_err();
        assert_eq!(next.since(now).as_millis(), 100);
        assert!(dials.take(next).is_ok() && dials.take(next).is_err());
    }
}
