//! Between the announcer and the world: figures in, look-ups and requests out, peers to the candidates.

use core::net::IpAddr;

use super::Torrent;
use super::announcer::{Action, Figures, Token};
use crate::alert::Alert;
use crate::context::Context;
use crate::ids::{HttpId, ResolveId};
use crate::input::{HttpResponse, NetError};
use crate::output::HttpGet;

impl Torrent {
    pub(crate) fn handle_resolved(
        &mut self,
        context: &mut Context<'_>,
        query: ResolveId,
        result: Result<Vec<IpAddr>, NetError>,
    ) {
        if let Some(token) = self.lookups.remove(&query) {
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
        if let Some(token) = self.requests.remove(&request) {
            self.announcer.handle_http(context.now, token, result);
            self.settle(context);
        }
    }

    /// Does what the announcer asks.
    pub(super) fn announce(&mut self, context: &mut Context<'_>) {
        if self.stop_by.is_some_and(|at| at <= context.now) {
            self.announcer.give_up();
        }
        let figures = self.figures(context);
        while let Some(action) = self.announcer.poll_action(&figures) {
            match action {
                Action::Resolve { token, host } => {
                    let query = context.resolve(self.id, host);
                    self.lookups.insert(query, token);
                }
                Action::Get(get) => {
                    let token = get.token;
                    let request = context.http_get(
                        self.id,
                        HttpGet {
                            request: HttpId(0),
                            target: get.target,
                            tls: get.tls,
                            host: get.host,
                            authority: get.authority,
                            path: get.path,
                            body_bytes_max: get.body_bytes_max,
                        },
                    );
                    self.requests.insert(request, token);
                }
                Action::Cancel { token } => self.cancel(context, token),
                Action::Peers(peers) => {
                    for address in peers {
                        self.candidates.add(context.now, address);
                    }
                    self.dial(context);
                }
                Action::Report(report) => {
                    let result = report.result.map_err(|error| error.to_string());
                    let warning = report.warning;
                    context.alert(Alert::Tracker { torrent: self.id, url: report.url, result, warning });
                }
                Action::Stopped => self.trackers_told = true,
            }
        }
    }

    fn cancel(&mut self, context: &mut Context<'_>, token: Token) {
        self.lookups.retain(|_, other| *other != token);
        let request = self.requests.iter().find(|(_, other)| **other == token).map(|(request, _)| *request);
        if let Some(request) = request {
            self.requests.remove(&request);
            context.cancel_http(request);
        }
    }

    fn figures(&self, context: &Context<'_>) -> Figures {
        Figures {
            info_hash: self.info_hash,
            peer_id: context.our_id,
            key: context.key,
            port: context.port.unwrap_or(0),
            uploaded: self.upload.total(),
            downloaded: self.download.total(),
            left: self.place.layout.total_bytes() - self.bytes_have,
            numwant: if self.is_fetching() { NUMWANT } else { NUMWANT_SEEDING },
        }
    }
}

/// Peers asked of a tracker while downloading: as many as a torrent connects to, and some that will not answer.
const NUMWANT: u32 = 100;
/// The same for a seed, which others find by themselves.
const NUMWANT_SEEDING: u32 = 30;
