//! One exchange with a tracker: look its name up, choose an address, ask over HTTP, with redirects, or over UDP.
//!
//! States: *looking up* -> *asking*, once for each address until one answers; a redirect leads back to looking up. Each
//! state waits for its turn until [`Exchange::on_out`] and only then for time. It ends with [`Step::Answered`] or
//! [`Step::Failed`].
//!
//! Redirects and addresses are judged here, on the address that is connected to: never more local than where the
//! redirect came from, and over HTTP on this machine and in its networks only below a path of trackers, so that a
//! torrent cannot make us talk to a service of ours or to a router. It never resolves a name that is an address, and never follows a redirect to UDP.

use core::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use url::{Host, Url};

use crate::address::{Scope, is_dialable};
use crate::ids::HttpId;
use crate::input::{HttpResponse, NetError};
use crate::limits::{
    HTTP_TIMEOUT, REDIRECTS_MAX, TRACKER_ADDRESSES_MAX, TRACKER_BODY_BYTES_MAX, TRACKER_URL_BYTES_MAX,
};
use crate::output::HttpGet;
use crate::time::Instant;
use crate::udp_trackers::UdpAsk;
use crate::wire::gzip::{InflateError, inflate};
use crate::wire::tracker_http::{AnswerError, imitates_announce};
use crate::wire::tracker_udp::UdpAnswer;

/// Where a tracker is, from a URL that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Of `udp` too the scheme is `http` here, so that host and port are read by the same rules.
    url: Url,
    udp: bool,
    /// How its path begins if it is on this machine or in a local network.
    local_path: &'static str,
}

/// An exchange under way.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    /// Where it is now, after redirects.
    endpoint: Endpoint,
    redirects: u32,
    /// The widest scope it was redirected from; nothing more local may follow.
    scope_min: Scope,
    /// Every address of the name, as they were found.
    known: Vec<IpAddr>,
    /// Addresses not tried yet, in reverse.
    untried: Vec<IpAddr>,
    /// Addresses that did not answer.
    failed: Vec<IpAddr>,
    /// Who is asked; none while a name is looked up.
    target: Option<SocketAddr>,
    /// None: it waits for its turn, or over UDP somebody else looks at the time.
    deadline: Option<Instant>,
}

/// A name for something that an exchange waits for. Never used twice; one that is out of date is ignored when it comes
/// back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token(pub(crate) u32);

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Look [`Exchange::name`] up, and say [`Exchange::handle_resolved`].
    LookUp,
    /// Ask at [`Exchange::target`], and say [`Exchange::handle_http`] or [`Exchange::handle_udp`].
    Ask,
    /// It is over.
    Answered(Answered),
    /// It is over.
    Failed(TrackerError),
}

/// What a tracker said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// Over HTTP.
    Http {
        /// The status code.
        status: u16,
        /// The body, inflated.
        body: Bytes,
    },
    /// Over UDP; no error.
    Udp(UdpAnswer),
}

/// What an exchange asks of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Look a name up.
    Resolve(String),
    /// One HTTP request; its id is to be set.
    Get(Box<HttpGet>),
    /// One question over UDP.
    Udp(SocketAddr, UdpAsk),
}

/// What is wrong with a tracker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TrackerError {
    /// No URL, or a very long one.
    #[error("not a usable URL")]
    BadUrl,
    /// WebSocket and others.
    #[error("{0} trackers are not supported yet")]
    Unsupported(String),
    /// A URL that would make us say what we did not say.
    #[error("its URL imitates an announce")]
    Imitation,
    /// A service of this machine or of a local network that is no tracker.
    #[error("a tracker on this machine or in a local network must have a path that begins with /announce")]
    LocalPath,
    /// A redirect into somebody's local network.
    #[error("redirected from a public to a local address")]
    RedirectToLocal,
    /// A redirect that leads nowhere.
    #[error("redirected to something that is no http or https URL")]
    RedirectTarget,
    /// A loop, most likely.
    #[error("redirected more than {REDIRECTS_MAX} times")]
    TooManyRedirects,
    /// An address where no host can be.
    #[error("its address cannot be connected to")]
    BadAddress,
    /// Its announce URL does not say where to scrape (BEP 48).
    #[error("this tracker cannot be scraped: its URL does not end with announce")]
    NoScrape,
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Neither an answer nor a redirect.
    #[error("HTTP status {0}")]
    Status(u16),
    /// What it said cannot be unpacked.
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// What it said is no answer.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// In its own words, cut to a cap, not escaped.
    #[error("{0}")]
    Refused(String),
}

impl Endpoint {
    /// Where to announce.
    pub(crate) fn announce(text: &str) -> Result<Self, TrackerError> {
        if text.len() > TRACKER_URL_BYTES_MAX {
            return Err(TrackerError::BadUrl);
        }
        let mut url = Url::parse(text).map_err(|_| TrackerError::BadUrl)?;
        let udp = url.scheme() == "udp";
        if udp {
            if !url.has_host() {
                return Err(TrackerError::BadUrl);
            }
            let rest = url.as_str().trim_start_matches("udp");
            url = Url::parse(&format!("http{rest}")).map_err(|_| TrackerError::BadUrl)?;
        }
        match url.scheme() {
            "http" | "https" if !url.has_host() => Err(TrackerError::BadUrl),
            "http" | "https" if url.query().is_some_and(imitates_announce) => Err(TrackerError::Imitation),
            "http" | "https" => Ok(Self { url, udp, local_path: "/announce" }),
            scheme => Err(TrackerError::Unsupported(scheme.chars().take(16).collect())),
        }
    }

    /// Where to scrape, from where to announce (BEP 48): over HTTP the last part of the path must begin with `announce`.
    pub(crate) fn scrape(text: &str) -> Result<Self, TrackerError> {
        let mut endpoint = Self::announce(text)?;
        if !endpoint.udp {
            let path = endpoint.url.path();
            let (folder, last) = path.rsplit_once('/').unwrap_or(("", path));
            let rest = last.strip_prefix("announce").ok_or(TrackerError::NoScrape)?;
            let path = format!("{folder}/scrape{rest}");
            endpoint.url.set_path(&path);
            endpoint.local_path = "/scrape";
        }
        Ok(endpoint)
    }

    pub(crate) fn is_udp(&self) -> bool {
        self.udp
    }

    pub(crate) fn path(&self) -> &str {
        self.url.path()
    }

    pub(crate) fn query(&self) -> Option<&str> {
        self.url.query()
    }

    /// Path and query, for a tracker over UDP (BEP 41). Empty where there is nothing to say.
    pub(crate) fn url_data(&self) -> Vec<u8> {
        match (self.url.path(), self.url.query()) {
            ("/", None) => Vec::new(),
            (path, None) => path.as_bytes().to_vec(),
            (path, Some(query)) => format!("{path}?{query}").into_bytes(),
        }
    }
}

impl Exchange {
    /// Begins.
    pub(crate) fn new(endpoint: Endpoint) -> (Self, Step) {
        let mut exchange = Self {
            endpoint,
            redirects: 0,
            scope_min: Scope::Loopback,
            known: Vec::new(),
            untried: Vec::new(),
            failed: Vec::new(),
            target: None,
            deadline: None,
        };
        let step = exchange.look_up();
        (exchange, step)
    }

    /// The same again at the other family of addresses, or at this one; none where the name has no such address that
    /// has not failed already.
    pub(crate) fn again(&self, other_family: bool) -> Option<Self> {
        let ipv6 = self.target?.is_ipv6() != other_family;
        let mut exchange = self.clone();
        exchange.target = None;
        exchange.deadline = None;
        let usable = |ip: &&IpAddr| ip.is_ipv6() == ipv6 && !self.failed.contains(ip);
        exchange.untried = self.known.iter().filter(usable).copied().collect();
        exchange.untried.truncate(TRACKER_ADDRESSES_MAX);
        exchange.untried.reverse();
        (!exchange.untried.is_empty()).then_some(exchange)
    }

    /// Where it is now, after redirects.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether it was led elsewhere.
    pub(crate) fn is_redirected(&self) -> bool {
        self.redirects > 0
    }

    /// Who is asked; none while a name is looked up.
    pub(crate) fn target(&self) -> Option<SocketAddr> {
        self.target
    }

    /// The name to look up; never an address.
    pub(crate) fn name(&self) -> Option<String> {
        self.endpoint.url.domain().map(str::to_owned)
    }

    /// Whether what it waits for is one of the things that a session does not do too many of at once.
    pub(crate) fn is_costly(&self) -> bool {
        self.target.is_none() || !self.endpoint.udp
    }

    /// What was asked for has gone out.
    pub(crate) fn on_out(&mut self, now: Instant) {
        self.deadline = self.is_costly().then(|| now + HTTP_TIMEOUT);
    }

    /// When it is time for [`Self::handle_timeout`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// A look-up is done.
    pub(crate) fn handle_resolved(&mut self, result: Result<Vec<IpAddr>, NetError>) -> Step {
        match result {
            Ok(addresses) => {
                self.known = addresses;
                self.known.truncate(KNOWN_MAX);
                self.untried = self.known.iter().take(TRACKER_ADDRESSES_MAX).rev().copied().collect();
                self.next_address(NetError::NotFound.into())
            }
            Err(error) => Step::Failed(error.into()),
        }
    }

    /// A request is done.
    pub(crate) fn handle_http(&mut self, result: Result<HttpResponse, NetError>) -> Step {
        let HttpResponse { status, location, body, gzip } = match result {
            Ok(response) => response,
            Err(error) => return self.next_address(error.into()),
        };
        if let (301 | 302 | 303 | 307 | 308, Some(location)) = (status, location) {
            return self.redirect(&location);
        }
        if !gzip {
            return Step::Answered(Answered::Http { status, body });
        }
        match inflate(&body, TRACKER_BODY_BYTES_MAX as usize) {
            Ok(body) => Step::Answered(Answered::Http { status, body: body.into() }),
            Err(error) => Step::Failed(error.into()),
        }
    }

    /// A question is answered, or was not.
    pub(crate) fn handle_udp(&mut self, result: Result<UdpAnswer, NetError>) -> Step {
        match result {
            Ok(UdpAnswer::Failed { message, .. }) => Step::Failed(TrackerError::Refused(message)),
            Ok(answer) => Step::Answered(Answered::Udp(answer)),
            Err(error) => self.next_address(error.into()),
        }
    }

    /// The deadline has passed.
    pub(crate) fn handle_timeout(&mut self) -> Step {
        self.next_address(NetError::TimedOut.into())
    }

    /// The request for a path and query; its id is to be set.
    pub(crate) fn get(&self, path: String) -> Option<HttpGet> {
        let url = &self.endpoint.url;
        let host = url.host_str()?;
        Some(HttpGet {
            request: HttpId(0),
            target: self.target?,
            tls: url.scheme() == "https",
            host: host.trim_matches(['[', ']']).to_owned(),
            authority: url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
            path,
            body_bytes_max: TRACKER_BODY_BYTES_MAX,
        })
    }

    fn look_up(&mut self) -> Step {
        self.target = None;
        self.deadline = None;
        self.known.clear();
        self.untried.clear();
        self.failed.clear();
        let address = match self.endpoint.url.host() {
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
            Some(Host::Domain(_)) => return Step::LookUp,
            None => return Step::Failed(TrackerError::BadUrl),
        };
        self.known.push(address);
        self.untried.push(address);
        self.next_address(TrackerError::BadAddress)
    }

    /// Goes to the next address that is permitted. With none left the exchange has failed, for the reason given or the
    /// last one found here.
    pub(crate) fn next_address(&mut self, mut error: TrackerError) -> Step {
        self.deadline = None;
        self.failed.extend(self.target.take().map(|target| target.ip()));
        while let Some(ip) = self.untried.pop() {
            let port = self.endpoint.url.port_or_known_default().unwrap_or(0);
            let target = SocketAddr::new(ip.to_canonical(), port);
            match self.permits(target) {
                Ok(()) => {
                    self.target = Some(target);
                    return Step::Ask;
                }
                Err(refusal) => error = refusal,
            }
        }
        Step::Failed(error)
    }

    fn permits(&self, target: SocketAddr) -> Result<(), TrackerError> {
        if !is_dialable(target) {
            return Err(TrackerError::BadAddress);
        }
        let scope = Scope::of(target.ip());
        if scope < self.scope_min {
            return Err(TrackerError::RedirectToLocal);
        }
        // A packet of BEP 15 is a command to nobody; a GET may be.
        let Endpoint { url, udp, local_path } = &self.endpoint;
        if scope != Scope::Public && !udp && !url.path().starts_with(local_path) {
            return Err(TrackerError::LocalPath);
        }
        Ok(())
    }

    fn redirect(&mut self, location: &str) -> Step {
        let Some(from) = self.target else { return Step::Failed(TrackerError::RedirectTarget) };
        self.redirects += 1;
        if self.redirects > REDIRECTS_MAX {
            return Step::Failed(TrackerError::TooManyRedirects);
        }
        let joined = self.endpoint.url.join(location).ok();
        let url = joined.filter(|url| {
            location.len() <= TRACKER_URL_BYTES_MAX
                && matches!(url.scheme(), "http" | "https")
                && url.has_host()
        });
        let Some(url) = url else { return Step::Failed(TrackerError::RedirectTarget) };
        self.endpoint.url = url;
        self.scope_min = self.scope_min.max(Scope::of(from.ip()));
        self.look_up()
    }
}

/// Addresses of one name that are remembered, so that there are some of each family.
const KNOWN_MAX: usize = 4 * TRACKER_ADDRESSES_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::announce(text).unwrap()
    }

    #[test]
    fn udp_hosts_are_read_as_those_of_http() {
        let first = |text: &str| {
            let (exchange, step) = Exchange::new(endpoint(text));
            (exchange.target().map(|target| target.to_string()), exchange.name(), step)
        };
        assert_eq!(first("udp://127.0.0.1:6969"), (Some("127.0.0.1:6969".into()), None, Step::Ask));
        assert_eq!(first("UDP://[2001:db8::1]:1/x"), (Some("[2001:db8::1]:1".into()), None, Step::Ask));
        assert_eq!(first("udp://9.9.9.9").0, Some("9.9.9.9:80".into()));
        assert_eq!(first("udp://tracker.Example:1/a"), (None, Some("tracker.example".into()), Step::LookUp));
        for bad in ["udp:", "udp://", "udp://:80", "udp:a", "udp://a:99999"] {
            assert!(matches!(Endpoint::announce(bad), Err(TrackerError::BadUrl)), "{bad}");
        }
    }

    #[test]
    fn a_passkey_over_udp_is_path_and_query() {
        for (url, data) in [
            ("udp://a:1", ""),
            ("udp://a:1/", ""),
            ("udp://a:1/announce", "/announce"),
            ("udp://a:1/x/announce?passkey=1%20", "/x/announce?passkey=1%20"),
            ("udp://a:1/?k=2", "/?k=2"),
        ] {
            assert_eq!(endpoint(url).url_data(), data.as_bytes(), "{url}");
        }
    }

    #[test]
    fn a_scrape_is_where_the_announce_was() {
        let scrape = |text: &str| Endpoint::scrape(text).map(|endpoint| endpoint.url.to_string());
        for (announce, want) in [
            ("http://a/announce", "http://a/scrape"),
            ("http://a/x/announce", "http://a/x/scrape"),
            ("https://a:1/announce.php?pk=1", "https://a:1/scrape.php?pk=1"),
        ] {
            assert_eq!(scrape(announce).as_deref(), Ok(want));
        }
        for none in ["http://a/a", "http://a/", "http://a/announce/x", "http://a/x?announce"] {
            assert_eq!(scrape(none), Err(TrackerError::NoScrape), "{none}");
        }
        assert!(Endpoint::scrape("udp://a:1").is_ok());
    }

    #[test]
    fn on_this_machine_a_scrape_keeps_to_its_path() {
        let first = |text: &str| Exchange::new(Endpoint::scrape(text).unwrap()).1;
        for local in ["127.0.0.1", "[::1]", "192.168.1.1", "[fd00::1]"] {
            assert_eq!(first(&format!("http://{local}/announce")), Step::Ask);
            assert_eq!(first(&format!("http://{local}/x/announce")), Step::Failed(TrackerError::LocalPath));
            assert_eq!(first(&format!("udp://{local}:1/x")), Step::Ask);
        }
        assert_eq!(first("http://9.9.9.9/x/announce"), Step::Ask);
    }

    #[test]
    fn the_other_family_is_asked_at_its_own_addresses() {
        let ips = ["9.9.9.1", "2001:db8::1", "9.9.9.2", "2001:db8::2"].map(|ip| ip.parse().unwrap());
        let (mut exchange, _) = Exchange::new(endpoint("http://a/announce"));
        assert!(exchange.again(true).is_none());
        assert_eq!(exchange.handle_resolved(Ok(ips.to_vec())), Step::Ask);
        let mut other = exchange.again(true).unwrap();
        assert_eq!(other.handle_timeout(), Step::Ask);
        assert_eq!(other.target(), Some("[2001:db8::1]:80".parse().unwrap()));
        assert_eq!(
            (other.handle_timeout(), other.target()),
            (Step::Ask, Some("[2001:db8::2]:80".parse().unwrap()))
        );
        assert_eq!(other.handle_timeout(), Step::Failed(NetError::TimedOut.into()));
        // What has failed is not asked again.
        let (mut exchange, _) = Exchange::new(endpoint("http://a/announce"));
        exchange.handle_resolved(Ok(ips[1..3].to_vec()));
        assert_eq!(
            (exchange.handle_timeout(), exchange.target()),
            (Step::Ask, Some("9.9.9.2:80".parse().unwrap()))
        );
        assert!(exchange.again(true).is_none());
        let (mut exchange, _) = Exchange::new(endpoint("http://a/announce"));
        assert_eq!(exchange.handle_resolved(Ok(ips[..1].to_vec())), Step::Ask);
        assert!(exchange.again(true).is_none() && exchange.again(false).is_some());
    }
}
