//! Tokens: whoever brings one back has received a packet at the address it was made for, within ten minutes.

use core::net::IpAddr;
use std::time::Duration;

use sha1::{Digest as _, Sha1};

use crate::rng::Rng;
use crate::time::Instant;

#[derive(Debug)]
pub(crate) struct Tokens {
    rng: Rng,
    secret: [u8; 16],
    before: [u8; 16],
    since: Instant,
}

impl Tokens {
    pub(crate) fn new(mut rng: Rng) -> Self {
        let [mut secret, mut before] = [[0; 16]; 2];
        rng.fill(&mut secret);
        rng.fill(&mut before);
        Self { rng, secret, before, since: Instant::START }
    }

    /// For an address and what it asked about.
    pub(crate) fn make(&mut self, now: Instant, ip: IpAddr, about: &[u8; 20]) -> Vec<u8> {
        self.turn(now);
        token(&self.secret, ip, about).to_vec()
    }

    /// Whether it was made for this address, this thing, and not long ago.
    pub(crate) fn holds(&mut self, now: Instant, ip: IpAddr, about: &[u8; 20], brought: &[u8]) -> bool {
        self.turn(now);
        [self.secret, self.before].iter().any(|secret| token(secret, ip, about) == *brought)
    }

    fn turn(&mut self, now: Instant) {
        for _ in 0..2 {
            if now.since(self.since) < SECRET_TIME {
                return;
            }
            self.before = self.secret;
            self.rng.fill(&mut self.secret);
            // After a long silence neither of the two secrets is an old one.
            self.since = (self.since + SECRET_TIME).max(now - SECRET_TIME);
        }
        self.since = now;
    }
}

fn token(secret: &[u8; 16], ip: IpAddr, about: &[u8; 20]) -> [u8; TOKEN_BYTES] {
    let mut hash = Sha1::new().chain_update(secret).chain_update(about);
    match ip.to_canonical() {
        IpAddr::V4(ip) => hash.update(ip.octets()),
        IpAddr::V6(ip) => hash.update(ip.octets()),
    }
    let mut token = [0; TOKEN_BYTES];
    token.copy_from_slice(&hash.finalize()[..TOKEN_BYTES]);
    token
}

/// 64 bits: not found by trying within ten minutes at the rate at which we answer.
const TOKEN_BYTES: usize = 8;
/// How long tokens are made with one secret (BEP 5); they hold as long again.
const SECRET_TIME: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_for_its_address_and_thing_between_five_and_ten_minutes() {
        let [here, there] = ["203.0.113.1", "203.0.113.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        for made_at in [0u64, 299, 1000] {
            let mut tokens = Tokens::new(Rng::stream(1, "test", 0));
            let at = |seconds: u64| Instant::START + Duration::from_secs(made_at + seconds);
            let token = tokens.make(at(0), here, &[1; 20]);
            assert!(tokens.holds(at(299), here, &[1; 20], &token));
            assert!(!tokens.holds(at(299), there, &[1; 20], &token));
            assert!(!tokens.holds(at(299), here, &[2; 20], &token));
            assert!(
                !tokens.holds(at(299), here, &[1; 20], &token[..7])
                    && !tokens.holds(at(0), here, &[1; 20], b"")
            );
            assert!(!tokens.holds(at(600), here, &[1; 20], &token));
        }
    }
}
