//! What others stored here (BEP 44): capped, and forgotten two hours after it was last brought.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::address::Scope;
use crate::dht::item::{Item, ItemName};
use crate::node_id::NodeId;
use crate::time::Instant;
use crate::wire::krpc::{BAD_SIGNATURE, CAS_MISMATCH, SEQUENCE_TOO_OLD};

#[derive(Debug, Default)]
pub(crate) struct Items {
    items: BTreeMap<NodeId, Stored>,
}

#[derive(Debug)]
struct Stored {
    item: Item,
    /// Who brought this version first.
    by: IpAddr,
    /// When it was brought last.
    since: Instant,
}

impl Items {
    /// How many there are, expired ones not yet forgotten included.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// What is stored at a point.
    pub(crate) fn at(&mut self, now: Instant, target: &NodeId) -> Option<&Item> {
        self.expire(now);
        self.items.get(target).map(|stored| &stored.item)
    }

    /// Takes an item, its sizes judged already, from a host that has proved its address.
    ///
    /// # Errors
    /// The code of BEP 44 when the signature does not hold, when what is here is not what the writer thinks, or is newer.
    pub(crate) fn put(&mut self, now: Instant, by: IpAddr, item: Item, cas: Option<i64>) -> Result<(), i64> {
        self.expire(now);
        let name = ItemName::of(&item);
        if !name.is_of(&item) {
            return Err(BAD_SIGNATURE);
        }
        let target = name.target();
        if let Some(stored) = self.items.get_mut(&target) {
            if let (Some(new), Some(old)) = (&item.signed, &stored.item.signed) {
                if cas.is_some_and(|cas| cas != old.sequence) {
                    return Err(CAS_MISMATCH);
                }
                let is_other = new.sequence == old.sequence && item.value != stored.item.value;
                if new.sequence < old.sequence || is_other {
                    return Err(SEQUENCE_TOO_OLD);
                }
            }
            (stored.item, stored.since) = (item, now);
            return Ok(());
        }
        let by = by.to_canonical();
        self.make_room(by);
        self.items.insert(target, Stored { item, by, since: now });
        Ok(())
    }

    /// The oldest goes: of this host, if it has its share, or of all.
    fn make_room(&mut self, by: IpAddr) {
        let is_public = Scope::of(by) == Scope::Public;
        let of_it = |stored: &Stored| is_public && stored.by == by;
        let share_is_full = self.items.values().filter(|stored| of_it(stored)).count() >= ITEMS_PER_HOST_MAX;
        if !share_is_full && self.items.len() < ITEMS_MAX {
            return;
        }
        let candidates = self.items.iter().filter(|(_, stored)| !share_is_full || of_it(stored));
        let oldest = candidates.min_by_key(|(_, stored)| stored.since).map(|(target, _)| *target);
        oldest.map(|target| self.items.remove(&target));
    }

    fn expire(&mut self, now: Instant) {
        self.items.retain(|_, stored| now.since(stored.since) < ITEM_TIME);
    }
}

/// Items remembered: some 0.8 MB; libtorrent's.
const ITEMS_MAX: usize = 700;
/// Of those, by one public host.
const ITEMS_PER_HOST_MAX: usize = 64;
/// How long an item is kept (BEP 44).
const ITEM_TIME: Duration = Duration::from_secs(2 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    const WRITER: &str = "203.0.113.1";

    fn signed(sequence: i64, value: &str) -> Item {
        Item::mutable(&[7; 32], Vec::new(), sequence, value.as_bytes().to_vec()).unwrap()
    }

    fn put(items: &mut Items, item: &Item, cas: Option<i64>) -> Result<(), i64> {
        items.put(Instant::START, WRITER.parse().unwrap(), item.clone(), cas)
    }

    #[test]
    fn an_item_changes_by_who_may_change_it_and_only_forwards() {
        let mut items = Items::default();
        let target = ItemName::of(&signed(1, "i1e")).target();
        let mut forged = signed(1, "i1e");
        forged.value = b"i2e".to_vec();
        assert_eq!(put(&mut items, &forged, None), Err(BAD_SIGNATURE));
        // Nothing is stored yet that could be another than the writer thinks.
        assert_eq!(put(&mut items, &signed(5, "i5e"), Some(4)), Ok(()));
        for (sequence, value, cas, expected) in [
            (5, "i5e", None, Ok(())),
            (5, "i9e", None, Err(SEQUENCE_TOO_OLD)),
            (4, "i4e", None, Err(SEQUENCE_TOO_OLD)),
            (6, "i6e", Some(4), Err(CAS_MISMATCH)),
            (4, "i4e", Some(4), Err(CAS_MISMATCH)),
            (6, "i6e", Some(5), Ok(())),
            (i64::MAX, "i7e", None, Ok(())),
        ] {
            assert_eq!(
                put(&mut items, &signed(sequence, value), cas),
                expected,
                "{sequence} {value} {cas:?}"
            );
        }
        assert_eq!(items.at(Instant::START, &target).unwrap().value, b"i7e");
    }

    #[test]
    fn an_item_is_kept_as_long_as_it_is_brought() {
        let mut items = Items::default();
        let at = |hours: u64| Instant::START + Duration::from_secs(hours * 3600);
        let item = Item::immutable(b"i1e".to_vec()).unwrap();
        let target = ItemName::of(&item).target();
        for hour in 0..3 {
            assert_eq!(items.put(at(hour), WRITER.parse().unwrap(), item.clone(), None), Ok(()));
        }
        assert_eq!(items.at(at(3), &target), Some(&item));
        assert_eq!(items.at(at(4), &target), None);
        assert_eq!(items.len(), 0);
    }

    #[test]
    fn memory_is_bounded_and_one_host_displaces_its_own() {
        let mut items = Items::default();
        let item = |n: u32| Item::immutable(format!("i{n}e").into_bytes()).unwrap();
        let first = ItemName::of(&item(0)).target();
        items.put(Instant::START, "203.0.113.9".parse().unwrap(), item(0), None).unwrap();
        for n in 1..1000 {
            items.put(Instant(u64::from(n)), WRITER.parse().unwrap(), item(n), None).unwrap();
        }
        assert_eq!(items.len(), 1 + ITEMS_PER_HOST_MAX);
        assert!(items.at(Instant(1000), &first).is_some());
        for n in 1..2000u32 {
            let by = IpAddr::from((0x0b00_0000 + n).to_be_bytes());
            items.put(Instant(1000), by, item(1000 + n), None).unwrap();
        }
        assert_eq!(items.len(), ITEMS_MAX);
    }
}
