//! The front of a client's pipeline, as far as key tables may answer it, asked in one go.
//!
//! ```text
//!   bytes read:  INCR a │ GET b │ EXPIRE a │ INCR c │ SET d ...
//!   look ahead:  ├─ scanned, looked up, hashed ────┤
//!   answer:      ├─ tables locked once ──┤ c is cold
//!   execute:                             │ INCR c, by its lane; then answered again from behind it
//! ```
//!
//! In order, and nothing behind a request that a table does not answer: a session that went
//! request by request would do the same, but lock a table for each.

use super::dispatch::{Dispatch, Fate, OVERFLOW, SAMPLED};
use super::expiry;
use super::tables::Tables;
use super::{Gate, amount};
use crate::command::{self, Class, Command};
use crate::counter::{Answer, Spot, Timed};
use crate::resp::{Limits, Protocol, Request, RequestScanner, encode};
use crate::telemetry::Use;

/// A request that a key table may answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    pub(super) command: &'static Command,
    ask: Ask,
    /// Its length in bytes.
    pub(super) length: usize,
    /// Where its key begins, and the key's length.
    key: (u32, u32),
    /// The index of the key's node.
    index: usize,
    spot: Spot,
}

const _: () = assert!(size_of::<Ahead>() <= 80, "a session keeps 64 of them");

/// What it asks.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Increment(i64),
    Get,
    Timed(Timed),
}

/// How far the tables have answered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Answered {
    /// How many requests.
    pub(super) requests: usize,
    /// How many bytes they are.
    pub(super) bytes: usize,
}

impl Ahead {
    fn key<'a>(&self, request: &'a [u8]) -> &'a [u8] {
        let (start, length) = self.key;
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let rest = request.get(start..).unwrap_or_default();
        rest.get(..length).unwrap_or_default()
    }
}

impl Dispatch<'_> {
    /// Whether requests may be answered without a look at each: nobody has to be asked or told
    /// about them.
    pub(super) fn looks_ahead(&self) -> bool {
        self.client.gate() == Gate::Open
            && self.state.transaction.is_none()
            && !self.client.is_in_subscribed_mode()
            && !self.shared.pause.is_on()
            && !self.shared.tracking.is_on()
            && !self.is_careful
    }

    /// What a request asks of a table. If it asks nothing of one, its command, unless there is
    /// none.
    pub(super) fn ask(
        &self,
        request: &Request<'_>,
        length: usize,
    ) -> Result<Ahead, Option<&'static Command>> {
        let command = command::lookup(request).map_err(|_| None)?;
        let ask = match command.class {
            Class::Increment(kind) => amount::delta(kind, request.arg(2)).ok().map(Ask::Increment),
            Class::Get => Some(Ask::Get),
            Class::Peek | Class::Keyed => expiry::read(command, request).map(Ask::Timed),
            _ => None,
        };
        let (Some(ask), [_, key, ..]) = (ask, request.spans()) else {
            return Err(Some(command));
        };
        let name = request.arg(1);
        let index = self.shared.router.index(name);
        Ok(Ahead {
            command,
            ask,
            length,
            key: (key.start, key.len),
            index,
            spot: self.node(index).table().spot(name),
        })
    }

    /// Asks the tables about these requests, which begin at `bytes[0]`, up to the first that they
    /// do not answer.
    pub(super) fn answer_ahead(&mut self, requests: &[Ahead], bytes: &[u8]) -> Answered {
        let mut answered = Answered::default();
        let mut tables = Tables::new(self.nodes);
        let mut unread = bytes;
        // Equal commands that follow each other are counted at once.
        let mut same = 0;
        for request in requests {
            if !std::ptr::eq(self.command, request.command) {
                self.count_here(std::mem::take(&mut same));
                self.command = request.command;
            }
            if !self.answer_one(&mut tables, request, request.key(unread)) {
                break;
            }
            if self.fate == Fate::Here {
                self.tally.commands += 1;
                same += 1;
            } else {
                self.count();
            }
            answered.requests += 1;
            answered.bytes += request.length;
            unread = unread.get(request.length..).unwrap_or_default();
        }
        drop(tables);
        self.count_here(same);
        // Asked after the change: a client that begins to track from now on, and reads, sees the
        // change.
        if self.shared.tracking.is_on() || self.shared.monitors.is_watched() {
            let answered = requests.get(..answered.requests).unwrap_or_default();
            self.tell_ahead(answered, bytes);
        }
        answered
    }

    /// Counts so many requests of the present command, which were answered.
    fn count_here(&mut self, requests: u64) {
        if requests > 0 {
            self.tally.last_command = Some(self.command);
            self.tally.count_many(self.command, requests);
        }
    }

    /// Asks a table about one request; returns whether it answered.
    #[inline]
    fn answer_one(&mut self, tables: &mut Tables<'_>, request: &Ahead, key: &[u8]) -> bool {
        let asked = (request.spot, key);
        match request.ask {
            Ask::Increment(delta) => {
                let value = match tables.increment(request.index, asked, delta, self.now) {
                    Answer::Value(value) => value,
                    Answer::Overflow => {
                        self.tally.increments += 1;
                        self.error(OVERFLOW);
                        return true;
                    }
                    Answer::Elsewhere => return false,
                };
                self.tally.increments += 1;
                self.counted(key, value);
            }
            Ask::Get => {
                let start = self.made.len();
                if !tables.get(request.index, asked, self.now, self.made) {
                    return false;
                }
                self.found(key, start);
            }
            Ask::Timed(timed) => {
                let Some(reply) = tables.timed(request.index, asked, timed, self.now) else {
                    return false;
                };
                if self.client.finish_command() {
                    encode::integer(self.made, reply);
                }
            }
        }
        true
    }

    /// A table counted an increment.
    #[inline]
    pub(super) fn counted(&mut self, key: &[u8], value: i64) {
        self.tally.increments_local += 1;
        if self.is_sampled() {
            self.touch(key, Use::Counted);
        }
        if self.client.finish_command() {
            encode::integer(self.made, value);
        }
    }

    /// A table made the reply to a `GET`, from `start` on: converts it for the client.
    #[inline]
    pub(super) fn found(&mut self, key: &[u8], start: usize) {
        self.tally.hits += 1;
        if self.is_sampled() {
            self.touch(key, Use::Read(SAMPLED));
        }
        if !self.client.finish_command() {
            self.made.truncate(start);
        } else if self.client.protocol() == Protocol::Resp2 && self.made.get(start) == Some(&b'_') {
            self.made.truncate(start);
            encode::null(self.made, Protocol::Resp2);
        }
    }

    /// Somebody began to track or to monitor meanwhile: reports what these requests were.
    #[cold]
    fn tell_ahead(&mut self, requests: &[Ahead], mut bytes: &[u8]) {
        let mut scanner = RequestScanner::new();
        let limits = Limits {
            max_bulk_bytes: usize::MAX,
            ..Limits::default()
        };
        for ahead in requests {
            // These bytes were scanned before.
            if !matches!(scanner.scan(bytes, &limits), Ok(Some(_))) {
                return;
            }
            self.command = ahead.command;
            let request = scanner.request(bytes);
            if self.shared.tracking.is_on() {
                self.after_tracked(&request, false, None);
            }
            if self.shared.monitors.is_watched() {
                self.tell_monitors(&request);
            }
            bytes = bytes.get(ahead.length..).unwrap_or_default();
        }
    }
}
