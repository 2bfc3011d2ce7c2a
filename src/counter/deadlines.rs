//! Deadlines of warm counters: `EXPIRE` and its kin, and `TTL` and its kin, answered here.
//!
//! Deadlines are the node's own: milliseconds since 1970 by its clock, which every answer to a
//! batch and every promotion tells. A warm key is answered here only until a guard before its
//! deadline, so that what was acknowledged is applied while the key is there.

use std::time::{Duration, Instant};

use super::lane::{Effect, Lane, Step};
use super::queue::Queued;
use super::state::{Counter, State};
use crate::flush::Ledger;

/// A request about a key's deadline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Timed {
    /// `EXPIRE` and its kin.
    Expire(Expiry),
    /// `TTL` and its kin.
    Remaining(Remaining),
}

/// What `EXPIRE`, `PEXPIRE`, `EXPIREAT` or `PEXPIREAT` asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Expiry {
    /// When the key is to end.
    pub when: When,
    /// On what condition.
    pub condition: Condition,
}

/// A deadline as a client gives it, in milliseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum When {
    /// So many milliseconds from now.
    In(u64),
    /// Since 1970.
    At(u64),
}

/// `NX`, `XX`, `GT` or `LT`. A key without a deadline counts as ending later than any other.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Condition {
    /// In any case.
    #[default]
    Always,
    /// If it has none.
    IfNone,
    /// If it has one.
    IfSome,
    /// If the new one is later.
    IfLater,
    /// If the new one is earlier.
    IfEarlier,
}

/// What `TTL` or one of its kin asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Remaining {
    /// `TTL`: seconds from now, rounded.
    Seconds,
    /// `PTTL`: milliseconds from now.
    Milliseconds,
    /// `EXPIRETIME`: seconds since 1970, rounded.
    AtSeconds,
    /// `PEXPIRETIME`: milliseconds since 1970.
    AtMilliseconds,
}

/// The node's clock, as of the last answer that told the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeClock {
    /// Our time halfway between asking and being told.
    at: Instant,
    /// The node's time then, in milliseconds since 1970.
    ms: u64,
}

impl NodeClock {
    /// The node said `ms` in an answer that came at `now` to a request sent at `sent`.
    pub(super) fn told(ms: u64, sent: Instant, now: Instant) -> Self {
        let at = sent + now.saturating_duration_since(sent) / 2;
        Self { at, ms }
    }

    /// The node's time now, right within half a round trip.
    pub(super) fn now(self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.at).as_millis();
        self.ms
            .saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

impl Expiry {
    /// The new deadline, and whether the condition holds for the present one.
    fn deadline(self, present: Option<u64>, now_ms: u64) -> (u64, bool) {
        let new = match self.when {
            When::In(ms) => now_ms.saturating_add(ms),
            When::At(ms) => ms,
        };
        let holds = match self.condition {
            Condition::Always => true,
            Condition::IfNone => present.is_none(),
            Condition::IfSome => present.is_some(),
            Condition::IfLater => present.is_some_and(|present| new > present),
            Condition::IfEarlier => present.is_none_or(|present| new < present),
        };
        (new, holds)
    }
}

impl Counter {
    /// Answers a request about the key's deadline, if that can be done here; see
    /// [`Counter::expire`]. The journal is told.
    pub(super) fn timed(
        &mut self,
        key: &[u8],
        timed: Timed,
        now: Instant,
        (clock, guard): (Option<NodeClock>, Duration),
        ledger: Option<Ledger>,
    ) -> Option<i64> {
        let expiry = match timed {
            Timed::Remaining(what) => return self.remaining(what, now, clock),
            Timed::Expire(expiry) => expiry,
        };
        let before = self.seldom();
        let done = self.expire(expiry, now, clock?.now(now), guard)?;
        if !self.note(key, ledger) {
            self.change_seldom(|seldom| *seldom = before);
            return None;
        }
        Some(i64::from(done))
    }

    /// Sets a deadline here, to be sent with the next batch. Returns the reply: whether the
    /// condition held. `None` when it can not be done here: the key is not answered here, or the
    /// new deadline is too near for what is acknowledged until then to be applied in time.
    fn expire(
        &mut self,
        expiry: Expiry,
        now: Instant,
        now_ms: u64,
        guard: Duration,
    ) -> Option<bool> {
        if !self.answers(now) {
            return None;
        }
        let (deadline, holds) = expiry.deadline(self.deadline(), now_ms);
        let left = Duration::from_millis(deadline.saturating_sub(now_ms));
        let closes = now.checked_add(left.checked_sub(guard)?)?;
        if closes <= now {
            return None;
        }
        if holds {
            self.change_seldom(|seldom| {
                (seldom.deadline, seldom.closes, seldom.due) = (Some(deadline), Some(closes), true);
            });
        }
        Some(holds)
    }

    /// What is left until the deadline, as Redis says it (`ttlGenericCommand` in `expire.c`).
    fn remaining(&self, what: Remaining, now: Instant, clock: Option<NodeClock>) -> Option<i64> {
        if !self.answers(now) {
            return None;
        }
        let Some(deadline) = self.deadline() else {
            return Some(-1);
        };
        let left = || Some(deadline.saturating_sub(clock?.now(now)));
        let number = match what {
            Remaining::Seconds => left()?.saturating_add(500) / 1000,
            Remaining::Milliseconds => left()?,
            Remaining::AtSeconds => deadline.saturating_add(500) / 1000,
            Remaining::AtMilliseconds => deadline,
        };
        i64::try_from(number).ok()
    }
}

impl<T> Lane<T> {
    /// A request about the deadline of `key` by a client, `wire` being the request as it came.
    pub fn timed(
        &mut self,
        step: &mut Step<'_, T>,
        key: &[u8],
        timed: Timed,
        wire: &[u8],
        ticket: T,
    ) {
        if self.hold.is_some() {
            return self.forward(step, &[key], wire, Effect::Barrier, ticket);
        }
        let mut place = step.table.lock(key);
        // Behind a run in flight: the key may be warm then.
        if let Some(queue) = self.line(&mut place) {
            return self.enqueue(queue, Queued::timed(timed, wire, ticket));
        }
        if let Some(reply) = place.timed(timed, step.now) {
            drop(place);
            return step.integer(ticket, reply);
        }
        if place.counter().is_some_and(|counter| !counter.is_clean()) {
            self.seal(&mut place);
            let queue = self.attach_queue(&mut place);
            return self.enqueue(queue, Queued::timed(timed, wire, ticket));
        }
        if place.state().is_some() && matches!(timed, Timed::Expire(_)) {
            // Nothing known of the key survives, but for the fact that it was asked for.
            let until = step.table.policy(key).fresh_until(step.now);
            place.set(State::Touched {
                until,
                cool_until: None,
            });
        }
        drop(place);
        self.append(step.now, wire, ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(condition: Condition, present: Option<u64>, want: bool) {
        let expiry = Expiry {
            when: When::In(1000),
            condition,
        };
        assert_eq!(expiry.deadline(present, 5000), (6000, want));
    }

    #[test]
    fn conditions_take_no_deadline_for_the_latest() {
        check(Condition::Always, None, true);
        check(Condition::IfNone, None, true);
        check(Condition::IfNone, Some(1), false);
        check(Condition::IfSome, None, false);
        check(Condition::IfSome, Some(1), true);
        check(Condition::IfLater, None, false);
        check(Condition::IfLater, Some(6000), false);
        check(Condition::IfLater, Some(5999), true);
        check(Condition::IfEarlier, None, true);
        check(Condition::IfEarlier, Some(6000), false);
        check(Condition::IfEarlier, Some(6001), true);
    }
}
