//! A batch applied without a script: what `flush.lua` does in the node is decided here, between
//! two round trips on a connection that does nothing else. Pure: bytes out, replies in.
//!
//! ```text
//!   look ──> UNWATCH, WATCH marker keys, TIME, GET marker, GET of each key
//!   decide ─> MULTI, SET marker, INCRBY and PEXPIREAT of the keys, EXEC ──> applied
//!      └────> nothing to apply: done before, a gap, fenced, ...         └──> null: look again
//! ```
//!
//! `EXEC` does nothing if the marker, or a key, was changed since it was read, or ended: so what was
//! decided is true when it is applied. The watch also guards what a lost connection left under way:
//! its `EXEC` is executed before the next connection reads the marker, which tells its number then;
//! or between that connection's look and its `EXEC`, which fails and looks again; or after it, and
//! fails itself, as the marker was written meanwhile. Nobody else writes it: a process that goes on
//! with the series takes it over first, which writes the marker too.
//!
//! The keys are read back by the caller on the connection that tells of changes by others.

use super::applier::MARKER_MS;
use super::{Deadline, Increment, answer};
use crate::resp::{encode, parse_i64, reply};

/// What is known, when a batch is sent, of it and of those before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Certainty {
    /// Nothing unanswered may have been applied: a missing marker is made.
    First,
    /// It may have been applied, or one before it.
    Again,
    /// The node has forgotten batches that it had acknowledged: a gap is passed over.
    Resync,
    /// The series is taken over, with nothing unsettled.
    Claim,
    /// The series is taken over, with batches that may have been applied.
    Takeover,
}

impl Certainty {
    /// As an argument of the script.
    pub(super) fn word(self) -> &'static [u8] {
        match self {
            Self::First => b"first",
            Self::Again => b"again",
            Self::Resync => b"resync",
            Self::Claim => b"claim",
            Self::Takeover => b"takeover",
        }
    }
}

/// A batch, or the call that takes a series over, on its way to a node that takes no scripts.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct Call {
    of: u64,
    number: u64,
    epoch: u64,
    certainty: Certainty,
    marker: Vec<u8>,
    increments: Vec<Increment>,
    /// How often it has looked.
    looks: u32,
}

/// How a call ended.
#[cfg_attr(test, derive(Clone, Hash))]
#[derive(Debug)]
pub enum Outcome {
    /// The answer, without keys, or an error: nothing was applied to any key.
    Answer(Vec<u8>),
    /// Its batch has been applied, now or before: the keys are to be read.
    Applied(Head),
}

/// The first part of an answer.
#[cfg_attr(test, derive(Clone, Hash))]
#[derive(Debug)]
pub struct Head {
    status: &'static str,
    /// The marker's number.
    last: u64,
    /// The node's time when it was read, in milliseconds since 1970.
    time_ms: u64,
    exceptions: String,
    epoch: Option<u64>,
}

/// What follows from what was read.
#[derive(Debug)]
pub enum Decision {
    /// Nothing is to be changed.
    Done(Outcome),
    /// This is to be sent.
    Apply(Apply),
}

/// A transaction, and what it makes true.
#[cfg_attr(test, derive(Clone, Hash))]
#[derive(Debug)]
pub struct Apply {
    /// From `MULTI` to `EXEC`.
    pub wire: Vec<u8>,
    /// How many replies it has.
    pub replies: usize,
    head: Head,
    /// Which keys are incremented: the place among the replies of `EXEC`, and the key's index.
    added: Vec<(usize, usize)>,
}

impl Call {
    /// A call for batch `number` of a series, whose increments are of different keys. To take the
    /// series over, `number` is the last one sealed, and there are no increments.
    pub fn new(
        marker: Vec<u8>,
        (epoch, number): (u64, u64),
        certainty: Certainty,
        increments: Vec<Increment>,
    ) -> Self {
        let is_takeover = matches!(certainty, Certainty::Claim | Certainty::Takeover);
        Self {
            of: if is_takeover { 0 } else { number },
            number,
            epoch,
            certainty,
            marker,
            increments,
            looks: 0,
        }
    }

    /// Which batch it is; 0 for the call that takes the series over.
    pub fn of(&self) -> u64 {
        self.of
    }

    /// Its keys.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.increments.iter().map(|each| each.key.as_bytes())
    }

    /// Appends what has to be read first; returns how many replies that has. `None` when others
    /// have changed the marker so often meanwhile (16 times) that the call is given up for now.
    pub fn look(&mut self, out: &mut Vec<u8>) -> Option<usize> {
        if self.looks >= MAX_LOOKS {
            return None;
        }
        encode::request(out, &[b"UNWATCH"]);
        let mut watch: Vec<&[u8]> = vec![b"WATCH", &self.marker];
        if self.looks < MAX_LOOKS / 2 {
            watch.extend(self.keys());
        }
        encode::request(out, &watch);
        encode::request(out, &[b"TIME"]);
        encode::request(out, &[b"GET", self.marker.as_slice()]);
        for key in self.keys() {
            encode::request(out, &[b"GET", key]);
        }
        self.looks += 1;
        Some(BEFORE_KEYS + self.increments.len())
    }

    /// What follows from these replies.
    pub fn decide(&self, replies: &[Vec<u8>]) -> Decision {
        let refused = |error: &[u8]| Decision::Done(Outcome::Answer(error.to_vec()));
        let (before, keys) = replies.split_at(replies.len().min(BEFORE_KEYS));
        if let Some(error) = before.iter().find(|frame| reply::is_error(frame)) {
            return refused(error);
        }
        let [_, _, time, marker] = before else {
            return refused(UNREADABLE);
        };
        let (Some(time_ms), Ok(marker)) = (answer::time_ms(time), Marker::read(marker)) else {
            return refused(UNREADABLE);
        };
        let (mut head, owner) = self.judge(marker, time_ms);
        match head.status {
            "applied" => Decision::Apply(self.apply(head, owner, keys)),
            "taken" => {
                head.epoch = Some(owner);
                Decision::Apply(self.apply(head, owner, &[]))
            }
            "done" => Decision::Done(Outcome::Applied(head)),
            _ => Decision::Done(Outcome::Answer(head.frame())),
        }
    }

    /// What the marker says of the call, and the epoch that owns the series from then on.
    fn judge(&self, marker: Option<Marker>, time_ms: u64) -> (Head, u64) {
        let is_takeover = self.of == 0;
        let is_again = matches!(self.certainty, Certainty::Again | Certainty::Takeover);
        let mut owner = self.epoch;
        let (status, last, exceptions) = match marker {
            Some(Marker {
                epoch,
                seen,
                exceptions,
            }) => {
                let status = match () {
                    () if is_takeover => {
                        owner = epoch.saturating_add(1).max(self.epoch);
                        "taken"
                    }
                    () if epoch > self.epoch => "fenced",
                    () if seen >= self.number => "done",
                    () if seen + 1 < self.number && self.certainty != Certainty::Resync => "gap",
                    () => "applied",
                };
                let last = if status == "applied" {
                    self.number
                } else {
                    seen
                };
                (status, last, exceptions)
            }
            None if self.certainty == Certainty::Claim => ("taken", self.number, String::new()),
            None if is_again => ("missing", 0, String::new()),
            None => ("applied", self.number, String::new()),
        };
        let head = Head {
            status,
            last,
            time_ms,
            exceptions,
            epoch: None,
        };
        (head, owner)
    }

    /// The transaction for these keys, as they were read.
    fn apply(&self, mut head: Head, owner: u64, keys: &[Vec<u8>]) -> Apply {
        if head.status == "applied" {
            head.forget_exceptions_before(self.number);
        }
        let mut body = Vec::new();
        let mut added = Vec::new();
        // The first request is the marker's.
        let mut requests = 1;
        for (index, (increment, held)) in self.increments.iter().zip(keys).enumerate() {
            let step = Step::of(increment, held, head.time_ms);
            let key = increment.key.as_bytes();
            if let Some(kind) = step.exception {
                head.except(self.number, index, kind);
            }
            if step.adds {
                let mut digits = itoa::Buffer::new();
                let delta = digits.format(increment.delta).as_bytes();
                encode::request(&mut body, &[b"INCRBY", key, delta]);
                added.push((requests, index));
                requests += 1;
            }
            if let Some(deadline) = increment.deadline.filter(|_| step.ends) {
                let mut digits = itoa::Buffer::new();
                let deadline = digits.format(deadline).as_bytes();
                encode::request(&mut body, &[b"PEXPIREAT", key, deadline]);
                requests += 1;
            }
        }
        let mut wire = Vec::new();
        let Head {
            last, exceptions, ..
        } = &head;
        let value = format!("{owner} {last}{exceptions}");
        encode::request(&mut wire, &[b"MULTI"]);
        let set: [&[u8]; 5] = [b"SET", &self.marker, value.as_bytes(), b"PX", MARKER_MS];
        encode::request(&mut wire, &set);
        wire.extend_from_slice(&body);
        encode::request(&mut wire, &[b"EXEC"]);
        Apply {
            wire,
            replies: requests + 2,
            head,
            added,
        }
    }

    /// What the replies to the transaction say; `None` when somebody changed what had been read:
    /// nothing was applied, and the call has to look again.
    pub fn applied(&self, apply: Apply, replies: &[Vec<u8>]) -> Option<Outcome> {
        let Apply {
            mut head, added, ..
        } = apply;
        let last = replies.last().map_or(UNREADABLE, Vec::as_slice);
        if reply::is_null(last) {
            return None;
        }
        let Some(replies_inside) = reply::elements(last) else {
            let is_error = |frame: &&Vec<u8>| reply::is_error(frame);
            let error = replies.iter().find(is_error);
            let error = error.map_or(UNREADABLE, Vec::as_slice);
            return Some(Outcome::Answer(without_abort(error)));
        };
        if head.status == "taken" {
            return Some(Outcome::Answer(head.frame()));
        }
        for (place, frame) in replies_inside.enumerate() {
            let index = added.iter().find(|(at, _)| *at == place);
            if let (Some((_, index)), true) = (index, reply::is_error(frame)) {
                head.except(self.number, *index, kind_of(frame));
            }
        }
        Some(Outcome::Applied(head))
    }
}

/// What a batch does with one key.
struct Step {
    adds: bool,
    /// Its deadline is set.
    ends: bool,
    exception: Option<u8>,
}

impl Step {
    /// As `apply` in `flush.lua`. `held` is the reply to `GET`.
    fn of(increment: &Increment, held: &[u8], now: u64) -> Self {
        let nothing = |kind| Self {
            adds: false,
            ends: false,
            exception: Some(kind),
        };
        let text = reply::text(held).filter(|_| !reply::is_error(held));
        let value = text.and_then(parse_i64);
        let past = increment.deadline.is_some_and(|deadline| deadline <= now);
        if past && increment.due {
            // A deadline that is over ends the key.
            return Self {
                ends: true,
                ..nothing(b'x')
            };
        }
        if past && value.is_none_or(|value| value < increment.last) {
            return nothing(b'x');
        }
        if increment.delta != 0 {
            match (text, value) {
                _ if reply::is_error(held) => return nothing(kind_of(held)),
                (Some(_), None) => return nothing(b'n'),
                (_, Some(value)) if value.checked_add(increment.delta).is_none() => {
                    return nothing(b'o');
                }
                _ => {}
            }
        }
        Self {
            adds: increment.delta != 0,
            // A key that is gone is made with its deadline.
            ends: !past && (increment.due || text.is_none() && increment.delta != 0),
            exception: past.then_some(b'a'),
        }
    }
}

impl Head {
    /// When the marker was read, by the node's clock: milliseconds since 1970.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The answer, with the keys as they were read at `time_ms` by the node's clock: what `MGET`
    /// gave, and milliseconds left.
    pub fn answer<'a>(
        &self,
        time_ms: u64,
        keys: impl ExactSizeIterator<Item = (&'a [u8], Deadline)>,
    ) -> Vec<u8> {
        use std::fmt::Write as _;

        let mut values = Vec::new();
        let mut deadlines = String::new();
        let words = 5 + keys.len();
        for (index, (value, left)) in keys.enumerate() {
            values.extend_from_slice(value);
            let deadline = match left {
                Deadline::NoKey => -2,
                Deadline::Never => -1,
                Deadline::Ms(ms) => time_ms.saturating_add(ms).try_into().unwrap_or(i64::MAX),
            };
            // Writing to a string can not fail.
            write!(deadlines, " {index}.{deadline}").unwrap_or_default();
        }
        let mut out = Vec::new();
        encode::array(&mut out, words);
        encode::bulk(&mut out, self.status.as_bytes());
        encode::number(&mut out, self.last);
        encode::number(&mut out, time_ms);
        encode::bulk(&mut out, self.exceptions.as_bytes());
        match self.epoch {
            Some(epoch) => encode::number(&mut out, epoch),
            None => encode::bulk(&mut out, deadlines.as_bytes()),
        }
        out.extend_from_slice(&values);
        out
    }

    fn frame(&self) -> Vec<u8> {
        self.answer(self.time_ms, std::iter::empty())
    }

    fn except(&mut self, of: u64, index: usize, kind: u8) {
        use std::fmt::Write as _;

        // Writing to a string can not fail.
        write!(self.exceptions, " {of}.{index}.{}", char::from(kind)).unwrap_or_default();
    }

    /// The marker keeps those of the last 8 numbers.
    fn forget_exceptions_before(&mut self, number: u64) {
        let before = std::mem::take(&mut self.exceptions);
        for exception in before.split(' ') {
            let of = exception.split('.').next().and_then(|of| of.parse().ok());
            if of.is_some_and(|of: u64| of.saturating_add(8) > number) {
                self.exceptions.push(' ');
                self.exceptions.push_str(exception);
            }
        }
    }
}

/// What the marker holds.
struct Marker {
    epoch: u64,
    seen: u64,
    /// With a space before each.
    exceptions: String,
}

/// The marker's key holds something else.
struct NoMarker;

impl Marker {
    fn read(frame: &[u8]) -> Result<Option<Self>, NoMarker> {
        if reply::is_null(frame) {
            return Ok(None);
        }
        let text = reply::text(frame).and_then(|text| std::str::from_utf8(text).ok());
        let (epoch, rest) = text.and_then(|text| text.split_once(' ')).ok_or(NoMarker)?;
        let (seen, exceptions) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
        let number = |text: &str| text.parse().map_err(|_| NoMarker);
        Ok(Some(Self {
            epoch: number(epoch)?,
            seen: number(seen)?,
            exceptions: exceptions.to_owned(),
        }))
    }
}

/// The exception that an error stands for: a letter, as in the script.
fn kind_of(error: &[u8]) -> u8 {
    let has = |part: &[u8]| error.windows(part.len()).any(|window| window == part);
    match () {
        () if has(b"WRONGTYPE") => b'w',
        () if has(b"overflow") => b'o',
        () => b'n',
    }
}

/// An error of `EXEC` names its cause behind words of its own (`execCommandAbort` in Redis
/// `multi.c`).
fn without_abort(error: &[u8]) -> Vec<u8> {
    let abort = b"-EXECABORT Transaction discarded because of: ";
    let cause = error.strip_prefix(abort);
    cause.map_or_else(|| error.to_vec(), |cause| [b"-", cause].concat())
}

/// Replies to `UNWATCH`, `WATCH`, `TIME` and `GET marker`.
const BEFORE_KEYS: usize = 4;

/// How often a call looks before it is given up until the next flush. The second half of these
/// looks do not watch the keys, which others may be changing all the time. Then it is known only
/// from its reply that an increment was refused, and what is decided about a deadline may be out of
/// date by a trip.
const MAX_LOOKS: u32 = 16;

/// No Redis gives such an answer, or somebody else wrote the marker.
const UNREADABLE: &[u8] = b"-ERR the marker of the flush batches can not be read\r\n";

/// See [`Call::look`].
pub const CONTENDED: &[u8] = b"-ERR others change the marker of the flush batches\r\n";
