//! How many there are in some swarms: scrapes that the embedder asks for (BEP 48, BEP 15).
//!
//! A scrape goes through the hashes asked for in order, as many at once as one request takes; the first that fails ends
//! it. Each command gives one [`Alert::Scraped`].

use core::net::IpAddr;
use std::collections::VecDeque;

use crate::alert::{Alert, SwarmCounts};
use crate::context::{Asker, Context};
use crate::exchange::{Answered, Call, Endpoint, Exchange, Step, Token, TrackerError};
use crate::ids::{HttpId, InfoHash, ResolveId};
use crate::input::{HttpResponse, NetError};
use crate::limits::{SCRAPE_HTTP_HASHES_MAX, SCRAPE_UDP_HASHES_MAX};
use crate::time::Instant;
use crate::udp_trackers::{UdpAsk, UdpAskId};
use crate::under_way::UnderWay;
use crate::wire::tracker_http::{ScrapeAnswer, ScrapeEntry, scrape_path_and_query};
use crate::wire::tracker_udp::UdpAnswer;

/// All scrapes of a session.
#[derive(Debug, Default)]
pub(crate) struct Scraper {
    scrapes: Vec<Scrape>,
    under_way: UnderWay,
    token_next: u32,
}

#[derive(Debug)]
struct Scrape {
    /// As in the command.
    tracker: String,
    exchange: Exchange,
    token: Token,
    /// Asked for now.
    asked: Vec<InfoHash>,
    /// To be asked for later.
    waiting: VecDeque<InfoHash>,
    found: Vec<SwarmCounts>,
}

impl Scraper {
    /// Begins.
    pub(crate) fn scrape(&mut self, context: &mut Context<'_>, tracker: String, info_hashes: Vec<InfoHash>) {
        match Endpoint::scrape(&tracker) {
            Ok(_) if info_hashes.is_empty() => {
                context.alert(Alert::Scraped { tracker, result: Ok(Vec::new()) })
            }
            Ok(endpoint) => {
                let (exchange, step) = Exchange::new(endpoint);
                let scrape = Scrape {
                    tracker,
                    exchange,
                    token: Token(0),
                    asked: Vec::new(),
                    waiting: info_hashes.into(),
                    found: Vec::new(),
                };
                self.ask_next(context, scrape, step);
            }
            Err(error) => context.alert(Alert::Scraped { tracker, result: Err(error.to_string()) }),
        }
        self.wake(context);
    }

    pub(crate) fn handle_resolved(
        &mut self,
        context: &mut Context<'_>,
        query: ResolveId,
        result: Result<Vec<IpAddr>, NetError>,
    ) {
        let token = self.under_way.take_lookup(query);
        self.go_on(context, token, |exchange| exchange.handle_resolved(result));
    }

    pub(crate) fn handle_http(
        &mut self,
        context: &mut Context<'_>,
        request: HttpId,
        result: Result<HttpResponse, NetError>,
    ) {
        let token = self.under_way.take_request(request);
        self.go_on(context, token, |exchange| exchange.handle_http(result));
    }

    pub(crate) fn handle_udp(
        &mut self,
        context: &mut Context<'_>,
        question: UdpAskId,
        result: Result<UdpAnswer, NetError>,
    ) {
        let token = self.under_way.take_question(question);
        self.go_on(context, token, |exchange| exchange.handle_udp(result));
    }

    /// A deadline has come.
    pub(crate) fn handle_timeout(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        let is_late = |scrape: &mut Scrape| scrape.exchange.deadline().is_some_and(|at| at <= now);
        let late: Vec<Scrape> = self.scrapes.extract_if(.., is_late).collect();
        for mut scrape in late {
            self.under_way.cancel(context, scrape.token);
            let step = scrape.exchange.handle_timeout();
            self.take_step(context, scrape, step);
        }
        self.wake(context);
    }

    /// Nobody wants to know any more.
    pub(crate) fn stop(&mut self, context: &mut Context<'_>) {
        for scrape in std::mem::take(&mut self.scrapes) {
            self.under_way.cancel(context, scrape.token);
            let result = Err("shutting down".to_owned());
            context.alert(Alert::Scraped { tracker: scrape.tracker, result });
        }
    }

    fn go_on(
        &mut self,
        context: &mut Context<'_>,
        token: Option<Token>,
        step: impl FnOnce(&mut Exchange) -> Step,
    ) {
        let Some(at) = self.scrapes.iter().position(|scrape| Some(scrape.token) == token) else { return };
        let mut scrape = self.scrapes.swap_remove(at);
        let step = step(&mut scrape.exchange);
        self.take_step(context, scrape, step);
        self.wake(context);
    }

    /// Goes on with the next hashes.
    fn ask_next(&mut self, context: &mut Context<'_>, mut scrape: Scrape, step: Step) {
        let udp = scrape.exchange.endpoint().is_udp();
        let most = if udp { SCRAPE_UDP_HASHES_MAX } else { SCRAPE_HTTP_HASHES_MAX };
        scrape.asked = scrape.waiting.drain(..most.min(scrape.waiting.len())).collect();
        self.take_step(context, scrape, step);
    }

    fn take_step(&mut self, context: &mut Context<'_>, mut scrape: Scrape, step: Step) {
        match step {
            Step::LookUp | Step::Ask => {
                self.token_next = self.token_next.wrapping_add(1);
                scrape.token = Token(self.token_next);
                let Some(call) = scrape.call() else {
                    return scrape.end(context, Some(TrackerError::BadUrl));
                };
                scrape.exchange.on_out(context.now);
                self.under_way.call(context, Asker::Scraper, scrape.token, call);
                self.scrapes.push(scrape);
            }
            Step::Failed(error) => scrape.end(context, Some(error)),
            Step::Answered(answered) => match scrape.take(answered) {
                Err(error) => scrape.end(context, Some(error)),
                Ok(()) if scrape.waiting.is_empty() => scrape.end(context, None),
                Ok(()) => match scrape.exchange.again(false) {
                    Some(mut exchange) => {
                        let step = exchange.next_address(TrackerError::BadAddress);
                        self.ask_next(context, Scrape { exchange, ..scrape }, step);
                    }
                    None => scrape.end(context, Some(TrackerError::BadAddress)),
                },
            },
        }
    }

    fn wake(&self, context: &mut Context<'_>) {
        let deadline: Option<Instant> =
            self.scrapes.iter().filter_map(|scrape| scrape.exchange.deadline()).min();
        context.wake_scraper(deadline);
    }
}

impl Scrape {
    fn call(&self) -> Option<Call> {
        let endpoint = self.exchange.endpoint();
        let Some(target) = self.exchange.target() else { return self.exchange.name().map(Call::Resolve) };
        if endpoint.is_udp() {
            return Some(Call::Udp(target, UdpAsk::Scrape { info_hashes: self.asked.clone() }));
        }
        let path = scrape_path_and_query(endpoint.path(), endpoint.query(), &self.asked);
        self.exchange.get(path).map(|get| Call::Get(Box::new(get)))
    }

    /// Files an answer.
    fn take(&mut self, answered: Answered) -> Result<(), TrackerError> {
        match answered {
            Answered::Udp(UdpAnswer::Scraped { entries, .. }) => {
                let found = self.asked.iter().zip(&entries).map(|(hash, entry)| counts(*hash, entry));
                self.found.extend(found);
                Ok(())
            }
            Answered::Udp(_) => Ok(()),
            Answered::Http { status, body } => match ScrapeAnswer::parse(&body, &self.asked) {
                Ok(ScrapeAnswer::Refused(reason)) => Err(TrackerError::Refused(reason)),
                _ if status != 200 => Err(TrackerError::Status(status)),
                Ok(ScrapeAnswer::Taken(files)) => {
                    self.found.extend(files.iter().map(|(hash, entry)| counts(*hash, entry)));
                    Ok(())
                }
                Err(error) => Err(error.into()),
            },
        }
    }

    fn end(self, context: &mut Context<'_>, error: Option<TrackerError>) {
        let result = error.map_or(Ok(self.found), |error| Err(error.to_string()));
        context.alert(Alert::Scraped { tracker: self.tracker, result });
    }
}

fn counts(info_hash: InfoHash, entry: &ScrapeEntry) -> SwarmCounts {
    let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    SwarmCounts {
        info_hash,
        seeds: count(entry.complete),
        leechers: count(entry.incomplete),
        completed: count(entry.downloaded),
    }
}
