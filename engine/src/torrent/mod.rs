//! One swarm.

pub(crate) mod announcer;
