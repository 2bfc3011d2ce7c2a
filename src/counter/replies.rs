//! What a node's replies, or their absence, change.

use std::time::{Duration, Instant};

use super::deadlines::NodeClock;
use super::drain::detach;
use super::lane::{Extent, Lane, Step};
use super::losses::Losses;
use super::queue::{
    Get, GetMany, Hold, InFlight, Member, Promotion, Queued, Run, RunReply, Slot, Submission,
    UNEXPECTED,
};
use super::state::{Counter, State, Telling, Told};
use super::table::Place;
use crate::flush::Deadline;
use crate::key::Key;
use crate::resp::{encode, reply};
use crate::rule::{Rule, holds};

/// A reply came that nothing was waiting for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a reply came that no request was waiting for")]
pub struct UnexpectedReply;

impl<T> Lane<T> {
    /// Takes the node's next reply (a whole RESP3 frame, no push).
    ///
    /// # Errors
    ///
    /// Nothing was in flight: the connection is out of step and must be closed.
    pub fn on_reply(
        &mut self,
        step: &mut Step<'_, T>,
        frame: &[u8],
    ) -> Result<(), UnexpectedReply> {
        let slot = self.fifo.front_mut().ok_or(UnexpectedReply)?;
        let Some(done) = slot.what.on_reply(step, frame) else {
            return Ok(());
        };
        let Some(slot) = self.pop() else {
            return Ok(());
        };
        match (slot.what, done) {
            (_, Done::Flush(number)) => self.finish_flush(step, number, frame, slot.at),
            (InFlight::ReadBack(read), Done::ReadBack(is_read)) => {
                self.finish_read_back(step, &read, is_read.then_some(frame), slot.at);
            }
            (InFlight::Run(run), Done::Run(reply)) => self.finish_run(step, *run, reply, slot.at),
            (InFlight::Limit(run), Done::Limit) => self.finish_limit(step, *run, frame, slot.at),
            (InFlight::Bundle(run), Done::Bundle) => self.finish_bundle(step, *run, frame, slot.at),
            (InFlight::Get(get), Done::Get) => self.finish_get(step, &get, frame, slot.at),
            (InFlight::GetMany(get), Done::GetMany) => Self::finish_get_many(step, *get, slot.at),
            _ => {}
        }
        self.replied(step);
        Ok(())
    }

    /// Takes the keys whose value turned out to be another than was answered here, since the last
    /// call: a few for each batch that was settled.
    pub fn take_revised(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.revised)
    }

    /// Takes what was lost since the last call.
    pub fn take_losses(&mut self) -> Losses {
        std::mem::take(&mut self.losses)
    }

    /// Tells the clients whose commands are in flight for longer than `timeout` with `error` (a
    /// frame); their replies are skipped when they come. Who waits for one of these replies, or comes
    /// to wait for it, is told with `unsent`, and is not sent. Returns how many requests in flight
    /// were told of.
    pub fn expire(
        &mut self,
        step: &mut Step<'_, T>,
        timeout: Duration,
        (error, unsent): (&[u8], &[u8]),
    ) -> usize {
        let waits = !self.is_applied() || step.table.dirty() > 0;
        if waits && !self.series.is_ready() {
            // Nothing can be flushed until the node takes scripts again, if ever.
            self.refuse_waiting(step, NO_SCRIPTS);
        }
        // Where the socket takes nothing they would never be in flight, nor late.
        self.send_bundles(step.now);
        let before = self.told;
        while let Some(slot) = self.fifo.get_mut(self.told) {
            if slot.at + timeout > step.now {
                break;
            }
            self.told += 1;
            match &mut slot.what {
                InFlight::Wrapped(_, transaction) if transaction.is_patient => {}
                InFlight::Forwarded(ticket)
                | InFlight::Wrapped(ticket, _)
                | InFlight::Transaction(ticket, _) => {
                    step.tell(ticket.take(), error);
                }
                InFlight::Run(run) => {
                    let members = run.members.iter_mut();
                    step.tell(members.filter_map(|member| member.ticket.take()), error);
                }
                InFlight::Get(get) => {
                    let mut place = step.table.lock(get.key.as_bytes());
                    if let Some(State::Fetching { fetch, members }) = place.state()
                        && *fetch == get.fetch
                    {
                        // Who comes now would not be told: nobody looks at the slot again.
                        *members = None;
                    }
                    drop(place);
                    let members = self.fetches.get_mut(get.members);
                    let members = members.map(std::mem::take).unwrap_or_default();
                    self.joined -= members.len().saturating_sub(1);
                    step.tell(members, error);
                }
                InFlight::GetMany(get) => {
                    let keys = get.keys.iter_mut();
                    step.tell(keys.filter_map(|wanted| wanted.ticket.take()), error);
                }
                InFlight::Limit(run) => {
                    let callers = run.callers.iter_mut();
                    step.tell(callers.filter_map(|(ticket, _)| ticket.take()), error);
                }
                InFlight::Bundle(run) => step.tell(run.take_tickets(), error),
                InFlight::Flush(_) | InFlight::ReadBack(_) => {}
            }
        }
        let told = self.told - before;
        if self.told > 0 && (self.waiting > 0 || self.hold.is_some()) {
            self.fail_behind_told(step, unsent);
        }
        told
    }

    /// Fails what waits for replies that are overdue.
    fn fail_behind_told(&mut self, step: &mut Step<'_, T>, error: &[u8]) {
        let mut opening = Vec::new();
        let mut is_flushing = false;
        for slot in self.fifo.iter().take(self.told) {
            match &slot.what {
                InFlight::Run(run) => opening.push((run.key.clone(), run.id)),
                InFlight::Limit(run) => opening.push(run.opening()),
                InFlight::Bundle(run) => opening.extend(run.opening()),
                InFlight::Flush(_) | InFlight::ReadBack(_) => is_flushing = true,
                _ => {}
            }
        }
        for (key, id) in opening {
            let mut place = step.table.lock(key.as_bytes());
            let queue = match place.state() {
                Some(State::Opening { run, queue, .. }) if *run == id => *queue,
                _ => None,
            };
            drop(place);
            if let Some(queue) = queue {
                let freed = self.fail_queue(step, (&key, queue), error);
                self.drain(step, freed);
            }
        }
        if is_flushing {
            self.refuse_waiting(step, error);
        } else if self
            .hold
            .as_ref()
            .is_some_and(|hold| hold.extent != Extent::Ordered)
        {
            self.fail_hold(step, error);
        }
    }

    /// The connection is gone. Everything in flight fails with `unknown` (what was sent may have
    /// been executed) or `unsent` (it was not), and so does everything that waits. Counters with
    /// something pending stay, and so do batches that were not acknowledged: they are sent again.
    pub fn disconnected(&mut self, step: &mut Step<'_, T>, unknown: &[u8], unsent: &[u8]) {
        let taken = self.taken;
        for slot in std::mem::take(&mut self.fifo) {
            let error = if slot.start < taken { unknown } else { unsent };
            self.fail_slot(step, slot, error);
        }
        for (_, queue) in std::mem::take(&mut self.queues) {
            for waiting in queue {
                if let Queued::Increment { ticket, .. }
                | Queued::Get { ticket, .. }
                | Queued::Limit { ticket, .. }
                | Queued::Timed { ticket, .. } = waiting
                {
                    (step.deliver)(ticket, unsent);
                }
            }
        }
        for mut run in std::mem::take(&mut self.bundles) {
            step.tell(run.take_tickets(), unsent);
        }
        let parked = std::mem::take(&mut self.parked).into_iter();
        step.tell(parked.filter_map(|(_, command)| command.ticket), unsent);
        let stopped = self.hold.as_ref().is_some_and(Hold::is_stopped);
        if let Some(hold) = self.hold.take() {
            let tickets = hold.queue.into_iter().flat_map(Submission::into_tickets);
            step.tell(hold.ticket.into_iter().chain(tickets), unsent);
        }
        self.series.disconnected();
        self.fetches.clear();
        self.windows.clear();
        self.waiting = 0;
        self.told = 0;
        self.restart_stream();
        step.table.disconnected();
        if stopped {
            self.stay_stopped(step);
        }
    }

    fn fail_slot(&mut self, step: &mut Step<'_, T>, slot: Slot<T>, error: &[u8]) {
        match slot.what {
            InFlight::Forwarded(ticket)
            | InFlight::Wrapped(ticket, _)
            | InFlight::Transaction(ticket, _) => {
                step.tell(ticket, error);
            }
            InFlight::Run(run) => {
                self.joined -= run.members.len() - 1;
                let members = run.members.into_iter();
                step.tell(members.filter_map(|member| member.ticket), error);
            }
            InFlight::Get(get) => step.tell(self.end_fetch(&get), error),
            InFlight::GetMany(get) => {
                let keys = get.keys.into_iter();
                step.tell(keys.filter_map(|wanted| wanted.ticket), error);
            }
            InFlight::Limit(run) => {
                self.joined -= run.callers.len() - 1;
                let callers = run.callers.into_iter();
                step.tell(callers.filter_map(|(ticket, _)| ticket), error);
            }
            InFlight::Bundle(mut run) => {
                self.joined -= run.joined();
                step.tell(run.take_tickets(), error);
            }
            InFlight::Flush(_) | InFlight::ReadBack(_) => {}
        }
    }

    fn pop(&mut self) -> Option<Slot<T>> {
        self.told = self.told.saturating_sub(1);
        self.fifo.pop_front()
    }

    pub(super) fn replied(&mut self, step: &mut Step<'_, T>) {
        if self.hold.is_some() {
            self.release_hold(step);
        }
    }

    fn finish_run(&mut self, step: &mut Step<'_, T>, run: Run<T>, reply: RunReply, at: Instant) {
        let Run {
            key,
            id,
            members,
            sum,
            ..
        } = run;
        self.joined -= members.len() - 1;
        let mut place = step.table.lock(key.as_bytes());
        let mine = matches!(place.state(), Some(State::Opening { run, .. }) if *run == id);
        let queue = if mine { detach(&mut place) } else { None };
        let mut base = None;
        match reply {
            RunReply::Counted(value, promotion) => {
                if let Some(Promotion { time_ms, .. }) = promotion {
                    step.table
                        .tell_clock(NodeClock::told(time_ms, at, step.now));
                }
                if mine {
                    let telling = self.telling();
                    place.set(counted(
                        step,
                        &key,
                        (value, promotion),
                        (queue, telling),
                        at,
                    ));
                }
                drop(place);
                base = Some(value);
                let mut prefix = value.wrapping_sub(sum);
                for member in members {
                    prefix = prefix.wrapping_add(member.delta.unwrap_or(0));
                    match (member.ticket, member.delta) {
                        (None, _) => {}
                        (Some(ticket), Some(_)) => step.integer(ticket, prefix),
                        (Some(ticket), None) => step.decimal(ticket, prefix),
                    }
                }
            }
            RunReply::Refused(error) => {
                if mine {
                    place.clear();
                }
                drop(place);
                self.refuse_run(step, &key, members, &error);
            }
        }
        if let Some(queue) = queue {
            self.drain_key(step, key, queue, base);
        }
    }

    /// Redis refused a run, so it changed nothing. If the run was a single increment, its client
    /// gets the error. Several are sent again one by one: the sum may overflow where the first ones
    /// do not, and a GET among them has another answer.
    fn refuse_run(
        &mut self,
        step: &mut Step<'_, T>,
        key: &Key,
        members: Vec<Member<T>>,
        error: &[u8],
    ) {
        let alone = members.len() == 1 || !holds(Rule::RunSplit);
        for member in members {
            match (member.ticket, member.delta) {
                (None, _) => {}
                (Some(ticket), Some(_)) if alone => (step.deliver)(ticket, error),
                (Some(ticket), Some(delta)) => {
                    self.append_increment(step.now, key.as_bytes(), delta, ticket);
                }
                (Some(ticket), None) => self.append_get(step.now, key.as_bytes(), ticket),
            }
        }
    }

    fn finish_get(&mut self, step: &mut Step<'_, T>, get: &Get, frame: &[u8], at: Instant) {
        let (value, ttl) = match &get.value {
            Some(value) => (value.as_slice(), Deadline::from_reply(frame)),
            None => (frame, None),
        };
        let mut place = step.table.lock(get.key.as_bytes());
        if matches!(place.state(), Some(State::Fetching { fetch, .. }) if *fetch == get.fetch)
            || !holds(Rule::Generations)
        {
            let until = step.table.policy(get.key.as_bytes()).fresh_until(at);
            keep_value(&mut place, value, ttl, at, until);
        }
        drop(place);
        for ticket in self.end_fetch(get) {
            (step.deliver)(ticket, value);
        }
    }

    /// Ends a GET, which nobody can join any more. Returns its clients.
    fn end_fetch(&mut self, get: &Get) -> Vec<T> {
        let members = self.fetches.try_remove(get.members).unwrap_or_default();
        self.joined -= members.len().saturating_sub(1);
        members
    }

    fn finish_get_many(step: &mut Step<'_, T>, get: GetMany<T>, at: Instant) {
        let frame = get.values.unwrap_or_default();
        let mut values = reply::elements(&frame).into_iter().flatten();
        let mut ttls = get.ttls.into_iter();
        for wanted in get.keys {
            let error = if reply::is_error(&frame) {
                &frame
            } else {
                UNEXPECTED
            };
            let value = values.next().unwrap_or(error);
            let ttl = if wanted.keep {
                ttls.next().flatten()
            } else {
                None
            };
            let mut place = step.table.lock(wanted.key.as_bytes());
            let until = step.table.policy(wanted.key.as_bytes()).fresh_until(at);
            if matches!(place.state(), Some(State::Fetching { fetch, .. }) if *fetch == get.fetch) {
                keep_value(&mut place, value, ttl, at, until);
            }
            drop(place);
            if let Some(ticket) = wanted.ticket {
                (step.deliver)(ticket, value);
            }
        }
    }
}

impl<T> Step<'_, T> {
    /// Gives all of these clients the same reply.
    pub(super) fn tell(&mut self, tickets: impl IntoIterator<Item = T>, frame: &[u8]) {
        for ticket in tickets {
            (self.deliver)(ticket, frame);
        }
    }
}

/// The state of a key that a run has just counted.
fn counted<T>(
    step: &Step<'_, T>,
    key: &Key,
    (value, promotion): (i64, Option<Promotion>),
    (queue, telling): (Option<usize>, Option<Telling>),
    at: Instant,
) -> State {
    let policy = step.table.policy(key.as_bytes());
    let until = policy.touched_until(at);
    let mut counter = Counter::new(value, policy.class, policy.counter_fresh_until(at));
    counter.set_queue(queue);
    counter.told = Told::on(telling);
    match promotion {
        Some(Promotion {
            left: Deadline::Never,
            ..
        }) => State::Warm(counter),
        Some(Promotion {
            left: Deadline::Ms(ms),
            time_ms,
        }) => {
            let deadline = time_ms.checked_add(ms);
            let closes = policy.closes(at, Duration::from_millis(ms));
            counter.set_end(deadline, closes);
            if deadline.is_some() && closes.is_some_and(|closes| closes > step.now) {
                return State::Warm(counter);
            }
            // Too near its end: increments go on one by one, or combined, until then.
            let end = at
                .checked_add(Duration::from_millis(ms))
                .map_or(until, |end| end.min(until));
            State::Touched {
                until,
                cool_until: Some(end),
            }
        }
        Some(Promotion {
            left: Deadline::NoKey,
            ..
        })
        | None => State::Touched {
            until,
            cool_until: None,
        },
    }
}

/// Keeps a value until the key's own deadline, counted from before the request was sent, or until
/// the end of the lease. The key is merely touched if its time to live is not known, and if the
/// reply is an error. So it is when value and time to live contradict each other, as they do when
/// the key was changed between the two reads or has another type, which `MGET` forgives.
fn keep_value(
    place: &mut Place<'_>,
    value: &[u8],
    ttl: Option<Deadline>,
    at: Instant,
    lease: Instant,
) {
    let until = match ttl {
        Some(Deadline::Ms(ms)) => at
            .checked_add(Duration::from_millis(ms))
            .map_or(lease, |deadline| lease.min(deadline)),
        _ => lease,
    };
    match (ttl, reply::text(value)) {
        _ if reply::is_error(value) => {}
        (Some(Deadline::NoKey), None) if reply::is_null(value) => return place.cache(None, until),
        (Some(Deadline::Never | Deadline::Ms(_)), Some(text)) => {
            return place.cache(Some(text), until);
        }
        _ => {}
    }
    place.set(State::Touched {
        until: lease,
        cool_until: None,
    });
}

/// Answers with the first element of the reply to a transaction of ours, or with the error that
/// ended it.
fn deliver_first<T>(step: &mut Step<'_, T>, ticket: T, end: Result<(), Vec<u8>>, frame: &[u8]) {
    let first = reply::elements(frame).into_iter().flatten().next();
    match end {
        Ok(()) => (step.deliver)(ticket, first.unwrap_or(UNEXPECTED)),
        Err(error) => (step.deliver)(ticket, &error),
    }
}

/// Answers with the reply to `EXEC`, or with the error of whatever ended the transaction before.
fn deliver_last<T>(step: &mut Step<'_, T>, ticket: T, end: Result<(), Vec<u8>>, frame: &[u8]) {
    match end {
        Ok(()) => (step.deliver)(ticket, frame),
        Err(cause) => (step.deliver)(ticket, &discarded(&cause)),
    }
}

/// The error of a transaction that the node discarded: an error of `EXEC` itself as it is, the
/// cause in Redis's words (`execCommandAbort` in `multi.c`) where a command was not queued.
pub fn discarded(cause: &[u8]) -> Vec<u8> {
    let text = reply::text(cause).unwrap_or_default();
    let mut error = Vec::new();
    if text.starts_with(b"EXECABORT") {
        encode::error(&mut error, text);
    } else {
        let said = [b"EXECABORT Transaction discarded because of: ", text].concat();
        encode::error(&mut error, said);
    }
    error
}

/// The error of a command that waits for increments which can not be flushed.
const NO_SCRIPTS: &[u8] =
    b"-ERR the node takes no scripts, so increments of the key can not be flushed\r\n";

impl<T> InFlight<T> {
    /// Takes the next reply; the last one says what it came to.
    fn on_reply(&mut self, step: &mut Step<'_, T>, frame: &[u8]) -> Option<Done> {
        Some(match self {
            Self::Forwarded(ticket) => {
                if let Some(ticket) = ticket.take() {
                    (step.deliver)(ticket, frame);
                }
                Done::Told
            }
            Self::Run(run) => Done::Run(run.on_reply(frame)?),
            Self::Get(get) => {
                if get.keep && get.value.is_none() {
                    get.value = Some(frame.to_vec());
                    return None;
                }
                Done::Get
            }
            Self::GetMany(get) => {
                if !get.on_reply(frame) {
                    return None;
                }
                Done::GetMany
            }
            Self::Flush(number) => Done::Flush(*number),
            Self::ReadBack(read) => Done::ReadBack(read.transaction.on_reply(frame)?.is_ok()),
            Self::Limit(_) => Done::Limit,
            Self::Bundle(run) => {
                if run.passes_over() {
                    return None;
                }
                Done::Bundle
            }
            Self::Wrapped(ticket, transaction) => {
                let end = transaction.on_reply(frame)?;
                if let Some(ticket) = ticket.take() {
                    deliver_first(step, ticket, end, frame);
                }
                Done::Told
            }
            Self::Transaction(ticket, transaction) => {
                let end = transaction.on_reply(frame)?;
                if let Some(ticket) = ticket.take() {
                    deliver_last(step, ticket, end, frame);
                }
                Done::Told
            }
        })
    }
}

/// What the front of the FIFO came to.
enum Done {
    /// Its client was told.
    Told,
    Flush(u64),
    /// Whether the keys could be read.
    ReadBack(bool),
    Run(RunReply),
    Limit,
    Bundle,
    Get,
    GetMany,
}
