//! Reports for people: one file of HTML for a run, for a sweep, for a recording, with nothing in them that comes from elsewhere.
//!
//! The same run or sweep gives the same bytes: no wall time, no path but what the command line named. All text is
//! escaped, and what is drawn is capped, so that a page of thousands of hosts is as large as one of forty. Plots are
//! inline SVG that is stretched to the width there is; their labels are HTML beside them, which is not.

mod page;
mod plot;
mod recording;
mod run;
mod swarm;
mod sweep;

pub use self::recording::recording_page;
pub use self::run::run_page;
pub use self::sweep::sweep_page;

/// No page is larger, whatever it tells of.
pub const PAGE_BYTES_MAX: usize = 2 << 20;
