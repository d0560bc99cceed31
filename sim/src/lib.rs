//! Simulated worlds for `taipei-engine`: the same engine, the same scenario files, two ways to run them.
//!
//! A [`scenario`] is what happens, written down once. A [`plan`] is what it comes to with a seed. A run steps engines
//! through it, in the event world ([`events`]) or on turmoil hosts with the real driver ([`turmoil`]), while
//! [`oracle`] looks at everything that goes in and out of every engine. The one rule: the same scenario, seed and
//! source give the same trace.
//!
//! What it never does: reach a real network, disk or clock (but for reading scenario files and writing traces).

#[cfg(feature = "canaries")]
pub mod canary;
pub mod capture;
pub mod content;
pub mod cost;
pub mod disk;
pub mod events;
mod families;
mod lies;
pub mod link;
#[cfg(feature = "canaries")]
pub mod museum;
pub mod network;
pub mod observer;
pub mod oracle;
pub mod plan;
pub mod profile;
pub mod puppet;
pub mod recording;
pub mod report;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod swarms;
pub mod sweep;
pub mod trace;
pub mod tracker;
pub mod turmoil;
pub mod units;

/// Which build this is: version and commit.
pub const BUILD: &str = env!("TAIPEI_BUILD");
