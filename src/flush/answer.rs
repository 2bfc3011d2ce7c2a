//! What a node answers to a batch.

use std::str::FromStr;

use crate::resp::{parse_i64, reply};

/// A key's deadline, as the flush script and `PTTL` tell it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Deadline {
    /// There is no such key.
    NoKey,
    /// The key does not end.
    Never,
    /// Milliseconds: since 1970 by the node's clock, or from now where the text says so.
    Ms(u64),
}

impl Deadline {
    /// Reads -2, -1 or milliseconds, as an integer or a string.
    pub fn from_reply(frame: &[u8]) -> Option<Self> {
        let number = reply::integer(frame).or_else(|| parse_i64(reply::text(frame)?))?;
        Some(Self::of(number))
    }

    /// What `PTTL` means by this number.
    fn of(number: i64) -> Self {
        match number {
            -2 => Self::NoKey,
            ms => u64::try_from(ms).map_or(Self::Never, Self::Ms),
        }
    }
}

/// The reply to `TIME` in milliseconds since 1970; `None` for any other reply.
pub fn time_ms(frame: &[u8]) -> Option<u64> {
    let mut parts = reply::elements(frame)?.map(|part| parse_i64(reply::text(part)?));
    let (seconds, micros) = (parts.next()??, parts.next()??);
    u64::try_from(seconds.checked_mul(1000)?.checked_add(micros / 1000)?).ok()
}

/// A key as it was right after a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reading {
    /// The counter; `None` when there is none, or something else.
    pub value: Option<i64>,
    /// Its deadline by the node's clock; `None` when it was not asked for, see
    /// [`super::Increment::asks`].
    pub deadline: Option<Deadline>,
}

/// Why a node did not do what it was asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The error as the node gave it, without the leading `-` and without what Redis adds about
    /// scripts (`script: <sha>, on @user_script:1.`).
    pub text: String,
    /// Whether the same may succeed later: the node's state is at fault.
    pub transient: bool,
}

impl Refusal {
    /// Reads an error reply.
    pub fn from_reply(frame: &[u8]) -> Self {
        let text = reply::text(frame).unwrap_or(frame);
        let text = String::from_utf8_lossy(text);
        let text = text
            .split(" script: ")
            .next()
            .unwrap_or_default()
            .to_owned();
        let code = text.split(' ').next().unwrap_or_default();
        let transient = TRANSIENT.contains(&code);
        Self { text, transient }
    }

    /// Whether the server has no such command, or this user may not use it.
    pub fn is_forbidden(&self) -> bool {
        self.text.starts_with("NOPERM") || self.text.starts_with("ERR unknown command")
    }

    /// The same, but false where it is some key that the user may not use (`getAclErrorMessage` in
    /// Redis `acl.c`).
    pub fn is_of_the_command(&self) -> bool {
        self.is_forbidden() && !self.text.contains(" key")
    }
}

/// The script's answer, taken apart.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    pub(super) status: Status,
    /// The marker's number.
    pub(super) number: u64,
    /// The node's time in milliseconds since 1970.
    pub(super) time_ms: u64,
    exceptions: &'a [u8],
    /// The epoch, where the series was taken over.
    pub(super) epoch: Option<u64>,
    pub(super) readings: Vec<Reading>,
}

/// What the script did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Status {
    Applied,
    /// It had been applied before.
    Done,
    /// A lower number is missing; nothing was applied.
    Gap,
    /// There is no marker although this batch may have been applied; nothing was.
    Missing,
    /// Another process goes on with this series.
    Fenced,
    /// This process goes on with the series.
    Taken,
}

impl<'a> Answer<'a> {
    /// Reads the answer to a batch; `None` when it is no such answer.
    pub(super) fn read(frame: &'a [u8]) -> Option<Self> {
        let mut parts = reply::elements(frame)?;
        let status = match reply::text(parts.next()?)? {
            b"applied" => Status::Applied,
            b"done" => Status::Done,
            b"gap" => Status::Gap,
            b"missing" => Status::Missing,
            b"fenced" => Status::Fenced,
            b"taken" => Status::Taken,
            _ => return None,
        };
        let mut number = || u64::try_from(parse_i64(reply::text(parts.next()?)?)?).ok();
        let (last, time_ms) = (number()?, number()?);
        let exceptions = reply::text(parts.next()?)?;
        let epoch = match status {
            Status::Taken => Some(u64::try_from(parse_i64(reply::text(parts.next()?)?)?).ok()?),
            _ => None,
        };
        let mut readings = Vec::with_capacity(parts.len());
        if status != Status::Taken {
            let deadlines = reply::text(parts.next()?)?;
            readings.extend(parts.map(|value| Reading {
                value: reply::integer(value).or_else(|| reply::text(value).and_then(parse_i64)),
                deadline: None,
            }));
            for (index, deadline) in dotted::<usize>(deadlines) {
                readings.get_mut(index)?.deadline = Some(Deadline::of(parse_i64(deadline)?));
            }
        }
        Some(Self {
            status,
            number: last,
            time_ms,
            exceptions,
            epoch,
            readings,
        })
    }

    /// What was out of the ordinary with the keys of batch `number`: index and kind.
    pub(super) fn exceptions(&self, number: u64) -> impl Iterator<Item = (usize, u8)> {
        dotted::<u64>(self.exceptions).filter_map(move |(of, rest)| {
            let (index, kind) = split_number(rest)?;
            (of == number).then_some((index, *kind.first()?))
        })
    }
}

/// Reads words, each of which is a number, a dot, and something more.
fn dotted<N: FromStr>(words: &[u8]) -> impl Iterator<Item = (N, &[u8])> {
    words.split(|byte| *byte == b' ').filter_map(split_number)
}

fn split_number<N: FromStr>(word: &[u8]) -> Option<(N, &[u8])> {
    let dot = memchr::memchr(b'.', word)?;
    let (number, rest) = word.split_at(dot);
    Some((
        std::str::from_utf8(number).ok()?.parse().ok()?,
        rest.get(1..)?,
    ))
}

/// Error codes of Redis that speak of the server's state, not of the key or the command
/// (`shared` in Redis `server.c`): the command was not executed and may succeed later.
const TRANSIENT: &[&str] = &[
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOAUTH",
    "NOPERM",
    "NOREPLICAS",
    "NOSCRIPT",
    "OOM",
    "READONLY",
    "TRYAGAIN",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_transient_refusals_and_strips_what_scripts_add() {
        let refusal = Refusal::from_reply(
            b"-OOM command not allowed when used memory > 'maxmemory'. script: 1f2e, on @user_script:47.\r\n",
        );
        assert!(refusal.transient);
        assert_eq!(
            refusal.text,
            "OOM command not allowed when used memory > 'maxmemory'."
        );
        assert!(!Refusal::from_reply(b"-ERR value is not an integer\r\n").transient);
        let of_the_command = |frame: &[u8]| Refusal::from_reply(frame).is_of_the_command();
        assert!(of_the_command(
            b"-NOPERM User default has no permissions to run the 'evalsha' command\r\n"
        ));
        assert!(!of_the_command(
            b"-NOPERM No permissions to access a key\r\n"
        ));
    }

    #[test]
    fn reads_an_answer_with_its_exceptions() {
        let frame =
            b"*8\r\n$7\r\napplied\r\n$1\r\n7\r\n$13\r\n1700000000000\r\n$12\r\n 7.1.w 6.0.x\r\n\
                      $10\r\n 1.-2 2.-1\r\n:12\r\n_\r\n$1\r\n7\r\n";
        let answer = Answer::read(frame).unwrap();
        assert_eq!((answer.status, answer.number), (Status::Applied, 7));
        assert_eq!(answer.time_ms, 1_700_000_000_000);
        assert_eq!(answer.exceptions(7).collect::<Vec<_>>(), [(1, b'w')]);
        assert_eq!(answer.exceptions(6).collect::<Vec<_>>(), [(0, b'x')]);
        let gone = Reading {
            value: None,
            deadline: Some(Deadline::NoKey),
        };
        let read = Reading {
            value: Some(7),
            deadline: Some(Deadline::Never),
        };
        let there = Reading {
            value: Some(12),
            deadline: None,
        };
        assert_eq!(answer.readings, [there, gone, read]);
    }
}
