//! Requests about deadlines that may be answered here.

use super::dispatch::Dispatch;
use crate::command::Command;
use crate::counter::{Condition, Expiry, Remaining, Timed, When};
use crate::resp::{Request, encode, parse_i64};

impl Dispatch<'_> {
    /// Answers a request about the deadline of a warm counter without its lane. False when the
    /// request is another one, or when the lane has to be asked: then nothing has happened.
    pub(super) fn deadline_here(&mut self, request: &Request<'_>) -> bool {
        if self.is_elsewhere() {
            return false;
        }
        let Some(timed) = read(self.command(), request) else {
            return false;
        };
        // A client that tracks what it reads is served by the lane.
        if self.is_tracked() {
            return false;
        }
        let key = request.arg(1);
        let index = self.shared.router.index(key);
        let Some(reply) = self.node(index).table().timed(key, timed, self.now) else {
            return false;
        };
        if self.client.finish_command() {
            encode::integer(self.made, reply);
        }
        true
    }
}

/// Reads a request about a deadline; `None` for any other, and for one with an odd argument:
/// Redis answers that.
pub(super) fn read(command: &Command, request: &Request<'_>) -> Option<Timed> {
    let when: fn(u64) -> Option<When> = match command.name {
        "expire" => |seconds| Some(When::In(seconds.checked_mul(1000)?)),
        "pexpire" => |ms| Some(When::In(ms)),
        "expireat" => |seconds| Some(When::At(seconds.checked_mul(1000)?)),
        "pexpireat" => |ms| Some(When::At(ms)),
        "ttl" => return Some(Timed::Remaining(Remaining::Seconds)),
        "pttl" => return Some(Timed::Remaining(Remaining::Milliseconds)),
        "expiretime" => return Some(Timed::Remaining(Remaining::AtSeconds)),
        "pexpiretime" => return Some(Timed::Remaining(Remaining::AtMilliseconds)),
        _ => return None,
    };
    let time = u64::try_from(parse_i64(request.arg(2))?).ok()?;
    // Beyond it Redis refuses what overflows (`expireGenericCommand` in `expire.c`).
    let when = when(time).filter(|_| time < MOST)?;
    let condition = match request.len() {
        3 => Condition::Always,
        4 => condition(request.arg(3))?,
        _ => return None,
    };
    Some(Timed::Expire(Expiry { when, condition }))
}

fn condition(option: &[u8]) -> Option<Condition> {
    let options = [
        (b"nx", Condition::IfNone),
        (b"xx", Condition::IfSome),
        (b"gt", Condition::IfLater),
        (b"lt", Condition::IfEarlier),
    ];
    let found = options
        .iter()
        .find(|(name, _)| option.eq_ignore_ascii_case(*name));
    found.map(|(_, condition)| *condition)
}

/// A thousand years in milliseconds: far below where any sum leaves 63 bits.
const MOST: u64 = 1000 * 366 * 86_400_000;
