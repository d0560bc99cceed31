//! Who the puppets of a scenario are, and where.

use core::net::{IpAddr, Ipv4Addr};

use taipei_engine::Config;

use crate::plan::HostPlan;
use crate::scenario::{Actor, DiskModel, Has, NatBox};

/// The puppets of a scenario. Their numbers are apart from those of hosts, so that one group fewer shifts no puppet.
pub(crate) fn cast(actors: &[Actor], nats: &[NatBox]) -> impl Iterator<Item = HostPlan> {
    actors
        .iter()
        .scan(0, |first, actor| {
            let id = PUPPET_ID_FIRST + *first;
            *first += u64::from(actor.count.unwrap_or(0));
            Some((id, actor))
        })
        .flat_map(|(first, actor)| {
            let nat = nats.iter().position(|nat| actor.behind.as_ref() == Some(&nat.name));
            actor.peers().map(move |(number, behaviour)| {
                let id = first + u64::from(number) - 1;
                HostPlan {
                    name: format!("{}-{number}", actor.name),
                    id,
                    group: actor.name.clone(),
                    address: if nat.is_some() { inner_address(id) } else { puppet_address(id) },
                    second: None,
                    nat,
                    access: actor.access.unwrap_or_default(),
                    disk: DiskModel::default(),
                    config: Config::default(),
                    is_router: false,
                    has_all: actor.has.map_or(!behaviour.downloads(), |has| has == Has::All),
                    magnet: false,
                    lies: None,
                    puppet: Some(behaviour),
                }
            })
        })
}

/// Puppets have a network of their own.
fn puppet_address(id: u64) -> IpAddr {
    Ipv4Addr::from_bits((95 << 24) | ((id - PUPPET_ID_FIRST) as u32 + 1) << 8 | 1).into()
}

/// Behind a box, far from the hosts there.
fn inner_address(id: u64) -> IpAddr {
    Ipv4Addr::from_bits((10 << 24) | (1 << 23) | ((id - PUPPET_ID_FIRST) as u32 + 1)).into()
}

/// Whether a puppet is at this address.
pub(crate) fn is_puppet(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[0] == 95)
}

const PUPPET_ID_FIRST: u64 = 1 << 20;
