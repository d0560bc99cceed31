//! Alerts on their way to an embedder that may be slow: what waits, and what goes when too much does.

use std::collections::VecDeque;
use std::future::pending;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::alert::Alert;

/// The embedder's channel, and what does not fit into it yet.
#[derive(Debug)]
pub(super) struct AlertQueue {
    sender: mpsc::Sender<Alert>,
    waiting: VecDeque<Alert>,
}

impl AlertQueue {
    pub(super) fn new(sender: mpsc::Sender<Alert>) -> Self {
        Self { sender, waiting: VecDeque::new() }
    }

    /// Tells the embedder, now or later.
    pub(super) fn push(&mut self, alert: Alert) {
        if !self.waiting.is_empty() {
            self.wait(alert);
        } else if let Err(TrySendError::Full(alert)) = self.sender.try_send(alert) {
            self.wait(alert);
        }
    }

    /// Whether something does not fit into the channel.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Gives as much of what waits as there is room for.
    pub(super) fn give(&mut self) {
        while let Some(alert) = self.waiting.pop_front() {
            match self.sender.try_send(alert) {
                Ok(()) => {}
                Err(TrySendError::Full(alert)) => return self.waiting.push_front(alert),
                // Nobody listens any more.
                Err(TrySendError::Closed(_)) => self.waiting.clear(),
            }
        }
    }

    /// Waits for room in the channel and puts one into it; for ever when nothing waits. Cancel safe.
    pub(super) async fn drain_one(&mut self) {
        if self.waiting.is_empty() {
            return pending().await;
        }
        match self.sender.reserve().await {
            Ok(permit) => {
                if let Some(alert) = self.waiting.pop_front() {
                    permit.send(alert);
                }
            }
            // Nobody listens any more.
            Err(_) => self.waiting.clear(),
        }
    }

    fn wait(&mut self, alert: Alert) {
        if let Alert::Stats(new) = &alert {
            self.waiting.retain(|old| !matches!(old, Alert::Stats(old) if old.torrent == new.torrent));
        }
        if self.waiting.len() >= WAITING_MAX
            && let Some(oldest) = self.waiting.iter().position(can_be_lost)
        {
            self.waiting.remove(oldest);
        }
        self.waiting.push_back(alert);
    }
}

/// Whether the embedder can do without it: figures tell the same later.
fn can_be_lost(alert: &Alert) -> bool {
    matches!(
        alert,
        Alert::Stats(_) | Alert::PieceFinished { .. } | Alert::PieceFailed { .. } | Alert::Tracker { .. }
    )
}

/// Alerts waiting beyond the channel before the least important go; the others are as few as the commands.
const WAITING_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::TorrentState;
    use crate::ids::{PieceIndex, TorrentId};

    fn finished(piece: u32) -> Alert {
        Alert::PieceFinished { torrent: TorrentId(0), piece: PieceIndex::new(piece) }
    }

    fn state(torrent: u32) -> Alert {
        Alert::StateChanged { torrent: TorrentId(torrent), state: TorrentState::Seeding }
    }

    #[test]
    fn a_reader_that_sleeps_loses_pieces_but_no_states() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut queue = AlertQueue::new(sender);
        queue.push(state(0));
        queue.push(state(1));
        for piece in 0..WAITING_MAX as u32 + 10 {
            queue.push(finished(piece));
        }
        queue.push(state(2));
        assert_eq!(queue.waiting.len(), WAITING_MAX);
        assert_eq!(receiver.try_recv(), Ok(state(0)));
        assert_eq!(queue.waiting.front(), Some(&state(1)));
        assert_eq!(queue.waiting.back(), Some(&state(2)));
        assert_eq!(queue.waiting.get(1), Some(&finished(12)));
    }

    #[test]
    fn what_waits_goes_in_order_when_there_is_room() {
        let (sender, mut receiver) = mpsc::channel(2);
        let mut queue = AlertQueue::new(sender);
        (0..5).for_each(|n| queue.push(state(n)));
        for first in [0, 2] {
            assert_eq!([receiver.try_recv(), receiver.try_recv()], [Ok(state(first)), Ok(state(first + 1))]);
            queue.give();
        }
        assert_eq!((receiver.try_recv(), queue.is_waiting()), (Ok(state(4)), false));
    }

    #[test]
    fn nobody_listening_is_fine() {
        let (sender, receiver) = mpsc::channel(1);
        let mut queue = AlertQueue::new(sender);
        drop(receiver);
        queue.push(state(0));
        assert!(!queue.is_waiting());
    }
}
