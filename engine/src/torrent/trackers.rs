//! Between the announcer and the world: figures in, look-ups and requests out, peers to the candidates.

use core::net::{IpAddr, SocketAddr};

use super::Torrent;
use super::announcer::{Action, Figures};
use super::candidates::Origin;
use crate::alert::Alert;
use crate::context::{Asker, Context};
use crate::ids::{HttpId, ResolveId};
use crate::input::{HttpResponse, NetError};
use crate::limits::BLOCK_BYTES;
use crate::time::Instant;
use crate::udp_trackers::UdpAskId;
use crate::wire::tracker_udp::UdpAnswer;

impl Torrent {
    pub(crate) fn handle_resolved(
        &mut self,
        context: &mut Context<'_>,
        query: ResolveId,
        result: Result<Vec<IpAddr>, NetError>,
    ) {
        if let Some(token) = self.under_way.take_lookup(query) {
            self.announcer.handle_resolved(context.now, token, result);
            self.settle(context);
        }
    }

    pub(crate) fn handle_http(
        &mut self,
        context: &mut Context<'_>,
        request: HttpId,
        result: Result<HttpResponse, NetError>,
    ) {
        if let Some(token) = self.under_way.take_request(request) {
            self.announcer.handle_http(context.now, token, result);
            self.settle(context);
        }
    }

    pub(crate) fn handle_udp(
        &mut self,
        context: &mut Context<'_>,
        question: UdpAskId,
        result: Result<UdpAnswer, NetError>,
    ) {
        if let Some(token) = self.under_way.take_question(question) {
            self.announcer.handle_udp(context.now, token, result);
            self.settle(context);
        }
    }

    /// Does what the announcer asks.
    pub(super) fn announce(&mut self, context: &mut Context<'_>) {
        if self.stop_by.is_some_and(|at| at <= context.now) {
            self.announcer.give_up();
        }
        self.announcer.set_seeking(context.now, self.seeks_peers());
        let figures = self.figures(context);
        while let Some(action) = self.announcer.poll_action(context.now, &figures, context.may_ask()) {
            match action {
                Action::Call { token, call } => {
                    self.under_way.call(context, Asker::Torrent(self.id), token, call);
                }
                Action::Cancel { token } => self.under_way.cancel(context, token),
                Action::Peers { tracker, peers } => {
                    for address in peers.into_iter().filter(|address| !context.is_ourselves(*address)) {
                        self.candidates.add(context.now, address, Origin::Tracker(tracker));
                    }
                    self.dial(context);
                }
                Action::ExternalIp(ip) => {
                    context.learn_external(ip);
                    if let Some(port) = context.port {
                        self.candidates.on_ourselves(SocketAddr::new(ip, port));
                    }
                }
                Action::Report(report) => {
                    let result = report.result.map_err(|error| error.to_string());
                    let warning = report.warning;
                    context.alert(Alert::Tracker { torrent: self.id, url: report.url, result, warning });
                }
                Action::Stopped => self.trackers_told = true,
            }
        }
        context.stand_in_line(self.id, &mut self.in_line, self.announcer.is_in_line());
        if self.announcer.is_unreached() || (self.seeks_peers() && self.peers.is_empty()) {
            context.routes.unreached.insert(self.id);
        } else {
            context.routes.unreached.remove(&self.id);
        }
    }

    /// Something was heard after a long silence: what failed since then may work now.
    pub(crate) fn on_reachable(&mut self, context: &mut Context<'_>, since: Instant) {
        self.announcer.on_reachable(context.now);
        self.candidates.renew_since(context.now, since);
        self.settle(context);
    }

    /// Others reach us at another port now: each tracker is told as soon as it wants to hear of us again.
    pub(crate) fn on_port_changed(&mut self, context: &mut Context<'_>) {
        self.announcer.need_peers(context.now);
        self.settle(context);
    }

    fn figures(&self, context: &Context<'_>) -> Figures {
        Figures {
            info_hash: self.info_hash,
            peer_id: context.our_id,
            key: context.key,
            port: context.port.unwrap_or(0),
            uploaded: self.upload.total(),
            downloaded: self.download.total(),
            // Of a magnet nobody knows; that something is missing is known.
            left: if self.is_magnet() {
                u64::from(BLOCK_BYTES)
            } else {
                self.place.layout.total_bytes() - self.bytes_have
            },
            numwant: if self.seeks_peers() { NUMWANT } else { NUMWANT_SEEDING },
        }
    }
}

/// Peers asked of a tracker while downloading: as many as a torrent connects to, and some that will not answer.
const NUMWANT: u32 = 100;
/// The same for a seed, which others find by themselves.
const NUMWANT_SEEDING: u32 = 30;
