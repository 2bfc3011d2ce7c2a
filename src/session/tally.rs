//! `TALLY`: shows the inside, and applies what is pending at an operator's word.

use std::sync::Arc;
use std::time::Duration;

use super::dispatch::{Dispatch, Flow};
use super::local;
use super::replies::{Place, Ticket};
use crate::command::Inside;
use crate::counter::{Fates, Source};
use crate::node::{Node, unreachable};
use crate::resp::{Form, Request, encode, parse_i64};
use crate::telemetry::{DeadLetters, SlowLog};

impl Dispatch<'_> {
    /// Any subcommand of `TALLY`; its arity is right.
    pub(super) fn own(&mut self, inside: Inside, request: &Request<'_>) -> Flow {
        // Lanes are locked for a snapshot.
        self.leave();
        let start = self.made.len();
        match inside {
            Inside::DeadLetters => return self.dead_letters(request),
            Inside::HotKeys => return self.hot_keys(request),
            Inside::SlowLog => return self.slow_log(request),
            Inside::Flush => return self.flush(),
            Inside::Help => local::tally_help(self.made),
            Inside::Stats => self.figures(),
            Inside::Where => self.place_of(request.arg(2)),
        }
        self.mute_from(start);
        Flow::Continue
    }

    /// `TALLY WHERE key`
    fn place_of(&mut self, key: &[u8]) {
        let node = self.node(self.shared.router.index(key));
        let table = node.table();
        let source = match table.source(key, self.now) {
            Source::Memory => "memory",
            Source::Cache => "cache",
            Source::Node => node.name(),
        };
        let fields = [
            ("node", node.name()),
            ("get", source),
            ("mode", table.policy(key).mode.name()),
        ];
        encode::map(self.made, self.client.protocol(), fields.len());
        for (name, value) in fields {
            encode::bulk(self.made, name.as_bytes());
            encode::bulk(self.made, value.as_bytes());
        }
    }

    /// `TALLY STATS`
    fn figures(&mut self) {
        let stats = &self.shared.stats;
        let mut fates = Fates::default();
        let (mut keys, mut pending_keys, mut cached_bytes) = (0, 0, 0);
        for node in self.shared.router.in_use() {
            fates += node.fates();
            pending_keys += node.pending_keys();
        }
        // These are counted for all databases of a server together.
        for node in self.shared.router.nodes() {
            keys += node.table().len();
            cached_bytes += node.table().cached_bytes();
        }
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let figures = [
            ("acknowledged", fates.acknowledged),
            ("applied", fates.applied),
            ("in_flight", fates.in_flight),
            ("pending", fates.pending),
            ("expired", fates.expired),
            ("dead_letters", fates.refused),
            ("in_doubt", fates.in_doubt),
            ("pending_keys", count(pending_keys)),
            ("keys", count(keys)),
            ("cached_bytes", count(cached_bytes)),
            ("increments_received", stats.increments_received.get()),
            ("increments_local", stats.increments_local.get()),
            ("increments_forwarded", stats.increments_forwarded.get()),
            ("flush_batches", stats.flush_batches.get()),
            ("flush_keys", stats.flush_keys.get()),
            ("flush_errors", stats.flush_errors.get()),
            ("upstream_requests", stats.upstream_requests.get()),
            ("protocol_errors", stats.protocol_errors.get()),
            ("output_limit_closed", stats.output_limit_closed.get()),
        ];
        encode::map(self.made, self.client.protocol(), figures.len());
        for (name, figure) in figures {
            encode::bulk(self.made, name.as_bytes());
            encode::integer(self.made, i64::try_from(figure).unwrap_or(i64::MAX));
        }
    }

    /// The count after a subcommand, or `all`. `None`: an error was given.
    fn count_of(&mut self, request: &Request<'_>, all: usize) -> Option<usize> {
        let count = match request.len() {
            2 => Ok(all),
            3 => parse_i64(request.arg(2))
                .ok_or_else(|| "ERR value is not an integer or out of range".to_owned())
                .and_then(|count| {
                    let negative = "ERR count should be greater than or equal to 0";
                    usize::try_from(count).map_err(|_| negative.to_owned())
                }),
            _ => Err(format!(
                "ERR wrong number of arguments for '{}' command",
                self.command().name
            )),
        };
        count.map_err(|text| self.error(text)).ok()
    }

    /// `TALLY HOTKEYS [count]`
    fn hot_keys(&mut self, request: &Request<'_>) -> Flow {
        let Some(count) = self.count_of(request, DEFAULT_HOT_KEYS) else {
            return Flow::Continue;
        };
        if !self.client.finish_command() {
            return Flow::Continue;
        }
        let (out, protocol) = (&mut *self.made, self.client.protocol());
        let (writes, reads) = self.shared.stats.hot_keys.first(count);
        encode::map(out, protocol, 2);
        for (name, list) in [("writes", writes), ("reads", reads)] {
            encode::bulk(out, name.as_bytes());
            encode::array(out, list.len());
            for hot in list {
                encode::map(out, protocol, 6);
                encode::bulk(out, b"key");
                encode::bulk(out, hot.key.as_bytes());
                for (name, rate) in [
                    ("writes_per_second", hot.writes),
                    ("reads_per_second", hot.reads),
                ] {
                    encode::bulk(out, name.as_bytes());
                    encode::bulk(out, rate.to_string().as_bytes());
                }
                encode::bulk(out, b"value");
                match hot.value {
                    Some(value) => encode::integer(out, value),
                    None => encode::null(out, protocol),
                }
                encode::bulk(out, b"node");
                encode::bulk(out, hot.node.as_bytes());
                encode::bulk(out, b"database");
                encode::integer(out, i64::from(hot.database));
            }
        }
        Flow::Continue
    }

    /// `TALLY SLOWLOG [count]`
    fn slow_log(&mut self, request: &Request<'_>) -> Flow {
        let Some(count) = self.count_of(request, SlowLog::MOST) else {
            return Flow::Continue;
        };
        if !self.client.finish_command() {
            return Flow::Continue;
        }
        let (out, protocol) = (&mut *self.made, self.client.protocol());
        let entries = self.shared.stats.slow_log.newest(count);
        let us = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        encode::array(out, entries.len());
        for entry in entries {
            encode::map(out, protocol, 8);
            for (name, value) in [
                ("id", i64::try_from(entry.id).unwrap_or(i64::MAX)),
                (
                    "time",
                    i64::try_from(entry.time.as_secs()).unwrap_or(i64::MAX),
                ),
                ("usec", us(entry.took)),
                ("tally_usec", us(entry.took.saturating_sub(entry.node))),
                ("node_usec", us(entry.node)),
            ] {
                encode::bulk(out, name.as_bytes());
                encode::integer(out, value);
            }
            encode::bulk(out, b"request");
            encode::array(out, entry.args.len());
            for arg in &entry.args {
                encode::bulk(out, arg);
            }
            for (name, text) in [("client", entry.client), ("name", entry.name)] {
                encode::bulk(out, name.as_bytes());
                encode::bulk(out, text.as_bytes());
            }
        }
        Flow::Continue
    }

    /// `TALLY DEADLETTERS [count]`
    fn dead_letters(&mut self, request: &Request<'_>) -> Flow {
        let Some(count) = self.count_of(request, DeadLetters::MOST) else {
            return Flow::Continue;
        };
        if !self.client.finish_command() {
            return Flow::Continue;
        }
        let (out, protocol) = (&mut *self.made, self.client.protocol());
        let letters = self.shared.stats.refused.newest(count);
        encode::array(out, letters.len());
        for letter in letters {
            encode::map(out, protocol, 7);
            let text = |out: &mut Vec<u8>, name: &str, value: &[u8]| {
                encode::bulk(out, name.as_bytes());
                encode::bulk(out, value);
            };
            text(out, "key", letter.key.as_bytes());
            encode::bulk(out, b"amount");
            encode::integer(out, letter.amount);
            encode::bulk(out, b"increments");
            encode::integer(out, i64::from(letter.increments));
            text(out, "cause", letter.cause.as_bytes());
            text(out, "node", letter.node.as_bytes());
            encode::bulk(out, b"database");
            encode::integer(out, i64::from(letter.database));
            encode::bulk(out, b"time");
            let time = i64::try_from(letter.time.as_secs()).unwrap_or(i64::MAX);
            encode::integer(out, time);
        }
        Flow::Continue
    }

    /// `TALLY FLUSH`
    fn flush(&mut self) -> Flow {
        let Ok(slot) = Arc::clone(&self.shared.waits).try_acquire_owned() else {
            self.error("ERR too many clients are in WAIT or TALLY FLUSH");
            return Flow::Continue;
        };
        let nodes = self.shared.router.in_use().cloned().collect();
        let bound = self.shared.live().upstream.request_timeout;
        let place = self.place(Form::Plain);
        tokio::spawn(async move {
            apply(place, nodes, bound).await;
            drop(slot);
        });
        Flow::Continue
    }
}

/// Has all nodes apply at once what is pending there; the first error is the reply.
async fn apply(place: Place, nodes: Vec<Arc<Node<Ticket>>>, bound: Duration) {
    let mut asked = tokio::task::JoinSet::new();
    for node in nodes {
        asked.spawn(async move {
            let name = node.name();
            match tokio::time::timeout(bound, node.apply()).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(reason)) => Err(unreachable(name, &reason)),
                Err(_) => Err(format!(
                    "ERR node {name} did not apply everything within {bound:?}; what is pending \
                     stays so"
                )),
            }
        });
    }
    let mut frame = Vec::new();
    while let Some(answer) = asked.join_next().await {
        let text = match answer {
            Ok(Ok(())) => continue,
            Ok(Err(text)) => text,
            Err(error) => format!("ERR {error}"),
        };
        encode::error(&mut frame, text);
        break;
    }
    if frame.is_empty() {
        encode::simple(&mut frame, "OK");
    }
    if let Some(waker) = place.fill(&frame) {
        waker.wake();
    }
}

/// How many keys each list of `TALLY HOTKEYS` has without a count.
const DEFAULT_HOT_KEYS: usize = 10;
