//! `--record`: the recording of a session, and the thread that writes it, so that the engine's task never waits for that disk.
//!
//! Whatever becomes of a recording, the session goes on: the user is told once.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use taipei_engine::driver::Recorder;
use taipei_engine::record::{Recording, Stop};
use taipei_engine::{Input, Instant, Output};
use taipei_net::Options;
use tokio::sync::mpsc;

use crate::args::TransferArgs;
use crate::output::{Failure, Shown, bytes, io_words};

/// A recording under way.
pub(crate) struct Recorded {
    /// Why it stopped, if it did. Ends when all of it is written.
    stopped: mpsc::Receiver<String>,
}

/// Begins to record if that is wanted, with the settings as they are now.
pub(crate) fn begin(args: &TransferArgs, options: &mut Options) -> Result<Option<Recorded>, Failure> {
    let Some(path) = &args.record else { return Ok(None) };
    let failed = |error| Failure::File { path: path.clone(), error };
    let file = taipei_net::create_private(path).map_err(failed)?;
    let (parts, waiting) = sync_channel(PARTS_WAITING_MAX);
    let (notices, stopped) = mpsc::channel(1);
    let notice = Notice { path: path.clone(), notices };
    let of_disk = notice.clone();
    thread::Builder::new()
        .name("recording".to_owned())
        .spawn(move || write(file, &waiting, &of_disk))
        .map_err(Failure::System)?;
    match Recording::new(Parts(parts), &options.config, &options.start_values, args.record_max) {
        Ok(recording) => {
            let notice = Some(notice);
            options.recorder = Some(Box::new(Watched { recording, notice, bytes_max: args.record_max }));
        }
        // The thread that writes is gone already, and has said why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => return Err(failed(error)),
    }
    Ok(Some(Recorded { stopped }))
}

/// Why it stopped; never, where that is not known or nothing is recorded.
pub(crate) async fn stopped(recorded: &mut Option<Recorded>) -> String {
    match written(recorded).await {
        Some(why) => why,
        None => std::future::pending().await,
    }
}

/// Waits until it stops or is written, whichever is first: why it stopped, if it did.
pub(crate) async fn written(recorded: &mut Option<Recorded>) -> Option<String> {
    recorded.as_mut()?.stopped.recv().await
}

fn write(mut file: impl Write, waiting: &Receiver<Vec<u8>>, notice: &Notice) {
    while let Ok(part) = waiting.recv() {
        if let Err(error) = file.write_all(&part) {
            return notice.say(&format!("{}; what is in it can be replayed", io_words(&error)));
        }
    }
}

/// Tells the user that a recording stopped.
#[derive(Clone)]
struct Notice {
    path: PathBuf,
    notices: mpsc::Sender<String>,
}

impl Notice {
    fn say(&self, why: &str) {
        let path = Shown(&self.path);
        let _ =
            self.notices.try_send(format!("the recording {path} stops here, the transfer goes on: {why}"));
    }
}

/// A recording that says so when it stops.
struct Watched {
    recording: Recording<Parts>,
    /// Until that was said.
    notice: Option<Notice>,
    bytes_max: u64,
}

impl Recorder for Watched {
    fn input(&mut self, now: Instant, input: &Input) {
        self.recording.on_input(now, input);
        self.look();
    }

    fn output(&mut self, output: &Output) {
        self.recording.on_output(output);
    }

    fn finished(&mut self) {
        self.recording.finish();
        self.look();
    }
}

impl Watched {
    fn look(&mut self) {
        let Some(stop) = self.recording.stop() else { return };
        let Some(notice) = self.notice.take() else { return };
        match stop {
            Stop::Full => {
                notice.say(&format!("it would be larger than {}, see --record-max", bytes(self.bytes_max)));
            }
            // The thread that writes is gone, and has said why.
            Stop::Failed(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Stop::Failed(error) => notice.say(&io_words(error)),
            Stop::Finished => {}
        }
    }
}

/// Hands what is to be written to the thread that does.
struct Parts(SyncSender<Vec<u8>>);

impl Write for Parts {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        match self.0.try_send(part.to_vec()) {
            Ok(()) => Ok(part.len()),
            Err(TrySendError::Full(_)) => Err(io::Error::other("the disk is too slow for it")),
            Err(TrySendError::Disconnected(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Parts of a recording that wait for the disk: some MiB.
const PARTS_WAITING_MAX: usize = 256;
