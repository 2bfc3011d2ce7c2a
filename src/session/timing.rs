//! How long requests took, and which ones took long.
//!
//! A request that a node answers is timed from the batch in which it was read to the reply. The
//! one clock reading of each read from the node serves all replies in it, and equal times are
//! counted together, so that a pipeline costs a few additions. What is answered here is timed by
//! the batch, see [`Dispatch::finish`](super::dispatch::Dispatch::finish).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Client;
use crate::command::{self, Command};
use crate::node::Came;
use crate::resp::Request;
use crate::telemetry::clock::wall_time;
use crate::telemetry::{SlowEntry, Stats};

/// What is known of a request whose reply is still to come.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Which command it is.
    pub command: &'static Command,
    /// When it was read.
    pub at: Instant,
}

/// What is known of the replies that came lately.
#[derive(Debug, Default)]
pub struct Notes {
    took: Vec<Took>,
    slow: Vec<Slow>,
    /// First bytes of the errors among them.
    errors: Vec<Box<[u8]>>,
    /// How long a request takes that counts as slow; `None`: none does.
    pub(super) slow_after: Option<Duration>,
}

/// Equal requests that took equally long.
#[derive(Debug)]
struct Took {
    command: &'static Command,
    duration: Duration,
    failed: bool,
    count: u64,
}

/// A request that took long, by its place among the replies.
#[derive(Debug)]
struct Slow {
    number: u64,
    command: &'static Command,
    took: Duration,
    node: Duration,
}

impl Notes {
    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.took.is_empty()
    }

    /// Swaps these notes with those of a session, which were reported; the session's threshold
    /// holds from now on.
    pub(super) fn exchange(&mut self, empty: &mut Self) {
        if self.is_empty() {
            self.slow_after = empty.slow_after;
        } else {
            std::mem::swap(self, empty);
        }
    }

    /// Takes down one reply; `error` is its text if it is one.
    pub(super) fn take_down(
        &mut self,
        (number, asked): (u64, Asked),
        came: Came,
        error: Option<&[u8]>,
    ) {
        let duration = came.now.saturating_duration_since(asked.at);
        let failed = error.is_some();
        match self.took.last_mut() {
            Some(last)
                if last.duration == duration
                    && last.failed == failed
                    && std::ptr::eq(last.command, asked.command) =>
            {
                last.count += 1;
            }
            _ => self.took.push(Took {
                command: asked.command,
                duration,
                failed,
                count: 1,
            }),
        }
        if let Some(text) = error {
            self.errors
                .push(text.get(..ERROR_BYTES).unwrap_or(text).into());
        }
        if self.slow_after.is_some_and(|slow| duration >= slow) && self.slow.len() < MAX_SLOW {
            self.slow.push(Slow {
                number,
                command: asked.command,
                took: duration,
                node: duration.min(Duration::from_micros(u64::from(came.node_us))),
            });
        }
    }

    /// Takes over the notes of the commands of a transaction, but not the slow ones: the
    /// transaction stands for them.
    pub(super) fn join(&mut self, mut others: Self) {
        self.took.append(&mut others.took);
        self.errors.append(&mut others.errors);
    }

    /// Adds all of it to the statistics, and forgets it. `requests` knows what was asked.
    pub(super) fn report(&mut self, stats: &Stats, requests: &Requests, client: &Client) {
        for took in self.took.drain(..) {
            stats
                .commands
                .observe(took.command, took.duration, took.count);
            stats
                .latency
                .observe(took.command, took.duration, wall_time);
            if took.failed {
                stats.commands.fail(took.command, took.count);
            }
        }
        for error in self.errors.drain(..) {
            stats.errors.note(&error);
        }
        for slow in self.slow.drain(..) {
            let args = requests.shown(slow.number);
            let args = args.unwrap_or_else(|| vec![slow.command.name.as_bytes().to_vec()]);
            push_slow(stats, client, (slow.took, slow.node), args);
        }
    }
}

/// Adds a request to the slow log.
pub(super) fn push_slow(
    stats: &Stats,
    client: &Client,
    (took, node): (Duration, Duration),
    args: Vec<Vec<u8>>,
) {
    stats.slow_log.push(SlowEntry {
        id: 0,
        time: wall_time(),
        took,
        node,
        args,
        client: client.addr.to_string(),
        name: client.name().unwrap_or_default(),
    });
}

/// The first bytes of the requests that wait for nodes, for the slow log. Only their session
/// touches it.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// The number of each request's reply, and where its bytes begin in everything ever kept.
    starts: VecDeque<(u64, usize)>,
    bytes: Vec<u8>,
    /// Where `bytes` begins in everything ever kept.
    base: usize,
}

impl Requests {
    /// Keeps the first bytes of a request, unless there is no room.
    pub(super) fn keep(&mut self, number: u64, request: &Request<'_>) {
        if self.bytes.len() + KEPT_BYTES > MAX_KEPT_BYTES {
            return;
        }
        let wire = request.wire();
        self.starts
            .push_back((number, self.base + self.bytes.len()));
        self.bytes
            .extend_from_slice(wire.get(..KEPT_BYTES).unwrap_or(wire));
    }

    /// Forgets the requests whose replies came: those with numbers below `first`.
    pub(super) fn forget_before(&mut self, first: u64) {
        while self
            .starts
            .front()
            .is_some_and(|(number, _)| *number < first)
        {
            self.starts.pop_front();
        }
        match self.starts.front() {
            None => {
                self.base += self.bytes.len();
                self.bytes.clear();
            }
            // Moving the rest to the front pays when half of it is gone.
            Some((_, start)) if (start - self.base) * 2 > MAX_KEPT_BYTES => {
                let gone = start - self.base;
                self.bytes.drain(..gone);
                self.base += gone;
            }
            Some(_) => {}
        }
    }

    fn shown(&self, number: u64) -> Option<Vec<Vec<u8>>> {
        let at = self
            .starts
            .binary_search_by_key(&number, |(number, _)| *number);
        let at = at.ok()?;
        let (_, start) = self.starts.get(at)?;
        let end = match self.starts.get(at + 1) {
            Some((_, next)) => next - self.base,
            None => self.bytes.len(),
        };
        let wire = self.bytes.get(start - self.base..end)?;
        Some(command::shown_prefix(wire))
    }
}

/// How much is kept of an error: as much as its code may have.
const ERROR_BYTES: usize = 64;

/// Slow requests noted between two looks of their session; further ones are only timed.
const MAX_SLOW: usize = 128;

/// First bytes of a request that are kept: a key of usual length and some arguments.
const KEPT_BYTES: usize = 256;

/// Bytes kept by a session: those of 1,600 pipelined `SET`s of 40 bytes. Of further ones the slow
/// log shows the name alone.
const MAX_KEPT_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{Limits, RequestScanner, encode};
    use crate::session::Gate;

    fn keep(requests: &mut Requests, number: u64, key: &str) {
        let mut wire = Vec::new();
        encode::request(&mut wire, &[b"GET".as_slice(), key.as_bytes()]);
        let mut scanner = RequestScanner::new();
        scanner.scan(&wire, &Limits::default()).unwrap();
        requests.keep(number, &scanner.request(&wire));
    }

    #[test]
    fn requests_are_kept_until_their_replies_came_and_bounded() {
        let mut requests = Requests::default();
        for number in 0..10_000 {
            keep(&mut requests, number, &format!("key:{number}"));
        }
        assert!(requests.bytes.len() <= MAX_KEPT_BYTES);
        assert_eq!(requests.shown(5).unwrap()[1], b"key:5");
        assert_eq!(requests.shown(9_999), None);
        requests.forget_before(1500);
        assert_eq!(requests.shown(5), None);
        assert_eq!(requests.shown(1500).unwrap()[1], b"key:1500");
        keep(&mut requests, 10_000, "late");
        assert_eq!(requests.shown(10_000).unwrap()[1], b"late");
        requests.forget_before(10_001);
        assert!(requests.bytes.is_empty() && requests.starts.is_empty());
        keep(&mut requests, 10_001, "next");
        assert_eq!(requests.shown(10_001).unwrap()[1], b"next");
    }

    #[test]
    fn equal_times_are_counted_together() {
        let at = tokio::time::Instant::now().into_std();
        let command = &command::commands()[0];
        let asked = Asked { command, at };
        let came = |ms| Came {
            now: at + Duration::from_millis(ms),
            node_us: 1_000_000,
        };
        let mut notes = Notes {
            slow_after: Some(Duration::from_millis(10)),
            ..Notes::default()
        };
        for number in 0..5 {
            notes.take_down((number, asked), came(1), None);
        }
        notes.take_down((5, asked), came(1), Some(b"ERR x"));
        notes.take_down((6, asked), came(20), None);
        assert_eq!(notes.took.len(), 3);
        assert_eq!(notes.took[0].count, 5);
        assert_eq!(notes.slow.len(), 1);
        assert_eq!(notes.slow[0].node, Duration::from_millis(20));
        let stats = Stats::default();
        stats.commands.add(command, 7);
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let client = Client::new(1, addr, addr, at, Gate::Open);
        notes.report(&stats, &Requests::default(), &client);
        assert!(notes.is_empty());
        let sample = stats.commands.samples().next().unwrap();
        assert_eq!((sample.failed, sample.durations.count()), (1, 7));
        assert_eq!(stats.slow_log.newest(9)[0].args, [command.name.as_bytes()]);
        assert_eq!(stats.errors.total(), 1);
    }
}
