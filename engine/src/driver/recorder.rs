//! Sees what goes into the engine and what comes out, for recordings.

use crate::input::Input;
use crate::output::Output;
use crate::record::{Recording, Stop};
use crate::time::Instant;

/// Told of everything that the engine is told and says, in order, by the owner task. It must not wait.
pub trait Recorder: Send {
    /// Comes before [`crate::Engine::handle_input`] with the same values.
    fn input(&mut self, now: Instant, input: &Input);

    /// What the engine asks for on account of the input before it, in order.
    fn output(&mut self, output: &Output);

    /// The engine has stopped; nothing follows. Not called when the owner is dropped instead.
    fn finished(&mut self) {}
}

impl<W: std::io::Write + Send> Recorder for Recording<W> {
    fn input(&mut self, now: Instant, input: &Input) {
        self.on_input(now, input);
    }

    fn output(&mut self, output: &Output) {
        self.on_output(output);
    }

    fn finished(&mut self) {
        if let stop @ (Stop::Full | Stop::Failed(_)) = self.finish() {
            tracing::error!(%stop, "the recording is incomplete");
        }
    }
}
