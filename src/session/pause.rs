//! `CLIENT PAUSE`: requests that wait for a time, or until `CLIENT UNPAUSE`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Instant;

use parking_lot::Mutex;

use super::Client;
use super::dispatch::Dispatch;
use crate::command::{Class, Command, Flags, Messages};
use crate::resp::Request;

/// Which requests wait.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Paused {
    /// Those that may change data or publish.
    Writes,
    /// All.
    All,
}

/// The pause of all clients, if there is one. All sessions share it; while there is none, it costs
/// one atomic read for each batch of requests.
#[derive(Debug, Default)]
pub struct Pause {
    /// 0: none; 1: writes; 2: all.
    what: AtomicU8,
    waiting: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    until: Option<Instant>,
    /// Sessions with a request that waits, by their clients' ids.
    waiting: HashMap<u64, Waker>,
}

impl Pause {
    /// Begins a pause. If one is under way, it becomes longer and stricter, never shorter.
    pub fn begin(&self, what: Paused, until: Instant) {
        let mut inner = self.inner.lock();
        inner.until = inner.until.max(Some(until));
        let level = match what {
            Paused::Writes => 1,
            Paused::All => 2,
        };
        self.what.fetch_max(level, Ordering::Relaxed);
    }

    /// Ends the pause, and lets everything go on.
    pub fn end(&self) {
        let mut inner = self.inner.lock();
        inner.until = None;
        self.what.store(0, Ordering::Relaxed);
        self.waiting.store(0, Ordering::Relaxed);
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        waiting.into_values().for_each(Waker::wake);
    }

    /// Ends it if its time has come.
    pub fn tick(&self, now: Instant) {
        if self.is_on() && self.inner.lock().until.is_some_and(|until| until <= now) {
            self.end();
        }
    }

    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        self.what.load(Ordering::Relaxed) > 0
    }

    /// Clients with a request that waits.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether a request has to wait; `waker` is woken when it no longer has to. Requests by HTTP
    /// never wait: they have no session.
    pub(super) fn holds(&self, client: &Client, may_change: bool, waker: &Waker) -> bool {
        if client.id == 0 {
            return false;
        }
        let mut inner = self.inner.lock();
        let held = match self.what.load(Ordering::Relaxed) {
            0 => false,
            1 => may_change,
            _ => true,
        };
        if held {
            inner.waiting.insert(client.id, waker.clone());
            self.waiting.store(inner.waiting.len(), Ordering::Relaxed);
        }
        held
    }

    /// Forgets a client that has gone.
    pub fn forget(&self, client: u64) {
        if self.waiting() > 0 {
            let mut inner = self.inner.lock();
            inner.waiting.remove(&client);
            self.waiting.store(inner.waiting.len(), Ordering::Relaxed);
        }
    }
}

impl Dispatch<'_> {
    /// Whether `CLIENT PAUSE` makes a request wait.
    pub(super) fn is_held(&self, request: &Request<'_>) -> bool {
        let may_change = if self.command.name == "exec" {
            self.transaction_may_change()
        } else {
            self.may_change(self.command, request)
        };
        let pause = &self.shared.pause;
        pause.holds(self.client, may_change, self.waker)
    }

    /// Whether Redis would send the request on to replicas.
    pub(super) fn may_change(&self, command: &Command, request: &Request<'_>) -> bool {
        let declares_not =
            command.class == Class::Script && self.shared.scripts.reads_only(request);
        may_change(command) && !declares_not
    }
}

/// Whether Redis would send a command on to replicas: writes, scripts that do not declare
/// otherwise, messages, and `PFCOUNT`, which writes what it has counted (`CMD_MAY_REPLICATE`).
fn may_change(command: &Command) -> bool {
    let is_script = command.class == Class::Script && !command.flags.contains(Flags::READONLY);
    let publishes = matches!(command.class, Class::PubSub(Messages::Publish(_)));
    command.flags.contains(Flags::WRITE) || is_script || publishes || command.name == "pfcount"
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use super::*;
    use crate::command::commands;
    use crate::session::Gate;

    #[test]
    fn a_pause_gets_longer_and_stricter_and_ends_in_time() {
        let start = tokio::time::Instant::now().into_std();
        let at = |seconds| start + Duration::from_secs(seconds);
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let client = Client::new(7, addr, addr, start, Gate::Open);
        let command = |name| commands().iter().find(|entry| entry.name == name).unwrap();
        let pause = Pause::default();
        let holds = |name| pause.holds(&client, may_change(command(name)), Waker::noop());
        assert!(!holds("set"));
        pause.begin(Paused::Writes, at(10));
        assert!(!holds("get") && !holds("eval_ro"));
        for name in ["set", "incr", "eval", "publish", "pfcount"] {
            assert!(holds(name), "{name}");
        }
        assert_eq!(pause.waiting(), 1);
        pause.begin(Paused::All, at(5));
        pause.begin(Paused::Writes, at(6));
        assert!(holds("get"));
        pause.tick(at(9));
        assert!(pause.is_on());
        pause.tick(at(10));
        assert!(!pause.is_on() && !holds("set"));
        assert_eq!(pause.waiting(), 0);
    }
}
