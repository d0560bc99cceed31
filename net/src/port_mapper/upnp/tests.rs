//! UPnP against answers of every kind, and against a scripted device on loopback.

use std::collections::VecDeque;
use std::sync::Mutex;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::Bind;

const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

fn judged(location: &str, from: [u8; 4], gateway: Option<[u8; 4]>) -> Option<Location> {
    let answer = format!("HTTP/1.1 200 OK\r\nST: x\r\nLocation: {location}\r\nUSN: y\r\n\r\n");
    judge(answer.as_bytes(), from.into(), gateway.map(Ipv4Addr::from))
}

#[test]
fn a_description_is_fetched_from_who_answered_alone() {
    let near = Location { target: SocketAddrV4::new(ROUTER, 5000), path: "/root.xml?a=b".to_owned() };
    assert_eq!(judged("http://192.168.0.1:5000/root.xml?a=b#x", [192, 168, 0, 1], None), Some(near));
    assert!(judged("http://192.168.0.1/", [192, 168, 0, 1], None).is_some_and(|at| at.target.port() == 80));
    // The default gateway may be outside the local network, and answer from another address of its own.
    assert!(judged("http://8.8.8.8/", [8, 8, 8, 8], Some([8, 8, 8, 8])).is_some());
    assert!(judged("http://192.168.0.1/", [192, 168, 0, 9], Some([192, 168, 0, 1])).is_some());
    for (location, from) in [
        ("http://192.168.0.7/", [192, 168, 0, 1]),
        ("http://8.8.8.8/", [8, 8, 8, 8]),
        ("http://8.8.8.8/", [192, 168, 0, 1]),
        ("http://127.0.0.1:631/", [127, 0, 0, 1]),
        ("http://127.0.0.1:631/", [192, 168, 0, 1]),
        ("http://0.0.0.0/", [0, 0, 0, 0]),
        ("https://192.168.0.1/", [192, 168, 0, 1]),
        ("http://router.example/", [192, 168, 0, 1]),
        ("http://192.168.0.1@8.8.8.8/", [192, 168, 0, 1]),
        ("http://user@192.168.0.1/", [192, 168, 0, 1]),
        ("http://[fe80::1]/", [192, 168, 0, 1]),
        ("http://192.168.0.1:0/", [192, 168, 0, 1]),
        ("file:///etc/passwd", [192, 168, 0, 1]),
        ("", [192, 168, 0, 1]),
    ] {
        assert_eq!(judged(location, from, None), None, "{location} from {from:?}");
    }
    let long = format!("http://192.168.0.1/{}", "a".repeat(URL_BYTES_MAX));
    assert_eq!(judged(&long, [192, 168, 0, 1], None), None);
    assert_eq!(judge(b"HTTP/1.1 404 No\r\nLocation: http://192.168.0.1/\r\n\r\n", ROUTER, None), None);
    assert_eq!(judge(b"\xff\xfe", ROUTER, None), None);
    assert_eq!(judge(b"", ROUTER, None), None);
}

fn description(before: &str, kind: &str, control: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><root>{before}<device><serviceList><service>\
         <serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType><controlURL>/no</controlURL>\
         </service></serviceList><deviceList><device><serviceList><service>\
         <serviceType> urn:schemas-upnp-org:service:{kind} </serviceType>\
         <serviceId>x</serviceId><controlURL>{control}</controlURL></service></serviceList></device></deviceList>\
         </device></root>"
    )
}

fn control(before: &str, kind: &str, url: &str) -> Option<String> {
    let location = Location { target: SocketAddrV4::new(ROUTER, 5000), path: "/desc/root.xml".to_owned() };
    let found = control_of(&description(before, kind, url), &location);
    found.map(|(_, path, target)| format!("{target}{path}"))
}

#[test]
fn the_control_url_is_at_the_same_host() {
    let ip = "WANIPConnection:1";
    let is = |found: Option<String>, wanted: &str| assert_eq!(found.as_deref(), Some(wanted));
    is(control("", ip, "/ctl"), "192.168.0.1:5000/ctl");
    is(control("", "WANPPPConnection:1", "ctl?x=1"), "192.168.0.1:5000/desc/ctl?x=1");
    is(control("", "WANIPConnection:2", "http://192.168.0.1:49152/c"), "192.168.0.1:49152/c");
    is(control("<URLBase>http://192.168.0.1:80/</URLBase>", ip, "c"), "192.168.0.1:80/c");
    is(control("<URLBase></URLBase>", ip, "/c"), "192.168.0.1:5000/c");
    for elsewhere in
        ["http://8.8.8.8/c", "//8.8.8.8/c", "http://192.168.0.2/c", "https://192.168.0.1/c", "mailto:x"]
    {
        assert_eq!(control("", ip, elsewhere), None, "{elsewhere}");
    }
    // A path, not a host.
    is(control("", ip, "@8.8.8.8/c"), "192.168.0.1:5000/desc/@8.8.8.8/c");
    assert_eq!(control("<URLBase>http://8.8.8.8/</URLBase>", ip, "/c"), None);
    assert_eq!(control("<URLBase>nonsense</URLBase>", ip, "/c"), None);
    assert_eq!(control("", "WANCommonInterfaceConfig:1", "/c"), None);
    assert_eq!(control("", ip, &"a".repeat(URL_BYTES_MAX + 1)), None);
}

#[test]
fn what_a_reader_would_choke_on_is_not_given_to_it() {
    assert!(is_harmless("<a><b>x</b></a>"));
    assert!(!is_harmless(&"<a>".repeat(20_000)));
    assert!(!is_harmless("<!DOCTYPE x [<!ENTITY a \"aaaa\">]><a>&a;</a>"));
}

proptest! {
    #[test]
    fn hostile_answers_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in ".{0,200}") {
        judge(&bytes, ROUTER, Some(ROUTER));
        judged(&text, ROUTER.octets(), None);
        control(&text, &text, &text);
        let location = Location { target: SocketAddrV4::new(ROUTER, 1), path: "/".to_owned() };
        control_of(&String::from_utf8_lossy(&bytes), &location);
    }

    #[test]
    fn no_answer_leads_elsewhere(host in any::<u32>(), from in any::<u32>(), gateway in any::<Option<u32>>()) {
        let (host, from, gateway) = (Ipv4Addr::from(host), Ipv4Addr::from(from), gateway.map(Ipv4Addr::from));
        let answer = format!("HTTP/1.1 200 OK\r\nLOCATION: http://{host}/x\r\n\r\n");
        if let Some(found) = judge(answer.as_bytes(), from, gateway) {
            let ip = *found.target.ip();
            prop_assert!(Some(ip) == gateway || (ip == from && Scope::of(ip.into()) == Scope::Private));
        }
    }
}

/// A device at a loopback address that gives these answers in turn, and keeps what it was asked.
struct Device {
    router: Router,
    asked: std::sync::Arc<Mutex<Vec<String>>>,
}

impl Device {
    async fn new(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let asked = std::sync::Arc::new(Mutex::new(Vec::new()));
        let (seen, mut answers) =
            (asked.clone(), answers.iter().map(|it| (*it).to_owned()).collect::<VecDeque<_>>());
        tokio::spawn(async move {
            while let Some(answer) = answers.pop_front() {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"Envelope>") {
                    let mut some = [0; 4096];
                    let length = stream.read(&mut some).await.unwrap();
                    assert!(length > 0, "{}", String::from_utf8_lossy(&request));
                    request.extend(&some[..length]);
                }
                seen.lock().unwrap().push(String::from_utf8(request).unwrap());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let SocketAddr::V4(location) = target else { panic!("IPv4 was asked for") };
        let location = Location { target: location, path: "/".to_owned() };
        let transport = TcpTransport::new(Bind::Any);
        let schema = |action: &str, arguments: &[&str]| {
            (action.to_owned(), arguments.iter().map(|argument| (*argument).to_owned()).collect())
        };
        let gateway = Gateway {
            addr: target,
            root_url: location.path,
            // Nothing of it is used but by the crate's own words.
            control_url: "@8.8.8.8/ctl".to_owned(),
            control_schema_url: String::new(),
            control_schema: HashMap::from([
                schema("AddPortMapping", &ARGUMENTS_OF_ADD),
                schema("DeletePortMapping", &ARGUMENTS_OF_DELETE),
            ]),
            provider: ThroughDoor,
        };
        let door = Door { transport, target, path: "/ctl".to_owned(), service: SERVICES[2] };
        Self { router: Router { gateway, door, local: ROUTER }, asked }
    }

    async fn map(&self, external: u16) -> Result<(u16, Option<u64>), String> {
        let wish = Wish {
            internal: 6881,
            external,
            lease: Duration::from_secs(3600),
            nonce: [0; 12],
            may_hold: std::sync::Arc::default(),
        };
        let granted = self.router.map(&wish).await.map_err(|error| error.to_string())?;
        assert_eq!(granted.tcp, granted.udp);
        Ok((granted.tcp, granted.lease.map(|lease| lease.as_secs())))
    }

    /// What stood in an element of each request that has it.
    fn asked(&self, element: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter_map(|request| Some(text_of(request, element)?.to_owned())).collect()
    }
}

fn answer(status: &str, body: &str) -> String {
    let body = format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>{body}</s:Body>\
         </s:Envelope>"
    );
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn ok(action: &str, inside: &str) -> String {
    let service = SERVICES[2];
    answer("200 OK", &format!("<u:{action}Response xmlns:u=\"{service}\">{inside}</u:{action}Response>"))
}

fn error(code: u16) -> String {
    let detail = format!(
        "<UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>{code}</errorCode>\
         <errorDescription>&lt;script&gt;</errorDescription></UPnPError>"
    );
    answer("500 Internal Server Error", &format!("<s:Fault><detail>{detail}</detail></s:Fault>"))
}

fn external_ip(ip: &str) -> String {
    ok("GetExternalIPAddress", &format!("<NewExternalIPAddress>{ip}</NewExternalIPAddress>"))
}

async fn check(answers: &[&str], external: u16) -> (Result<(u16, Option<u64>), String>, Vec<String>) {
    let mut all = vec![external_ip("1.2.3.4")];
    all.extend(answers.iter().map(|answer| match answer.parse() {
        Ok(code) => error(code),
        Err(_) if *answer == "removed" => ok("DeletePortMapping", ""),
        Err(_) if *answer == "added" => ok("AddPortMapping", ""),
        Err(_) => (*answer).to_owned(),
    }));
    let device = Device::new(&all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let result = device.map(external).await;
    (result, device.asked("NewExternalPort"))
}

#[tokio::test]
async fn the_port_wished_for_is_mapped_for_both_in_the_words_of_the_device() {
    let device =
        Device::new(&[&external_ip("1.2.3.4"), &ok("AddPortMapping", ""), &ok("AddPortMapping", "")]).await;
    assert_eq!(device.map(6881).await, Ok((6881, Some(3600))));
    assert_eq!(device.asked("NewProtocol"), ["TCP", "UDP"]);
    assert_eq!(device.asked("NewInternalClient"), ["192.168.0.1", "192.168.0.1"]);
    assert_eq!(device.asked("NewLeaseDuration"), ["3600", "3600"]);
    for request in device.asked.lock().unwrap().iter() {
        assert!(request.starts_with("POST /ctl HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(SERVICES[2]) && !request.contains(SERVICES[0]), "{request}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_gives_way_to_the_next() {
    let (mapped, ports) = check(&["718", "added", "718", "removed", "added", "added"], 6881).await;
    assert_eq!(mapped, Ok((6883, Some(3600))));
    assert_eq!(ports, ["6881", "6882", "6882", "6882", "6883", "6883"], "never one protocol alone");
    let (mapped, _) = check(&["718", "added", "added"], u16::MAX).await;
    assert_eq!(mapped, Ok((UNPRIVILEGED, Some(3600))));
    let (mapped, ports) = check(&["718"; 12], 6881).await;
    assert_eq!((mapped.is_err(), ports.len()), (true, PORTS_MAX as usize));
}

#[tokio::test]
async fn a_device_that_knows_no_leases_maps_for_ever() {
    let (mapped, _) = check(&["725", "added", "added"], 6881).await;
    assert_eq!(mapped, Ok((6881, None)));
    // Nor other ports than ours.
    let (mapped, ports) = check(&["724", "added", "added"], 7000).await;
    assert_eq!((mapped, ports.len()), (Ok((6881, Some(3600))), 3));
    let (mapped, _) = check(&["724", "718"], 7000).await;
    assert!(mapped.is_err());
}

#[tokio::test]
async fn nonsense_is_a_failure_without_the_words_of_the_device() {
    let deep = answer("200 OK", &"<a>".repeat(10_000));
    let long = answer("200 OK", &"x".repeat(BODY_BYTES_MAX + 1));
    for bad in
        ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "nothing of HTTP\r\n\r\n", "", &deep, &long]
    {
        let (mapped, _) = check(&[bad], 6881).await;
        assert_eq!(mapped, Err(Failed::Nonsense.to_string()), "{}", bad.get(..60).unwrap_or(bad));
    }
    assert_eq!(check(&["606"], 6881).await.0, Err("the router refuses, with code 606".to_owned()));
    assert_eq!(check(&["501"], 6881).await.0, Err("the router refuses, with code 501".to_owned()));
}
