//! Jobs, done: which part does which.

use super::{Job, JobResult, Sha1Many, Storage, Work, allocate, metadata, open, payload, save};

/// Does one job. Every error is in the result.
///
/// Jobs of one torrent may run side by side, but never two of `Open`, `Record`, `Snapshot` and `Close`: they rewrite
/// the same state files.
pub fn execute<S: Storage>(job: &Job, storage: &mut S, sha1_many: &dyn Sha1Many) -> JobResult {
    let place = &*job.place;
    match &job.work {
        Work::Open { resume } => JobResult::Opened(open::open(place, *resume, storage)),
        Work::LoadMetadata => JobResult::MetadataLoaded(metadata::load(place, storage)),
        Work::SaveMetadata { info } => JobResult::MetadataSaved(metadata::save(place, info, storage)),
        Work::Check { pieces } => JobResult::Checked(payload::check(place, pieces, storage, sha1_many)),
        Work::Allocate { files } => JobResult::Allocated(allocate::allocate(place, files, storage)),
        Work::Write { piece, runs, reaches, forget, digests } => {
            forget.iter().for_each(|file| storage.forget(place.at(*file)));
            JobResult::Written(payload::write(place, *piece, runs, reaches, *digests, storage, sha1_many))
        }
        Work::Hash { pieces } => JobResult::Hashed(payload::hash(place, pieces, storage, sha1_many)),
        Work::Read { blocks } => JobResult::Read(payload::read(place, blocks, storage)),
        Work::Record { good, touched, doubted } => {
            JobResult::Recorded(save::record(place, good, touched, doubted, storage))
        }
        Work::Snapshot { have, unchecked, totals, close } => {
            let saved = save::snapshot(place, have, unchecked, *totals, *close, storage);
            if *close {
                // Saved or not, nobody of us writes here any longer.
                save::close(place, storage);
            }
            JobResult::Saved(saved)
        }
        Work::Look => JobResult::Looked(payload::look(place, storage)),
        Work::Close => {
            save::close(place, storage);
            JobResult::Closed
        }
    }
}
