//! What may be under way at once, and how fast: S7.

use std::collections::VecDeque;

use taipei_engine::Config;
use taipei_engine::limits::{
    JOBS_MAX, STRANGERS_MAX, TRACKER_REQUESTS_MAX, UPLOAD_BYTES_MAX, UPLOAD_SLOTS_MAX,
};

use super::host::ProcessWatch;

/// Amounts over the last five seconds.
#[derive(Debug, Default)]
pub(super) struct Window {
    amounts: VecDeque<(u64, u64)>,
    sum: u64,
}

impl Window {
    /// Adds to it. Gives the sum of the window that ends now.
    pub(super) fn add(&mut self, now: u64, amount: u64) -> u64 {
        if amount > 0 {
            self.amounts.push_back((now, amount));
            self.sum += amount;
        }
        while let Some((at, amount)) = self.amounts.front()
            && at + WINDOW <= now
        {
            self.sum -= amount;
            self.amounts.pop_front();
        }
        self.sum
    }
}

/// What passed in either direction, and how many connections were dialled.
#[derive(Debug, Default)]
pub(super) struct Rates {
    read: Window,
    written: Window,
    dials: Window,
    /// Connections that began or ended in the window, as each may have held a quantum.
    changed: Window,
}

impl Rates {
    /// A connection begins or ends.
    pub(super) fn on_changed(&mut self, now: u64) {
        self.changed.add(now, 1);
    }

    /// Bytes were read, or written.
    #[inline]
    pub(super) fn on_moved(
        &mut self,
        now: u64,
        config: &Config,
        moved: (u64, u64),
        connections: usize,
    ) -> Result<(), String> {
        if config.limits.download.is_none() && config.limits.upload.is_none() {
            return Ok(());
        }
        self.on_limited(now, config, moved, connections)
    }

    fn on_limited(
        &mut self,
        now: u64,
        config: &Config,
        (read, written): (u64, u64),
        connections: usize,
    ) -> Result<(), String> {
        for (window, bytes, limit, way) in [
            (&mut self.read, read, config.limits.download, "read"),
            (&mut self.written, written, config.limits.upload, "written"),
        ] {
            let Some(limit) = limit.filter(|_| bytes > 0) else { continue };
            let sum = window.add(now, bytes);
            let most = limit * 5 + burst(limit, connections as u64 + self.changed.add(now, 0));
            if sum > most {
                return Err(format!("{sum} bytes were {way} in five seconds, and {most} may be"));
            }
        }
        Ok(())
    }

    /// A dial goes out.
    pub(super) fn on_dial(&mut self, now: u64, config: &Config) -> Result<(), String> {
        let (sum, most) = (self.dials.add(now, 1), 6 * u64::from(config.dials_per_second_max.max(1)));
        if sum > most {
            return Err(format!("{sum} dials in five seconds, and {most} may be"));
        }
        Ok(())
    }
}

/// What may pass at once on top of a limit: a quarter of a second of it, a quantum for each connection, and one that is owed.
fn burst(limit: u64, connections: u64) -> u64 {
    let quantum = (limit / 64).clamp(256, 256 << 10);
    (limit / 4).max(quantum) + (connections + 1) * quantum
}

/// Between two inputs nothing is beyond its limit. The quick look that most inputs need.
#[inline]
pub(super) fn check(process: &ProcessWatch, config: &Config, torrents: usize) -> Result<(), String> {
    let is_quiet = !process.is_changed && !process.serves_more;
    if is_quiet && process.jobs.len() <= JOBS_MAX && process.http.len() <= TRACKER_REQUESTS_MAX {
        return Ok(());
    }
    check_all(process, config, torrents)
}

fn check_all(process: &ProcessWatch, config: &Config, torrents: usize) -> Result<(), String> {
    let at_most = |count: usize, most: usize, what: &str| {
        if count > most { Err(format!("{count} {what}, and {most} may be")) } else { Ok(()) }
    };
    at_most(process.jobs.len(), JOBS_MAX, "jobs under way")?;
    at_most(process.http.len(), TRACKER_REQUESTS_MAX, "requests to trackers under way")?;
    // So few may be open that only who is served has to be counted.
    let open = process.connections.len();
    let is_few = open <= STRANGERS_MAX.min(config.peers_per_torrent_max as usize)
        && open + process.dials.len() <= config.peers_max as usize;
    if !process.serves_more && (!process.is_changed || is_few) {
        return Ok(());
    }
    let (mut strangers, mut named, mut served) = (0, vec![0; torrents], vec![0; torrents]);
    for connection in process.connections.values() {
        strangers += usize::from(connection.is_stranger());
        if let Some(torrent) = connection.torrent() {
            named[torrent] += usize::from(!connection.is_stranger());
            served[torrent] += usize::from(connection.is_served());
        }
    }
    at_most(strangers, STRANGERS_MAX, "strangers")?;
    // Dials under way are among those that lead somewhere, and not among those that are open.
    let peers = open - strangers + process.dials.len();
    at_most(peers, config.peers_max as usize, "peers")?;
    let slots = config.limits.upload.map_or(UPLOAD_SLOTS_MAX, slots);
    for (named, served) in named.into_iter().zip(served) {
        at_most(named, config.peers_per_torrent_max as usize, "peers of one torrent")?;
        at_most(served, slots as usize, "peers served")?;
    }
    Ok(())
}

/// Payload waits for a peer's socket.
pub(super) fn check_unsent(bytes: u64) -> Result<(), String> {
    if bytes > UPLOAD_BYTES_MAX {
        return Err(format!("{bytes} bytes wait for one peer, and {UPLOAD_BYTES_MAX} may"));
    }
    Ok(())
}

/// Peers that are served at once under a limit on upload.
fn slots(per_second: u64) -> u32 {
    (per_second / (25 << 10)).clamp(4, u64::from(UPLOAD_SLOTS_MAX)) as u32
}

const WINDOW: u64 = 5_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_window_forgets_after_five_seconds() {
        let mut window = Window::default();
        assert_eq!([0, 1, 4].map(|at| window.add(at * SECOND, 10)), [10, 20, 30]);
        assert_eq!(window.add(5 * SECOND, 1), 21);
        assert_eq!(window.add(60 * SECOND, 1), 1);
    }

    #[test]
    fn a_rate_and_its_burst_pass_and_no_more() {
        let mut config = Config::default();
        config.limits.upload = Some(1 << 20);
        let mut rates = Rates::default();
        rates.on_changed(0);
        let burst = burst(1 << 20, 3);
        let mut moved = |at: u64, bytes| rates.on_moved(at, &config, (1 << 40, bytes), 2);
        assert_eq!(moved(0, burst), Ok(()));
        for second in 1..=5 {
            assert_eq!(moved(second * SECOND - 1, 1 << 20), Ok(()), "{second}");
        }
        assert!(moved(5 * SECOND - 1, 1).is_err());
    }

    #[test]
    fn dials_come_as_fast_as_is_said() {
        let mut config = Config::default();
        config.dials_per_second_max = 5;
        let mut rates = Rates::default();
        assert!((0..30).all(|_| rates.on_dial(7, &config).is_ok()));
        assert!(rates.on_dial(8, &config).is_err());
        assert!(rates.on_dial(8 * SECOND, &config).is_ok());
    }

    #[test]
    fn a_peer_has_only_so_much_waiting() {
        assert_eq!(check_unsent(UPLOAD_BYTES_MAX), Ok(()));
        assert!(check_unsent(UPLOAD_BYTES_MAX + 1).is_err());
    }
}
