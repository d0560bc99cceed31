//! Requests over HTTP, answered by actors without a stream between.

use core::net::SocketAddr;

use taipei_engine::input::{HttpResponse, NetError};
use taipei_engine::limits::HTTP_RECEIVE_TIMEOUT;
use taipei_engine::output::HttpGet;

use super::{Event, World};
use crate::trace::{Kind, digest};

impl World {
    pub(super) fn request(&mut self, host: usize, incarnation: u32, get: &HttpGet) {
        let (from, request) = (self.plan.hosts[host].address, get.request);
        let latency = self.latency(from, get.target.ip());
        let number = self.plan.trackers.iter().position(|tracker| tracker.address == get.target);
        let Some(number) = number.filter(|number| !self.trackers[*number].refuses()) else {
            let result = Err(NetError::Refused);
            self.at(self.now + latency, Event::Answer { host, incarnation, request, result });
            return;
        };
        self.watch.trace.event(
            self.now,
            host as u32 + 1,
            Kind::Request,
            [number as u64, digest(&get.path), 0],
        );
        let from = SocketAddr::new(from, HTTP_PORT);
        // As the driver has it: who says nothing for so long has failed.
        let silent = Event::Answer { host, incarnation, request, result: Err(NetError::TimedOut) };
        let silent_at = self.now + HTTP_RECEIVE_TIMEOUT.as_nanos() as u64;
        let Some(reply) = self.trackers[number].answer(self.now, from, &get.path) else {
            return self.at(silent_at, silent);
        };
        self.watch.trace.event(
            self.now,
            host as u32 + 1,
            Kind::Answer,
            [u64::from(reply.status), reply.body.len() as u64, 0],
        );
        let result = if reply.body.len() > get.body_bytes_max as usize {
            Err(NetError::TooLarge)
        } else {
            Ok(HttpResponse { status: reply.status, location: None, body: reply.body, gzip: false })
        };
        let answered_at = self.now + reply.after + latency;
        if answered_at > silent_at {
            return self.at(silent_at, silent);
        }
        self.at(answered_at, Event::Answer { host, incarnation, request, result });
    }
}

/// Where HTTP requests come from, as the other side sees it.
const HTTP_PORT: u16 = 32_000;
