//! Disk and hash jobs on a bounded pool of threads.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use taipei_engine::JobId;
use taipei_engine::disk::{self, Job, JobResult, Storage, StorageError, StorageErrorKind, Work};
use taipei_engine::driver::Jobs;
use tokio::sync::mpsc;
use tracing::error;

use crate::sha1_many;

/// Threads that take jobs in order. They end when this is dropped, each after the job it is at.
pub struct ThreadJobs {
    queue: Arc<Queue>,
    thread_count: usize,
}

impl ThreadJobs {
    /// With this many threads, one at least. Each works on a clone of `storage`.
    pub fn new<S: Storage + Clone + Send + 'static>(storage: S, threads: usize) -> Self {
        let queue = Arc::new(Queue::default());
        let mut thread_count = 0;
        for number in 0..threads.max(1) {
            let (queue, storage) = (Arc::clone(&queue), storage.clone());
            let thread = thread::Builder::new()
                .name(format!("taipei-job-{number}"))
                .spawn(move || work(&queue, storage));
            match thread {
                Ok(_) => thread_count += 1,
                Err(error) => error!(%error, "cannot start a thread for jobs"),
            }
        }
        assert!(thread_count > 0, "a process can have one more thread");
        Self { queue, thread_count }
    }

    /// With a thread a core, two at least: one may be waiting for the disk.
    pub fn per_core<S: Storage + Clone + Send + 'static>(storage: S) -> Self {
        Self::new(storage, thread::available_parallelism().map_or(2, usize::from).max(2))
    }
}

impl Jobs for ThreadJobs {
    fn submit(&mut self, id: JobId, job: Job, done: &mpsc::Sender<(JobId, JobResult)>) {
        let mut state = self.queue.state();
        state.waiting.push_back((id, job, done.clone()));
        // Waking costs a system call: not when all are busy.
        if state.idle_count > 0 {
            drop(state);
            self.queue.came.notify_one();
        }
    }
}

impl Drop for ThreadJobs {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.closed = true;
        state.waiting.clear();
        drop(state);
        self.queue.came.notify_all();
    }
}

impl fmt::Debug for ThreadJobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadJobs").field("thread_count", &self.thread_count).finish_non_exhaustive()
    }
}

/// What threads and submitter share. Bounded by `JOBS_MAX`, as the engine has no more under way.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(JobId, Job, mpsc::Sender<(JobId, JobResult)>)>,
    idle_count: usize,
    closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next; none when there will be no more.
    fn take(&self) -> Option<(JobId, Job, mpsc::Sender<(JobId, JobResult)>)> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some(next) = state.waiting.pop_front() {
                return Some(next);
            }
            state.idle_count += 1;
            state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle_count -= 1;
        }
    }
}

fn work<S: Storage>(queue: &Queue, mut storage: S) {
    while let Some((id, job, done)) = queue.take() {
        let result = catch_unwind(AssertUnwindSafe(|| disk::execute(&job, &mut storage, sha1_many)))
            .unwrap_or_else(|_| panicked(&job));
        drop(job);
        // An owner that is gone needs no result.
        let _ = done.blocking_send((id, result));
    }
}

/// What a job that panicked comes to: a failed disk, which pauses its torrent and nothing else.
fn panicked(job: &Job) -> JobResult {
    error!(info_hash = %job.place.info_hash.short(), "a job panicked; this is a bug");
    let failed = StorageError { path: job.place.root.clone(), kind: StorageErrorKind::Io };
    match &job.work {
        Work::Open { .. } => JobResult::Opened(Err(failed)),
        Work::Check { .. } => JobResult::Checked(Err(failed)),
        Work::Write { .. } => JobResult::Written(Err(failed)),
        Work::Hash { .. } => JobResult::Hashed(Err(failed)),
        Work::Read { .. } => JobResult::Read(Err(failed)),
        Work::Record { .. } => JobResult::Recorded(Err(failed)),
        Work::Snapshot { .. } => JobResult::Saved(Err(failed)),
        Work::Close => JobResult::Closed,
    }
}
