//! Who asks too much is not answered for a while.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Instant;

/// Questions by host.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    hosts: BTreeMap<IpAddr, Count>,
    /// When those whose time is over were last forgotten.
    swept_at: Instant,
}

#[derive(Debug)]
struct Count {
    since: Instant,
    questions: u32,
    until: Instant,
}

impl Flood {
    /// A host asks: may it be answered?
    pub(crate) fn admit(&mut self, now: Instant, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        if now.since(self.swept_at) >= WINDOW {
            self.hosts.retain(|_, count| count.until > now || now.since(count.since) < WINDOW);
            self.swept_at = now;
        }
        if self.hosts.len() >= HOSTS_MAX && !self.hosts.contains_key(&ip) {
            // A crowd: those that did no wrong are counted anew.
            self.hosts.retain(|_, count| count.until > now);
            if self.hosts.len() >= HOSTS_MAX {
                return false;
            }
        }
        let count = self.hosts.entry(ip).or_insert(Count { since: now, questions: 0, until: Instant::START });
        if now.since(count.since) >= WINDOW {
            (count.since, count.questions) = (now, 0);
        }
        count.questions += 1;
        if count.questions > QUESTIONS_MAX {
            count.until = now + SHUT_OUT;
        }
        count.until <= now
    }
}

/// Questions of one host within [`WINDOW`] that are answered; libtorrent's.
const QUESTIONS_MAX: u32 = 50;
const WINDOW: Duration = Duration::from_secs(10);
/// How long a host that asks more is not answered; libtorrent's.
const SHUT_OUT: Duration = Duration::from_secs(5 * 60);
/// Hosts counted at once.
const HOSTS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_shut_out_and_others_are_not() {
        let mut flood = Flood::default();
        let [bad, good] = ["203.0.113.1", "203.0.113.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let at = |seconds| Instant::START + Duration::from_secs(seconds);
        assert_eq!((0..100).filter(|_| flood.admit(at(1), bad)).count(), 50);
        assert!(flood.admit(at(1), good) && !flood.admit(at(200), bad) && flood.admit(at(302), bad));
        for n in 0..10_000u32 {
            flood.admit(at(400), IpAddr::from(n.to_be_bytes()));
        }
        assert!(flood.hosts.len() <= HOSTS_MAX);
    }
}
