//! What a node's replies, or their absence, change.

use std::time::{Duration, Instant};

use super::drain::{Drain, detach};
use super::lane::{Lane, Step};
use super::queue::{
    Get, GetMany, Hold, InFlight, Member, Queued, Run, RunReply, Slot, Submission, UNEXPECTED,
};
use super::state::{Counter, State};
use super::table::Place;
use crate::flush::{Increment, Outcome, Refusal, Ttl};
use crate::key::Key;
use crate::resp::{encode, reply};

/// Acknowledged increments that did not reach their key, for the log and the metrics. The first
/// [`Losses::LISTED`] are named, all are counted.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// Refused by the node, with its error: mostly because somebody else put something there that
    /// is no counter.
    pub refused: Vec<(Increment, String)>,
    /// Sent, and the connection lost before the answer: applied or not, nobody knows.
    pub in_doubt: Vec<Increment>,
    /// How many were refused.
    pub refused_count: u64,
    /// How many are in doubt.
    pub in_doubt_count: u64,
}

impl Losses {
    /// Most losses kept by name between two calls of [`Lane::take_losses`].
    pub const LISTED: usize = 100;

    fn refuse(&mut self, increment: Increment, text: String) {
        self.refused_count += 1;
        if self.refused.len() < Self::LISTED {
            self.refused.push((increment, text));
        }
    }

    fn doubt(&mut self, increment: Increment) {
        self.in_doubt_count += 1;
        if self.in_doubt.len() < Self::LISTED {
            self.in_doubt.push(increment);
        }
    }
}

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
        let at = slot.at;
        let done = match &mut slot.what {
            InFlight::Forwarded(ticket) => {
                if let Some(ticket) = ticket.take() {
                    (step.deliver)(ticket, frame);
                }
                self.pop();
                self.replied(step);
                return Ok(());
            }
            InFlight::Run(run) => match run.on_reply(frame) {
                None => return Ok(()),
                Some(reply) => Done::Run(reply),
            },
            InFlight::Get(get) => {
                if get.keep && get.value.is_none() {
                    get.value = Some(frame.to_vec());
                    return Ok(());
                }
                Done::Get
            }
            InFlight::GetMany(get) => {
                match get.values {
                    None => get.values = Some(frame.to_vec()),
                    Some(_) => get.ttls.push(Ttl::from_reply(frame)),
                }
                if get.ttls.len() < get.keep {
                    return Ok(());
                }
                Done::GetMany
            }
            InFlight::Flush(batch) => {
                let settled = batch.on_reply(frame);
                let done = batch.is_settled();
                if done {
                    self.pop();
                }
                if let Some((increment, outcome)) = settled {
                    self.settle(step, increment, outcome, at);
                }
                if done {
                    self.replied(step);
                }
                return Ok(());
            }
        };
        let Some(slot) = self.pop() else {
            return Ok(());
        };
        match (slot.what, done) {
            (InFlight::Run(run), Done::Run(reply)) => self.finish_run(step, *run, reply, slot.at),
            (InFlight::Get(get), Done::Get) => self.finish_get(step, &get, frame, slot.at),
            (InFlight::GetMany(get), Done::GetMany) => Self::finish_get_many(step, *get, slot.at),
            _ => {}
        }
        self.replied(step);
        Ok(())
    }

    /// Takes what was lost since the last call.
    pub fn take_losses(&mut self) -> Losses {
        std::mem::take(&mut self.losses)
    }

    /// Tells the clients whose commands are in flight for longer than `timeout` with `error` (a
    /// frame); their replies are skipped when they come. Returns how many were told.
    pub fn expire(&mut self, step: &mut Step<'_, T>, timeout: Duration, error: &[u8]) -> usize {
        let before = self.told;
        while let Some(slot) = self.fifo.get_mut(self.told) {
            if slot.at + timeout > step.now {
                break;
            }
            self.told += 1;
            match &mut slot.what {
                InFlight::Forwarded(ticket) => {
                    if let Some(ticket) = ticket.take() {
                        (step.deliver)(ticket, error);
                    }
                }
                InFlight::Run(run) => {
                    for ticket in run
                        .members
                        .iter_mut()
                        .filter_map(|member| member.ticket.take())
                    {
                        (step.deliver)(ticket, error);
                    }
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
                    for ticket in members {
                        (step.deliver)(ticket, error);
                    }
                }
                InFlight::GetMany(get) => {
                    for ticket in get
                        .keys
                        .iter_mut()
                        .filter_map(|wanted| wanted.ticket.take())
                    {
                        (step.deliver)(ticket, error);
                    }
                }
                InFlight::Flush(_) => {}
            }
        }
        self.told - before
    }

    /// The connection is gone. Everything in flight fails with `unknown` (what was sent may have
    /// been executed) or `unsent` (it was not), and so does everything that waits. Counters with
    /// something pending stay; increments in a batch that was sent are in doubt and given up.
    pub fn disconnected(&mut self, step: &mut Step<'_, T>, unknown: &[u8], unsent: &[u8]) {
        let taken = self.taken;
        for slot in std::mem::take(&mut self.fifo) {
            let sent = slot.start < taken;
            let error = if sent { unknown } else { unsent };
            self.fail_slot(step, slot, sent, error);
        }
        for (_, queue) in std::mem::take(&mut self.queues) {
            for waiting in queue {
                if let Queued::Increment { ticket, .. } | Queued::Get { ticket, .. } = waiting {
                    (step.deliver)(ticket, unsent);
                }
            }
        }
        for (_, command) in std::mem::take(&mut self.parked) {
            if let Some(ticket) = command.ticket {
                (step.deliver)(ticket, unsent);
            }
        }
        if let Some(hold) = self.hold.take() {
            let tickets = hold.queue.into_iter().flat_map(Submission::into_tickets);
            for ticket in hold.ticket.into_iter().chain(tickets) {
                (step.deliver)(ticket, unsent);
            }
        }
        self.fetches.clear();
        self.waiting = 0;
        self.told = 0;
        self.restart_stream();
        step.table.disconnected();
    }

    fn fail_slot(&mut self, step: &mut Step<'_, T>, slot: Slot<T>, sent: bool, error: &[u8]) {
        match slot.what {
            InFlight::Forwarded(ticket) => {
                if let Some(ticket) = ticket {
                    (step.deliver)(ticket, error);
                }
            }
            InFlight::Run(run) => {
                self.joined -= run.members.len() - 1;
                for ticket in run.members.into_iter().filter_map(|member| member.ticket) {
                    (step.deliver)(ticket, error);
                }
            }
            InFlight::Get(get) => {
                for ticket in self.end_fetch(&get) {
                    (step.deliver)(ticket, error);
                }
            }
            InFlight::GetMany(get) => {
                for ticket in get.keys.into_iter().filter_map(|wanted| wanted.ticket) {
                    (step.deliver)(ticket, error);
                }
            }
            InFlight::Flush(batch) => {
                for increment in batch.into_unsettled() {
                    let mut place = step.table.lock(increment.key.as_bytes());
                    let restored = !sent
                        && place
                            .counter()
                            .is_some_and(|counter| counter.restore(increment.delta));
                    if let (false, Some(counter)) = (restored, place.counter()) {
                        counter.forget(increment.delta);
                    }
                    place.list_if_pending();
                    drop(place);
                    if !restored {
                        self.losses.doubt(increment);
                    }
                }
            }
        }
    }

    fn pop(&mut self) -> Option<Slot<T>> {
        self.told = self.told.saturating_sub(1);
        self.fifo.pop_front()
    }

    fn replied(&mut self, step: &mut Step<'_, T>) {
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
            RunReply::Counted(value, ttl) => {
                let until = step.table.fresh_until(at);
                if mine && ttl == Some(Ttl::Forever) {
                    let mut counter = Counter::new(value, until);
                    counter.queue = queue;
                    place.set(State::Warm(counter));
                } else if mine {
                    let cool_until = ttl.map(|_| until);
                    place.set(State::Touched { until, cool_until });
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
            self.drain(step, vec![Drain { key, queue, base }]);
        }
    }

    /// Redis refused a run, so it changed nothing. A single increment gets the error. Several are
    /// sent again one by one: the sum may overflow where the first ones do not, and a GET among
    /// them has another answer.
    fn refuse_run(
        &mut self,
        step: &mut Step<'_, T>,
        key: &Key,
        members: Vec<Member<T>>,
        error: &[u8],
    ) {
        let alone = members.len() == 1;
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
            Some(value) => (value.as_slice(), Ttl::from_reply(frame)),
            None => (frame, None),
        };
        let mut place = step.table.lock(get.key.as_bytes());
        if matches!(place.state(), Some(State::Fetching { fetch, .. }) if *fetch == get.fetch) {
            let until = step.table.fresh_until(at);
            keep_value(&mut place, value, ttl, at, until);
        }
        drop(place);
        for ticket in self.end_fetch(get) {
            (step.deliver)(ticket, value);
        }
    }

    /// The clients of a GET, which nobody can join any more.
    fn end_fetch(&mut self, get: &Get) -> Vec<T> {
        let members = self.fetches.try_remove(get.members).unwrap_or_default();
        self.joined -= members.len().saturating_sub(1);
        members
    }

    fn finish_get_many(step: &mut Step<'_, T>, get: GetMany<T>, at: Instant) {
        let frame = get.values.unwrap_or_default();
        let mut values = reply::elements(&frame).into_iter().flatten();
        let mut ttls = get.ttls.into_iter();
        let until = step.table.fresh_until(at);
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
            if matches!(place.state(), Some(State::Fetching { fetch, .. }) if *fetch == get.fetch) {
                keep_value(&mut place, value, ttl, at, until);
            }
            drop(place);
            if let Some(ticket) = wanted.ticket {
                (step.deliver)(ticket, value);
            }
        }
    }

    fn settle(
        &mut self,
        step: &mut Step<'_, T>,
        increment: Increment,
        outcome: Outcome,
        at: Instant,
    ) {
        let Increment { key, delta } = increment;
        let mut place = step.table.lock(key.as_bytes());
        let Some(counter) = place.counter() else {
            return;
        };
        let fresh_until = step.table.fresh_until(at);
        let mut refusal = None;
        match outcome {
            Outcome::Applied { value, ttl } => counter.applied(delta, value, ttl, fresh_until),
            Outcome::Refused(Refusal { text, transient }) => {
                let kept = transient && counter.restore(delta);
                if transient {
                    let mut error = Vec::new();
                    encode::error(&mut error, &text);
                    refusal = Some(error);
                }
                if !kept {
                    counter.forget(delta);
                    self.counts.refused += 1;
                    let key = key.clone();
                    self.losses.refuse(Increment { key, delta }, text);
                }
            }
        }
        let cooling = counter.cooling;
        if cooling && refusal.is_none() {
            // Not later than necessary: the key may have a deadline.
            self.seal(&mut place, step.now);
        } else {
            place.list_if_pending();
        }
        let Some(counter) = place.counter() else {
            return;
        };
        let (clean, base) = (counter.is_clean(), counter.value);
        let queue = counter.queue.filter(|_| counter.in_flight == 0);
        if clean && cooling {
            place.set(State::Touched {
                until: fresh_until,
                cool_until: Some(fresh_until),
            });
        }
        drop(place);
        let base = clean.then_some(base);
        let mut work = Vec::new();
        if let Some(queue) = queue {
            let at = (&key, queue);
            // The node can not take increments now: what waits for them does not wait for ever.
            match &refusal {
                Some(error) if cooling => work = self.fail_queue(step, at, error),
                Some(error) => work = self.fail_commands(step, at, error),
                None => {}
            }
            if !(cooling && refusal.is_some()) {
                work.push(Drain { key, queue, base });
            }
        }
        self.drain(step, work);
        if let (Some(error), Some(Hold { forget: true, .. })) = (&refusal, &self.hold) {
            self.fail_hold(step, error);
        }
    }
}

/// Keeps a value until the key's own deadline, counted from before the request was sent, or the
/// end of the lease; without a time to live the key is merely touched. So it is with an error, and
/// with a value whose key is gone by now or a nil whose key is not: changed between the two reads,
/// or of another type, which `MGET` forgives.
fn keep_value(place: &mut Place<'_>, value: &[u8], ttl: Option<Ttl>, at: Instant, lease: Instant) {
    let until = match ttl {
        Some(Ttl::Ms(ms)) => at
            .checked_add(Duration::from_millis(ms))
            .map_or(lease, |deadline| lease.min(deadline)),
        _ => lease,
    };
    match (ttl, reply::text(value)) {
        _ if reply::is_error(value) => {}
        (Some(Ttl::NoKey), None) if reply::is_null(value) => return place.cache(None, until),
        (Some(Ttl::Forever | Ttl::Ms(_)), Some(text)) => return place.cache(Some(text), until),
        _ => {}
    }
    place.set(State::Touched {
        until: lease,
        cool_until: None,
    });
}

/// What the front of the FIFO came to.
enum Done {
    Run(RunReply),
    Get,
    GetMany,
}
