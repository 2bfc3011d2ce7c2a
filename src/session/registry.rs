//! Every connected client, by id.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use dashmap::DashMap;

use super::client::{Client, Gate};

/// All clients connected now, at most a fixed number. Shared by every session.
///
/// A client that was answered to the end, whose connection is only being closed, is still counted,
/// so that the number bounds the sockets, but is not shown any more.
#[derive(Debug)]
pub struct Registry {
    clients: DashMap<u64, Arc<Client>>,
    last_id: AtomicU64,
    /// Kept beside the map, whose length is not exact while others insert.
    count: AtomicUsize,
    max_clients: AtomicUsize,
    /// What stands before a client that comes.
    entry: AtomicU8,
}

impl Registry {
    /// An empty registry for at most `max_clients` at a time, with this before each of them.
    pub fn new(max_clients: usize, entry: Gate) -> Self {
        Self {
            clients: DashMap::new(),
            last_id: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            max_clients: AtomicUsize::new(max_clients),
            entry: AtomicU8::new(entry.bits()),
        }
    }

    /// Sets how many clients there may be from now on.
    pub fn set_max_clients(&self, max_clients: usize) {
        self.max_clients.store(max_clients, Ordering::Relaxed);
    }

    /// Sets what stands before clients that come from now on.
    pub fn set_entry(&self, entry: Gate) {
        self.entry.store(entry.bits(), Ordering::SeqCst);
    }

    fn entry(&self) -> Gate {
        Gate::from_bits(self.entry.load(Ordering::SeqCst))
    }

    /// Adds a client that connected from `addr` to `laddr`; `None` when there are too many.
    /// Ids start at 1 and are never used again.
    pub fn register(
        &self,
        addr: SocketAddr,
        laddr: SocketAddr,
        now: Instant,
    ) -> Option<Arc<Client>> {
        let below_limit = |count| (count < self.max_clients()).then_some(count + 1);
        self.count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below_limit)
            .ok()?;
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client::new(id, addr, laddr, now, self.entry()));
        self.clients.insert(id, Arc::clone(&client));
        // Whoever changes users looks at all clients after this is set: either finds the other.
        client.set_gate(self.entry());
        Some(client)
    }

    /// Forgets a client whose session ended. Safe to call twice.
    pub fn remove(&self, id: u64) {
        if self.clients.remove(&id).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many connections there are, those that are being closed among them.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// How many there may be.
    pub fn max_clients(&self) -> usize {
        self.max_clients.load(Ordering::Relaxed)
    }

    /// The client with this id, if it is still connected.
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        let client = self.clients.get(&id)?;
        (!client.has_parted()).then(|| Arc::clone(&client))
    }

    /// All of them, the oldest first. Linear; holds no lock afterwards.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        let each = self.clients.iter().filter(|entry| !entry.has_parted());
        let mut clients: Vec<_> = each.map(|entry| Arc::clone(entry.value())).collect();
        clients.sort_unstable_by_key(|client| client.id);
        clients
    }

    /// Ends every session, and the closing of every connection.
    pub fn kill_all(&self) {
        for client in &self.clients {
            client.kill.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::time::Instant as Clock;

    use super::*;

    fn register(registry: &Registry) -> Option<Arc<Client>> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 5000));
        let laddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 6380));
        registry.register(addr, laddr, Clock::now().into_std())
    }

    #[test]
    fn ids_rise_from_one_and_are_not_reused() {
        let registry = Registry::new(2, Gate::Open);
        assert_eq!(register(&registry).unwrap().id, 1);
        assert_eq!(register(&registry).unwrap().id, 2);
        registry.remove(2);
        assert_eq!(register(&registry).unwrap().id, 3);
        let ids: Vec<_> = registry.clients().iter().map(|client| client.id).collect();
        assert_eq!(ids, [1, 3]);
    }

    #[test]
    fn there_are_never_more_than_allowed() {
        let registry = Registry::new(1, Gate::Open);
        let first = register(&registry).unwrap();
        assert!(register(&registry).is_none());
        registry.remove(first.id);
        registry.remove(first.id);
        assert_eq!(registry.count(), 0);
        assert!(register(&registry).is_some());
        assert!(register(&registry).is_none());
    }

    #[test]
    fn one_that_parted_is_counted_and_not_shown() {
        let registry = Registry::new(1, Gate::Open);
        let client = register(&registry).unwrap();
        client.set_parted();
        assert!(registry.get(client.id).is_none());
        assert!(registry.clients().is_empty());
        assert!(register(&registry).is_none());
        registry.kill_all();
        assert!(client.kill.is_cancelled());
        registry.remove(client.id);
        assert!(register(&registry).is_some());
    }

    #[test]
    fn a_required_password_leaves_new_clients_outside() {
        assert!(
            register(&Registry::new(1, Gate::Open))
                .unwrap()
                .authenticated()
        );
        assert!(
            !register(&Registry::new(1, Gate::Outside))
                .unwrap()
                .authenticated()
        );
    }
}
