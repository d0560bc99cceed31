//! Whether the network is back.
//!
//! A living connection says something every two minutes, and a tracker or a peer that is tried answers sooner. When
//! nothing was heard for longer, there may have been no network; whatever is heard then ends that, and those who could not
//! be reached meanwhile need not wait for what their failures have earned them. It never looks at the time by itself.

use crate::input::Input;
use crate::limits::SILENCE;
use crate::time::Instant;

/// When something was last heard.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    heard_at: Instant,
}

impl Silence {
    /// Something was heard. Since when nothing had been, if that was long.
    pub(crate) fn on_heard(&mut self, now: Instant) -> Option<Instant> {
        let before = std::mem::replace(&mut self.heard_at, now);
        (now.since(before) >= SILENCE).then_some(before)
    }
}

/// Whether this comes over the network.
pub(crate) fn is_heard(input: &Input) -> bool {
    match input {
        Input::Accepted { .. }
        | Input::Connected { .. }
        | Input::Received { .. }
        | Input::Datagram { .. } => true,
        Input::Resolved { result, .. } => result.is_ok(),
        Input::HttpDone { result, .. } => result.is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_silence_is_told() {
        let at = |seconds: u64| Instant(seconds * 1_000_000_000);
        let mut silence = Silence::default();
        assert_eq!(silence.on_heard(at(100)), None);
        assert_eq!(silence.on_heard(at(220)), None, "two minutes are no more than keep-alives");
        assert_eq!(silence.on_heard(at(370)), Some(at(220)));
        assert_eq!(silence.on_heard(at(371)), None);
    }
}
