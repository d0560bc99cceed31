//! Disk and hash jobs on a bounded pool of threads.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use taipei_engine::disk::{self, Job, JobResult, Storage, StorageError, StorageErrorKind, Work};
use taipei_engine::driver::Jobs;
use taipei_engine::{InfoHash, JobId};
use tokio::sync::mpsc;
use tracing::error;

use crate::FileStorage;
use crate::Sha1Lanes;

/// Threads that take jobs in order. They end when this is dropped, each after the job it is at.
pub struct ThreadJobs {
    queue: Arc<Queue>,
    thread_count: usize,
    /// For reads that need no thread, because the system holds in memory what they ask for.
    at_once: Option<FileStorage>,
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
        Self { queue, thread_count, at_once: None }
    }

    /// On files: what need not wait for a disk is read by who asks for it, which is cheaper than to wake a thread. The rest
    /// is for this many threads; without a number for one a core, two at least, as one may be waiting for the disk.
    pub fn on_files(storage: FileStorage, threads: Option<usize>) -> Self {
        let per_core = || thread::available_parallelism().map_or(2, usize::from).max(2);
        let at_once = storage.without_waiting();
        let mut jobs = Self::new(storage, threads.unwrap_or_else(per_core));
        jobs.at_once = Some(at_once);
        jobs
    }

    fn read_at_once(&mut self, job: &Job) -> Option<JobResult> {
        let storage = self.at_once.as_mut().filter(|_| matches!(job.work, Work::Read { .. }))?;
        let result = catch_unwind(AssertUnwindSafe(|| disk::execute(job, storage, &Sha1Lanes))).ok()?;
        // Whatever failed is tried again by a thread, which may wait.
        matches!(result, JobResult::Read(Ok(_))).then_some(result)
    }
}

impl Jobs for ThreadJobs {
    fn submit(&mut self, id: JobId, job: Job, done: &mpsc::Sender<(JobId, JobResult)>) {
        if let Some(result) = self.read_at_once(&job) {
            // There is room for every job that may be under way.
            let told = done.try_send((id, result));
            assert!(
                !matches!(told, Err(mpsc::error::TrySendError::Full(_))),
                "no more jobs than the engine may have"
            );
            return;
        }
        let mut state = self.queue.state();
        let may_begin = state.may_begin(&job);
        state.waiting.push_back(Waiting { id, job, done: done.clone() });
        // Waking costs a system call: not when all are busy, nor for what has to wait its turn.
        if state.idle_count > 0 && may_begin {
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

struct Waiting {
    id: JobId,
    job: Job,
    done: mpsc::Sender<(JobId, JobResult)>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Torrents that a thread is writing to.
    written: HashSet<InfoHash>,
    idle_count: usize,
    closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next; none when there will be no more.
    fn take(&self) -> Option<Waiting> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some(next) = state.next() {
                return Some(next);
            }
            state.idle_count += 1;
            state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle_count -= 1;
        }
    }
}

impl State {
    /// Whether a thread may begin with it: a torrent is written to by one at a time. A file system lets one writer of a
    /// file wait for the other, and meanwhile this thread can hash.
    fn may_begin(&self, job: &Job) -> bool {
        !(is_write(job) && self.written.contains(&job.place.info_hash))
    }

    /// The first that may begin.
    fn next(&mut self) -> Option<Waiting> {
        let at = self.waiting.iter().position(|waiting| self.may_begin(&waiting.job))?;
        let next = self.waiting.remove(at)?;
        if is_write(&next.job) {
            self.written.insert(next.job.place.info_hash);
        }
        Some(next)
    }
}

fn is_write(job: &Job) -> bool {
    matches!(job.work, Work::Write { .. })
}

fn work<S: Storage>(queue: &Queue, mut storage: S) {
    while let Some(Waiting { id, job, done }) = queue.take() {
        let result = catch_unwind(AssertUnwindSafe(|| disk::execute(&job, &mut storage, &Sha1Lanes)))
            .unwrap_or_else(|_| panicked(&job));
        if is_write(&job) {
            // What waits for this is taken by this thread, unless another does.
            queue.state().written.remove(&job.place.info_hash);
        }
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
        Work::LoadMetadata => JobResult::MetadataLoaded(None),
        Work::SaveMetadata { .. } => JobResult::MetadataSaved(Err(failed)),
        Work::Check { .. } => JobResult::Checked(Err(failed)),
        Work::Allocate { .. } => JobResult::Allocated(Err(failed)),
        Work::Write { .. } => JobResult::Written(Err(failed)),
        Work::Hash { .. } => JobResult::Hashed(Err(failed)),
        Work::Read { .. } => JobResult::Read(Err(failed)),
        Work::Record { .. } => JobResult::Recorded(Err(failed)),
        Work::Snapshot { .. } => JobResult::Saved(Err(failed)),
        Work::Look => JobResult::Looked(Err(failed)),
        Work::Close => JobResult::Closed,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::RwLock;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use taipei_engine::InfoHash;
    use taipei_engine::disk::{At, Place, ReadBlock, Stat};
    use taipei_engine::metainfo::layout::ListedFile;
    use taipei_engine::metainfo::{Layout, StoragePath};

    use super::*;

    /// Nothing works, and nothing fails before the gate is open.
    #[derive(Clone, Default)]
    struct Broken {
        begun: Arc<AtomicUsize>,
        gate: Arc<RwLock<()>>,
    }

    type Outcome<T> = Result<T, StorageError>;

    impl Broken {
        fn fail<T>(&self) -> T {
            self.begun.fetch_add(1, Ordering::SeqCst);
            drop(self.gate.read().unwrap());
            panic!("as the test wants")
        }
    }

    impl Storage for Broken {
        fn read_at(&mut self, _: At<'_>, _: u64, _: &mut [u8]) -> Outcome<usize> {
            self.fail()
        }
        fn write_at(&mut self, _: At<'_>, _: u64, _: &[&[u8]]) -> Outcome<()> {
            self.fail()
        }
        fn stat(&mut self, _: At<'_>) -> Outcome<Option<Stat>> {
            self.fail()
        }
        fn set_len(&mut self, _: At<'_>, _: u64) -> Outcome<()> {
            self.fail()
        }
        fn allocate(&mut self, _: At<'_>, _: u64) -> Outcome<()> {
            self.fail()
        }
        fn sync(&mut self, _: At<'_>) -> Outcome<()> {
            self.fail()
        }
        fn sync_dir(&mut self, _: At<'_>) -> Outcome<()> {
            self.fail()
        }
        fn create_dir(&mut self, _: At<'_>) -> Outcome<()> {
            self.fail()
        }
        fn rename(&mut self, _: At<'_>, _: &StoragePath) -> Outcome<()> {
            self.fail()
        }
        fn remove(&mut self, _: At<'_>) -> Outcome<()> {
            self.fail()
        }
        fn free_bytes(&mut self, _: &str) -> Outcome<u64> {
            self.fail()
        }
        fn lock(&mut self, _: At<'_>) -> Outcome<()> {
            self.fail()
        }
        fn unlock(&mut self, _: At<'_>) {}
    }

    #[tokio::test]
    async fn reads_that_fail_at_once_are_for_the_threads() {
        let root = std::env::temp_dir().join(format!("taipei-jobs-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join("f"), "x").unwrap();
        let place = place(root.to_str().unwrap());
        let mut jobs = ThreadJobs::on_files(FileStorage::new(), Some(1));
        let (sender, mut done) = mpsc::channel(4);
        let piece = place.layout.piece(0).unwrap();
        // At first the file is not open yet; then it is, and in memory.
        for id in 0..3 {
            let work = Work::Read { blocks: vec![ReadBlock { piece, begin: 0, length: 1 }] };
            jobs.submit(JobId(id), Job { place: Arc::clone(&place), work }, &sender);
            let (job, result) = done.recv().await.unwrap();
            assert_eq!(job, JobId(id));
            let JobResult::Read(Ok(blocks)) = result else { panic!("{result:?}") };
            assert_eq!(blocks.len(), 1);
        }
        std::fs::remove_dir_all(&root).unwrap();
    }

    fn place(root: &str) -> Arc<Place> {
        place_of(0, root)
    }

    fn place_of(torrent: u8, root: &str) -> Arc<Place> {
        let file = ListedFile::plain(StoragePath::from_names(["f"]), 1);
        Arc::new(Place {
            info_hash: InfoHash([torrent; 20]),
            root: root.to_owned(),
            state_root: String::new(),
            layout: Layout::new(1 << 14, vec![file]).unwrap(),
            piece_hashes: vec![[0; 20]],
            boot_id: [0; 16],
        })
    }

    #[test]
    fn a_torrent_is_written_to_by_one_at_a_time() {
        let (one, other) = (place("/one"), place_of(1, "/other"));
        let piece = one.layout.piece(0).unwrap();
        let write = || Work::Write {
            piece,
            runs: Vec::new(),
            reaches: Vec::new(),
            forget: Vec::new(),
            digests: false,
        };
        let (done, _results) = mpsc::channel(1);
        let mut state = State::default();
        let works =
            [(&one, write()), (&one, write()), (&other, write()), (&one, Work::Look), (&one, write())];
        for (id, (place, work)) in (0..).zip(works) {
            let job = Job { place: Arc::clone(place), work };
            state.waiting.push_back(Waiting { id: JobId(id), job, done: done.clone() });
        }
        let mut next = |is_written: Option<&Place>| {
            is_written.iter().for_each(|place| assert!(state.written.remove(&place.info_hash)));
            state.next().map(|next| next.id.0)
        };
        assert_eq!([(); 4].map(|()| next(None)), [Some(0), Some(2), Some(3), None]);
        assert_eq!([next(Some(&other)), next(Some(&one)), next(None)], [None, Some(1), None]);
        assert_eq!([next(Some(&one)), next(None)], [Some(4), None]);
    }

    #[tokio::test]
    async fn a_job_that_panics_leaves_the_pool_alive() {
        let mut jobs = ThreadJobs::new(Broken::default(), 1);
        let (sender, mut done) = mpsc::channel(4);
        let place = place("/nowhere");
        let piece = place.layout.piece(0).unwrap();
        let read = || Work::Read { blocks: vec![ReadBlock { piece, begin: 0, length: 1 }] };
        let check = Work::Check { pieces: vec![piece] };
        for (id, work) in [read(), check, read()].into_iter().enumerate() {
            jobs.submit(JobId(id as u64), Job { place: Arc::clone(&place), work }, &sender);
        }
        for id in 0..3 {
            let (job, result) = done.recv().await.unwrap();
            assert_eq!(job, JobId(id));
            let error = match result {
                JobResult::Read(result) => result.unwrap_err(),
                JobResult::Checked(result) => result.unwrap_err(),
                other => panic!("{other:?}"),
            };
            assert_eq!(error, StorageError { path: "/nowhere".to_owned(), kind: StorageErrorKind::Io });
        }
    }

    #[test]
    fn as_many_jobs_run_at_once_as_there_are_threads_and_what_waits_ends_with_them() {
        let storage = Broken::default();
        let shut = storage.gate.write().unwrap();
        let mut jobs = ThreadJobs::new(storage.clone(), 3);
        let (sender, mut done) = mpsc::channel(8);
        let place = place("/nowhere");
        let piece = place.layout.piece(0).unwrap();
        for id in 0..5 {
            let work = Work::Read { blocks: vec![ReadBlock { piece, begin: 0, length: 1 }] };
            jobs.submit(JobId(id), Job { place: Arc::clone(&place), work }, &sender);
        }
        drop(sender);
        let begun = || storage.begun.load(Ordering::SeqCst);
        let end = Instant::now() + Duration::from_secs(30);
        while begun() < 3 && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        // Long enough for a fourth thread, if there were one.
        thread::sleep(Duration::from_millis(50));
        assert_eq!(begun(), 3);
        drop(jobs);
        drop(shut);
        let told: Vec<_> = std::iter::from_fn(|| done.blocking_recv()).map(|(job, _)| job.0).collect();
        assert_eq!((told.len(), begun()), (3, 3), "nobody is told of the other two: {told:?}");
    }
}
