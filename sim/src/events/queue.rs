//! What is to happen, the first first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use slab::Slab;

/// Events by when they happen. What is sorted is small: the events themselves stay where they are.
#[derive(Debug)]
pub(super) struct Queue<E> {
    order: BinaryHeap<Reverse<(When, usize)>>,
    events: Slab<E>,
}

/// The order of events: by the first figure, between equals by the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct When {
    pub(super) at: u64,
    /// When it was to happen, if its machine slept then: what was put off happens first, and as it would have.
    pub(super) since: u64,
    pub(super) draw: u32,
    /// No two are equal.
    pub(super) sequence: u64,
}

impl<E> Queue<E> {
    pub(super) fn new() -> Self {
        Self { order: BinaryHeap::new(), events: Slab::new() }
    }

    pub(super) fn push(&mut self, when: When, event: E) {
        let place = self.events.insert(event);
        self.order.push(Reverse((when, place)));
    }

    pub(super) fn pop(&mut self) -> Option<(When, E)> {
        let Reverse((when, place)) = self.order.pop()?;
        Some((when, self.events.remove(place)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_comes_first_and_what_was_put_off_before_what_is_due() {
        let mut queue = Queue::new();
        let all = [(2, 2, 0, "late"), (1, 1, 9, "drawn"), (1, 1, 1, "due"), (1, 0, 9, "put off")];
        for (sequence, (at, since, draw, name)) in (0..).zip(all) {
            queue.push(When { at, since, draw, sequence }, name);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, name)| name).collect();
        assert_eq!(order, ["put off", "due", "drawn", "late"]);
    }
}
