//! UPnP: a gateway device is found by multicast and asked over HTTP. The `igd` crate makes the questions to it and reads
//! the answers; all that touches the network is here.
//!
//! Everything that comes is from whoever is in the local network, so it is judged before it is used. The crate's own search
//! and its own HTTP are not: they fetch from whatever address an answer names, follow a control URL to another host
//! (`@elsewhere/`), take answers of any length, read their XML recursively, and use whatever interface there is. Its
//! [`Provider`] lets us do that ourselves. What it leaves to us here: an answer that it is to read has no more elements than
//! [`ELEMENTS_MAX`], so that its recursion ends.

use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use igd::aio::{Gateway, Provider};
use igd::{AddPortError, PortMappingProtocol, RemovePortError, RequestError};
use taipei_engine::address::Scope;
use taipei_engine::driver::Transport as _;
use tokio::net::UdpSocket;
use tracing::{debug, trace};
use url::{Host, Url};

use super::plan::Granted;
use super::{Failed, Wish, seconds_of};
use crate::TcpTransport;

/// A gateway device that was found, and our address on the way to it.
#[derive(Clone, Debug)]
pub(super) struct Router {
    gateway: Gateway<ThroughDoor>,
    door: Door,
    local: Ipv4Addr,
}

impl Router {
    /// Asks the local network for gateway devices and takes the first that holds up. `gateway` is the default one, where
    /// it is known.
    pub(super) async fn find(
        transport: &TcpTransport,
        gateway: Option<Ipv4Addr>,
        local: Option<Ipv4Addr>,
    ) -> Result<Self, Failed> {
        let socket = transport.udp_socket(false, 0).map_err(Failed::System)?.ok_or(Failed::NoRouter)?;
        let options = socket2::SockRef::from(&socket);
        options.set_multicast_ttl_v4(MULTICAST_HOPS).map_err(Failed::System)?;
        if let Some(local) = local {
            options.set_multicast_if_v4(&local).map_err(Failed::System)?;
        }
        let mut seen = Vec::new();
        for _ in 0..SEARCHES {
            for kind in DEVICES {
                socket.send_to(search_for(kind).as_bytes(), SSDP).await.map_err(Failed::System)?;
            }
            let until = tokio::time::Instant::now() + SEARCH_WAIT;
            while let Some(location) = next_location(&socket, until, gateway).await {
                if seen.contains(&location) || seen.len() == LOCATIONS_MAX {
                    continue;
                }
                seen.push(location.clone());
                match Self::describe(transport, &location).await {
                    Ok(router) => return Ok(router),
                    Err(error) => debug!(%error, "no gateway device"),
                }
            }
        }
        Err(Failed::NoRouter)
    }

    /// Reads what a device says of itself.
    async fn describe(transport: &TcpTransport, location: &Location) -> Result<Self, Failed> {
        let target = SocketAddr::V4(location.target);
        let request = request(Method::GET, target, &location.path).body(Full::default());
        let request = request.map_err(|_| Failed::Nonsense)?;
        let (local, status, body) = exchange(transport, target, request).await?;
        let description = std::str::from_utf8(&body).map_err(|_| Failed::Nonsense)?;
        if status != 200 {
            return Err(Failed::Nonsense);
        }
        let (service, path, target) = control_of(description, location).ok_or(Failed::NotSpoken)?;
        let target = SocketAddr::V4(target);
        let IpAddr::V4(local) = local else { return Err(Failed::Nonsense) };
        if Scope::of(local.into()) != Scope::Private {
            return Err(Failed::NotBehind);
        }
        let schema = |action: &str, arguments: &[&str]| {
            (action.to_owned(), arguments.iter().map(|argument| (*argument).to_owned()).collect())
        };
        let gateway = Gateway {
            addr: target,
            root_url: location.path.clone(),
            control_url: path.clone(),
            control_schema_url: String::new(),
            // As the standard has them for every device.
            control_schema: HashMap::from([
                schema("AddPortMapping", &ARGUMENTS_OF_ADD),
                schema("DeletePortMapping", &ARGUMENTS_OF_DELETE),
            ]),
            provider: ThroughDoor,
        };
        Ok(Self { gateway, door: Door { transport: transport.clone(), target, path, service }, local })
    }

    /// Maps both protocols at one port: the one wished for, or the next that is free.
    pub(super) async fn map(&self, wish: &Wish) -> Result<Granted, Failed> {
        let external_ip = match self.talk(self.gateway.get_external_ip()).await {
            Ok(IpAddr::V4(ip)) if !ip.is_unspecified() => Some(ip),
            // A device may not know it, and map all the same.
            _ => None,
        };
        wish.asked();
        let mut lease = Some(wish.lease);
        let mut external = wish.external;
        let mut tries = PORTS_MAX;
        loop {
            match self.add_both(wish.internal, external, lease).await {
                Ok(()) => return Ok(Granted { tcp: external, udp: external, external_ip, lease }),
                Err(AddPortError::OnlyPermanentLeasesSupported) if lease.is_some() => lease = None,
                // It maps a port to the same one only.
                Err(AddPortError::SamePortValuesRequired) if external != wish.internal => {
                    (external, tries) = (wish.internal, 1);
                }
                Err(AddPortError::PortInUse) if tries > 1 => {
                    tries -= 1;
                    external = external.checked_add(1).unwrap_or(UNPRIVILEGED);
                }
                Err(error) => return Err(failed(&error)),
            }
        }
    }

    async fn add_both(
        &self,
        internal: u16,
        external: u16,
        lease: Option<Duration>,
    ) -> Result<(), AddPortError> {
        self.add(PortMappingProtocol::TCP, internal, external, lease).await?;
        let added = self.add(PortMappingProtocol::UDP, internal, external, lease).await;
        if added.is_err() {
            // Half of it is of no use.
            let _ = self.remove(PortMappingProtocol::TCP, external).await;
        }
        added
    }

    async fn add(
        &self,
        protocol: PortMappingProtocol,
        internal: u16,
        external: u16,
        lease: Option<Duration>,
    ) -> Result<(), AddPortError> {
        let here = SocketAddr::from((self.local, internal));
        let seconds = lease.map_or(0, seconds_of);
        self.talk(self.gateway.add_port(protocol, external, here, seconds, DESCRIPTION)).await
    }

    async fn remove(&self, protocol: PortMappingProtocol, external: u16) -> Result<(), RemovePortError> {
        self.talk(self.gateway.remove_port(protocol, external)).await
    }

    /// Has it forget what it gave.
    pub(super) async fn release(&self, granted: &Granted) {
        for (protocol, port) in
            [(PortMappingProtocol::TCP, granted.tcp), (PortMappingProtocol::UDP, granted.udp)]
        {
            if let Err(error) = self.remove(protocol, port).await {
                debug!(code = ?code_of_remove(&error), "a mapping was not released by UPnP");
            }
        }
    }

    /// Lets the crate's questions out by our door alone.
    async fn talk<T>(&self, question: impl Future<Output = T>) -> T {
        DOOR.scope(self.door.clone(), question).await
    }
}

tokio::task_local! {
    /// Where a question of the crate's goes: its `Provider` is a type without a value.
    static DOOR: Door;
}

#[derive(Clone, Debug)]
struct Door {
    transport: TcpTransport,
    target: SocketAddr,
    path: String,
    service: &'static str,
}

/// Performs what the crate asks, whatever URL it would ask at.
#[derive(Clone, Copy, Debug)]
struct ThroughDoor;

impl Provider for ThroughDoor {
    async fn send_async(_: &str, action: &str, body: &str) -> Result<String, RequestError> {
        let door = DOOR.with(Door::clone);
        // The crate knows of one service; the others are asked in the same words.
        let (action, body) =
            (action.replace(SERVICES[0], door.service), body.replace(SERVICES[0], door.service));
        let request = request(Method::POST, door.target, &door.path)
            .header("SOAPAction", action)
            .header(CONTENT_TYPE, "text/xml; charset=\"utf-8\"")
            .body(Full::from(body))?;
        let nonsense = |_| RequestError::InvalidResponse(String::new());
        let (_, _, answer) = exchange(&door.transport, door.target, request).await.map_err(nonsense)?;
        let answer = String::from_utf8(answer.into())?;
        if is_harmless(&answer) { Ok(answer) } else { Err(RequestError::InvalidResponse(String::new())) }
    }
}

/// Where a device says that its description is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Location {
    target: SocketAddrV4,
    path: String,
}

/// The next answer to a search that names a description worth fetching.
async fn next_location(
    socket: &UdpSocket,
    until: tokio::time::Instant,
    gateway: Option<Ipv4Addr>,
) -> Option<Location> {
    let mut buffer = [0; ANSWER_BYTES_MAX];
    loop {
        match tokio::time::timeout_at(until, socket.recv_from(&mut buffer)).await {
            Err(_) => return None,
            Ok(Ok((length, SocketAddr::V4(from)))) => {
                let location = buffer.get(..length).and_then(|answer| judge(answer, *from.ip(), gateway));
                if location.is_some() {
                    return location;
                }
                trace!("an answer to a search that is of no use");
            }
            // Told of an earlier question that reached nobody, or nothing that can be helped.
            Ok(_) => tokio::time::sleep(AFTER_ERROR).await,
        }
    }
}

/// Where an answer to a search leads. Only to whoever sent it, or to the default gateway: nobody makes us ask others. And
/// only into the local network, unless the default gateway itself is outside.
fn judge(answer: &[u8], from: Ipv4Addr, gateway: Option<Ipv4Addr>) -> Option<Location> {
    let answer = std::str::from_utf8(answer).ok()?;
    let mut lines = answer.lines();
    let is_ok = lines.next()?.split_ascii_whitespace().nth(1) == Some("200");
    let header = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("location").then(|| value.trim())
    });
    let url = header.filter(|url| is_ok && url.len() <= URL_BYTES_MAX)?;
    let location = locate(&Url::parse(url).ok()?)?;
    let ip = *location.target.ip();
    let is_near = Scope::of(ip.into()) == Scope::Private && ip == from;
    (is_near || Some(ip) == gateway).then_some(location)
}

/// An `http` URL with an address for a host.
fn locate(url: &Url) -> Option<Location> {
    let Some(Host::Ipv4(ip)) = url.host() else { return None };
    let port = url.port_or_known_default().filter(|port| *port != 0)?;
    if url.scheme() != "http" || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Some(Location { target: SocketAddrV4::new(ip, port), path: format!("{}{query}", url.path()) })
}

/// The first service of a description that maps ports: its name, and path and address of its control URL, which is at the
/// same host as the description. Not a reader of XML: it looks for what each description has, at whatever depth.
fn control_of(description: &str, location: &Location) -> Option<(&'static str, String, SocketAddrV4)> {
    let base = format!("http://{}{}", location.target, location.path);
    let base = match text_of(description, "URLBase") {
        Some(base) if !base.is_empty() => Url::parse(base).ok()?,
        _ => Url::parse(&base).ok()?,
    };
    description.split("<service>").skip(1).take(SERVICES_MAX).find_map(|service| {
        let service = service.split("</service>").next()?;
        let kind = text_of(service, "serviceType")?;
        let kind = SERVICES.iter().find(|known| **known == kind)?;
        let control = text_of(service, "controlURL").filter(|url| url.len() <= URL_BYTES_MAX)?;
        let control = locate(&base.join(control).ok()?)?;
        (control.target.ip() == location.target.ip()).then_some((*kind, control.path, control.target))
    })
}

/// What stands in the first element of this name, without what surrounds it.
fn text_of<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once("</")?;
    Some(text.trim())
}

/// Whether XML can be given to a reader that goes as deep as it goes: few elements, and nothing that stands for more.
fn is_harmless(xml: &str) -> bool {
    xml.matches('<').count() <= 2 * ELEMENTS_MAX && !xml.contains("<!")
}

fn request(method: Method, target: SocketAddr, path: &str) -> hyper::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, target.to_string())
        .header(USER_AGENT, concat!("taipei/", env!("CARGO_PKG_VERSION"), " UPnP/1.1"))
        .header(CONNECTION, "close")
}

/// One request and its answer: our address on the way, the status, the body.
async fn exchange(
    transport: &TcpTransport,
    target: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<(IpAddr, u16, Bytes), Failed> {
    let work = async {
        let stream = transport.connect(target).await.map_err(Failed::Net)?;
        let local = stream.local.ip();
        let stream = TokioIo::new(tokio::io::join(stream.reader, stream.writer));
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEADER_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .title_case_headers(true)
            .handshake(stream)
            .await
            .map_err(|_| Failed::Nonsense)?;
        let mut connection = pin!(connection);
        let mut answer = pin!(async {
            let response = sender.send_request(request).await.map_err(|_| Failed::Nonsense)?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
            Ok((local, status, body.map_err(|_| Failed::Nonsense)?.to_bytes()))
        });
        let mut is_open = true;
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                _ = &mut connection, if is_open => is_open = false,
            }
        }
    };
    tokio::time::timeout(EXCHANGE_TIME_MAX, work).await.unwrap_or(Err(Failed::NoRouter))
}

/// Says no more than the number of the refusal: the words are the router's.
fn failed(error: &AddPortError) -> Failed {
    match error {
        AddPortError::ActionNotAuthorized => Failed::Refused(606),
        AddPortError::PortInUse => Failed::Refused(718),
        AddPortError::SamePortValuesRequired => Failed::Refused(724),
        AddPortError::OnlyPermanentLeasesSupported => Failed::Refused(725),
        AddPortError::DescriptionTooLong => Failed::Refused(605),
        AddPortError::RequestError(RequestError::ErrorCode(code, _)) => Failed::Refused(*code),
        _ => Failed::Nonsense,
    }
}

fn code_of_remove(error: &RemovePortError) -> Option<u16> {
    match error {
        RemovePortError::NoSuchPortMapping => Some(714),
        RemovePortError::ActionNotAuthorized => Some(606),
        RemovePortError::RequestError(RequestError::ErrorCode(code, _)) => Some(*code),
        RemovePortError::RequestError(_) => None,
    }
}

fn search_for(kind: &str) -> String {
    format!(
        "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\nST: {kind}\r\n\r\n"
    )
}

/// What a mapping is called in the router's table.
const DESCRIPTION: &str = "taipei";
const SSDP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900);
const DEVICES: [&str; 2] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
];
/// Services that map ports. The first is the one that the crate knows.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];
const ARGUMENTS_OF_ADD: [&str; 8] = [
    "NewRemoteHost",
    "NewExternalPort",
    "NewProtocol",
    "NewInternalPort",
    "NewInternalClient",
    "NewEnabled",
    "NewPortMappingDescription",
    "NewLeaseDuration",
];
const ARGUMENTS_OF_DELETE: [&str; 3] = ["NewRemoteHost", "NewExternalPort", "NewProtocol"];
/// A router is one hop away; two is what the standard says.
const MULTICAST_HOPS: u32 = 2;
/// Datagrams are lost.
const SEARCHES: u32 = 2;
/// Devices answer within the two seconds that the question gives them (`MX`).
const SEARCH_WAIT: Duration = Duration::from_millis(2500);
/// Devices asked for their description in one search.
const LOCATIONS_MAX: usize = 8;
/// An answer to a search is one datagram.
const ANSWER_BYTES_MAX: usize = 1500;
const URL_BYTES_MAX: usize = 512;
/// After a socket said no.
const AFTER_ERROR: Duration = Duration::from_millis(100);
/// Of a router's answer.
const HEADER_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// Descriptions are a few KiB, answers less.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Services looked at in a description.
const SERVICES_MAX: usize = 64;
/// An answer has less than twenty.
const ELEMENTS_MAX: usize = 64;
/// From the dial to the last byte.
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(5);
/// Ports tried, one after the other.
const PORTS_MAX: u32 = 10;
/// The first port that is anybody's.
const UNPRIVILEGED: u16 = 1024;

#[cfg(test)]
mod tests;
