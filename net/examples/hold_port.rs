//! Holds a port at the router until it is asked to end, and says what becomes of it, a line each.
//!
//! ```sh
//! cargo run -p taipei-net --example hold_port -- --port 6881 --by upnp --lease 60
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use std::{env, error, io};

use taipei_net::{Bind, EndSignals, PortMapper, PortMapping, Way};
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn error::Error>> {
    let (mut port, mut bind, mut mapping) = (6881, Bind::Any, PortMapping::default());
    let mut arguments = env::args().skip(1);
    while let (Some(flag), Some(value)) = (arguments.next(), arguments.next()) {
        match flag.as_str() {
            "--port" => port = value.parse()?,
            "--bind" => bind = value.parse()?,
            "--lease" => mapping.lease = Duration::from_secs(value.parse()?),
            "--by" => {
                mapping.ways = match value.as_str() {
                    "upnp" => vec![Way::Upnp],
                    "nat-pmp" => vec![Way::NatPmp],
                    "pcp" => vec![Way::Pcp],
                    _ => return Err("--by is upnp, nat-pmp or pcp".into()),
                }
            }
            _ => return Err("there are --port, --bind, --by and --lease".into()),
        }
    }
    let address = match &bind {
        Bind::Address(address) => SocketAddr::new(*address, port),
        _ => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
    };
    // Whoever the router lets in is let in here, and sent away.
    let listener = TcpListener::bind(address).await?;
    let mut signals = EndSignals::new()?;
    let mapper = PortMapper::start(bind, &[address], &mapping);
    let mapper = mapper.ok_or_else(|| io::Error::other("no router can stand before this address"))?;
    let mut port = mapper.watch();
    loop {
        tokio::select! {
            biased;
            () = signals.next() => break,
            Some(status) = port.changed() => println!("{status:?}"),
            _ = listener.accept() => {}
        }
    }
    mapper.release().await;
    Ok(())
}
