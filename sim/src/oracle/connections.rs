//! The connections of one process, found by their number.

use std::collections::{BTreeSet, VecDeque};

use taipei_engine::ConnectionId;

use super::wire::ConnectionWatch;

/// Each at its number, from that of the oldest one on: every input and output looks one up, and a search would cost more
/// than what is then looked at.
#[derive(Debug, Default)]
pub(super) struct Connections {
    first: u64,
    places: VecDeque<Option<Box<ConnectionWatch>>>,
    /// The numbers of those that are open: of all that ever were they may be few.
    open: BTreeSet<u64>,
}

impl Connections {
    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn get(&self, connection: ConnectionId) -> Option<&ConnectionWatch> {
        self.places.get(self.place(connection)?)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, connection: ConnectionId) -> Option<&mut ConnectionWatch> {
        let place = self.place(connection)?;
        self.places.get_mut(place)?.as_deref_mut()
    }

    /// By number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &ConnectionWatch)> {
        let at = |number: u64| self.places[(number - self.first) as usize].as_deref();
        self.open.iter().filter_map(move |number| Some((*number, at(*number)?)))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &ConnectionWatch> {
        self.iter().map(|(_, watch)| watch)
    }

    pub(super) fn insert(&mut self, connection: ConnectionId, watch: ConnectionWatch) {
        let number = connection.number();
        if self.places.is_empty() {
            self.first = number;
        }
        while number < self.first {
            self.places.push_front(None);
            self.first -= 1;
        }
        let place = (number - self.first) as usize;
        if self.places.len() <= place {
            self.places.resize_with(place + 1, || None);
        }
        self.places[place] = Some(Box::new(watch));
        self.open.insert(number);
    }

    pub(super) fn remove(&mut self, connection: ConnectionId) -> Option<Box<ConnectionWatch>> {
        let place = self.place(connection)?;
        let watch = self.places.get_mut(place)?.take()?;
        self.open.remove(&connection.number());
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.first += 1;
        }
        Some(watch)
    }

    fn place(&self, connection: ConnectionId) -> Option<usize> {
        Some(connection.number().checked_sub(self.first)? as usize)
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::super::ledger::Ledger;
    use super::*;

    #[test]
    fn each_is_found_by_its_number_whatever_came_and_went_before() {
        let mut connections = Connections::default();
        let address = |n: u64| IpAddr::from([9, 9, 9, n as u8]);
        let ids = [5, 0, 3, 200, 7].map(ConnectionId::accepted);
        for (n, id) in (0..).zip(ids) {
            let end = Ledger::default().open();
            connections.insert(id, ConnectionWatch::new(0, end, address(n), None, true));
        }
        let found = |connections: &Connections| {
            connections.iter().map(|(number, watch)| (number / 2, watch.remote)).collect::<Vec<_>>()
        };
        assert_eq!(
            found(&connections),
            [(0, 1), (3, 2), (5, 0), (7, 4), (200, 3)].map(|(n, a)| (n, address(a)))
        );
        assert!(connections.get(ConnectionId::dialled(3)).is_none());
        for (id, left) in [(ids[0], 4), (ids[1], 3), (ids[1], 3), (ids[2], 2)] {
            connections.remove(id);
            assert_eq!(connections.len(), left);
        }
        assert_eq!(found(&connections), [(7, 4), (200, 3)].map(|(n, a)| (n, address(a))));
        assert_eq!(connections.get_mut(ids[4]).map(|watch| watch.remote), Some(address(4)));
        assert!(
            connections.get(ids[0]).is_none() && connections.remove(ConnectionId::accepted(201)).is_none()
        );
    }
}
