//! Peers that lie: some of the blocks that they serve are wrong, though what is on their disk is right.
//!
//! The lie is made where a job is done, so both worlds have it and the liar's engine is the real one. Whether a block is
//! wrong is a function of the seed, the liar and the block, so it is the same block in both worlds, whoever asks and
//! however often.

use bytes::Bytes;
use taipei_engine::BlockData;
use taipei_engine::disk::{Job, JobResult, Work};
use taipei_engine::rng::Rng;

use crate::plan::Plan;
use crate::trace::digest;

/// What a host really answers to a job.
pub(crate) fn tell(plan: &Plan, host: usize, job: &Job, result: JobResult) -> JobResult {
    let (Some(share), Work::Read { blocks }) = (plan.hosts[host].lies, &job.work) else { return result };
    let JobResult::Read(Ok(read)) = result else { return result };
    let told = blocks.iter().zip(read).map(|(asked, data)| {
        let which = digest(&(plan.hosts[host].id, job.place.info_hash.0, asked.piece.get(), asked.begin));
        if is_lie(plan.seed, which, share) { lie(&data) } else { data }
    });
    JobResult::Read(Ok(told.collect()))
}

fn is_lie(seed: u64, which: u64, (part, of): (u64, u64)) -> bool {
    Rng::stream(seed, "lie", which).below(of) < part
}

/// The same block with one byte turned around.
fn lie(data: &BlockData) -> BlockData {
    let mut bytes: Vec<u8> = data.parts().concat();
    if let Some(first) = bytes.first_mut() {
        *first ^= 0x80;
    }
    Bytes::from(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_lies_is_kept_and_each_is_told_again() {
        let lies = |seed| (0..10_000).map(|which| is_lie(seed, which, (1, 10))).collect::<Vec<bool>>();
        let count = lies(1).into_iter().filter(|lie| *lie).count();
        assert!((900..1100).contains(&count), "{count}");
        assert_eq!(lies(1), lies(1));
        assert_ne!(lies(1), lies(2));
    }

    #[test]
    fn a_lie_has_the_length_of_the_truth() {
        let truth = BlockData::from(Bytes::from_static(b"block"));
        assert_eq!((lie(&truth).len(), lie(&truth).parts().concat()), (5, b"\xe2lock".to_vec()));
    }
}
