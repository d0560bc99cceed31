//! The turmoil world.

use std::sync::Arc;

use crate::plan::{Materials, Plan};
use crate::run::{Outcome, RunOptions};

/// Runs a plan to its end.
pub fn run(_materials: &Arc<Materials>, _plan: &Arc<Plan>, _options: &RunOptions) -> Outcome {
    todo!()
}
