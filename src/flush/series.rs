//! Numbered batches of one process, node and database, until each is settled.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::answer::{Answer, Refusal, Status};
use super::applier::{Applier, MARKER_MS, ScriptCall};
use super::kept::History;
use super::verdict::{Cause, Forgotten, Settled, Verdict};
use super::{Call, Certainty, Increment, Ledger, MAX_IN_FLIGHT, RESERVED_PREFIX};
use crate::key::Key;
use crate::resp::encode;
use crate::rule::{Rule, holds};

/// A sealed set of increments, each key at most once. It never changes.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct Batch {
    number: u64,
    increments: Vec<Increment>,
    /// Sent, and not answered on this connection.
    in_flight: bool,
    /// A connection was lost while the batch was unanswered on it: it may have been applied.
    lost: bool,
}

/// The batches of one process, node and database, in order.
///
/// Invariant: `batches` holds consecutive numbers, the next of which is `next`; all lower numbers
/// are settled.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct Series {
    marker: Vec<u8>,
    epoch: u64,
    /// Number of the next batch to be sealed.
    next: u64,
    batches: VecDeque<Batch>,
    /// Sendings that have not been answered.
    unanswered: usize,
    /// The batches settled lately. The last of them is the one before the first of `batches`.
    kept: History,
    /// A batch was not applied: nothing new is sent until all are sent again, in order.
    stalled: Option<Stall>,
    /// Whether the series is this process's own: nothing is sent before it is.
    owned: bool,
    /// The marker's number when it became so.
    taken_at: u64,
    /// Up to this number batches may be missing that were never sent.
    gaps_to: u64,
    /// Another process goes on with the series.
    fenced: bool,
    /// How the node applies batches, if it can.
    applier: Option<Applier>,
    /// Calls that a node without scripts is still to be given, in order: batch (0 for the takeover)
    /// and certainty.
    calls: VecDeque<(u64, Certainty)>,
}

/// Why batches have to be sent again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Stall {
    /// The node can not take writes now: wait for the next flush.
    wait: bool,
    /// The node has forgotten the script.
    with_body: bool,
    /// The node has forgotten batches that it had acknowledged.
    resync: bool,
}

impl Series {
    /// Name of the key on the node that holds the number of the last batch applied.
    pub fn marker(&self) -> &[u8] {
        &self.marker
    }

    /// Whether the node can be sent batches.
    pub fn is_ready(&self) -> bool {
        self.applier.is_some()
    }

    /// What is in the batches that are not settled.
    pub fn increments(&self) -> impl Iterator<Item = &Increment> {
        self.batches.iter().flat_map(|batch| &batch.increments)
    }

    /// Keys of the batches that are not settled.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.increments().map(|increment| &increment.key)
    }

    /// Number of the last batch that was sealed; 0 when none was.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// All batches up to this number are settled.
    pub fn settled(&self) -> u64 {
        let first = self.batches.front().map_or(self.next, |batch| batch.number);
        first - 1
    }

    /// A series that nobody has used. `instance` names this process among all that share the
    /// node, `database` is a number of its own there; `epoch` is higher than that of any process
    /// before it with the same name.
    pub fn new(instance: &str, database: u32, epoch: u64) -> Self {
        let name = format!("marker:{instance}:{database}");
        let marker = [RESERVED_PREFIX, name.as_bytes()].concat();
        Self {
            marker,
            epoch,
            next: 1,
            batches: VecDeque::new(),
            unanswered: 0,
            kept: History::default(),
            stalled: None,
            owned: true,
            taken_at: 0,
            gaps_to: 0,
            fenced: false,
            applier: None,
            calls: VecDeque::new(),
        }
    }

    /// The same, unused so far, to go on where a process that is gone ended: `batches`, by their
    /// numbers, were sealed and may have been applied. Before anything else is sent the series is
    /// taken over, with an epoch at least as high as its own. `gaps` says that some batches may be
    /// missing which were sealed and never sent; the node has not lost these.
    #[must_use]
    pub fn resuming(self, batches: BTreeMap<u64, Vec<Increment>>, gaps: bool) -> Self {
        let last = batches.last_key_value().map_or(0, |(number, _)| *number);
        let batch = |(number, increments)| Batch {
            number,
            increments,
            in_flight: false,
            lost: true,
        };
        Self {
            next: last + 1,
            gaps_to: if gaps { last } else { 0 },
            batches: batches.into_iter().map(batch).collect(),
            stalled: Some(Stall::default()),
            owned: false,
            ..self
        }
    }

    /// The number of the last batch that had been applied when the series was taken over.
    pub fn taken_at(&self) -> u64 {
        self.taken_at
    }

    /// Whether another process goes on with the series: nothing more can be applied by this one.
    pub fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// Whether nothing more has to be found out about the processes before this one.
    pub fn is_owned(&self) -> bool {
        self.owned
    }

    /// How the node of a new connection applies batches; `None` when nothing can be sent to it.
    pub fn set_applier(&mut self, applier: Option<Applier>) {
        self.applier = applier;
    }

    /// Whether batches are given to the node by [`Series::next_call`], and not in the bytes of
    /// [`Series::send`].
    pub fn makes_calls(&self) -> bool {
        matches!(self.applier, Some(Applier::Transaction))
    }

    /// Whether [`Series::next_call`] has one.
    pub fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// The next call for a node that takes no scripts. [`Series::on_reply`] has to take its answer
    /// before the next one begins: else what is read of the keys might hold more than the answer
    /// settles.
    pub fn next_call(&mut self) -> Option<Call> {
        while let Some((of, certainty)) = self.calls.pop_front() {
            let batch = self.batches.iter().find(|batch| batch.number == of);
            let increments = batch.map(|batch| batch.increments.clone());
            if increments.is_none() && of != 0 {
                // Settled, or given up, by the answer to an earlier call.
                self.unanswered = self.unanswered.saturating_sub(1);
                continue;
            }
            let number = if of == 0 { self.next - 1 } else { of };
            let increments = increments.unwrap_or_default();
            let number = (self.epoch, number);
            return Some(Call::new(
                self.marker.clone(),
                number,
                certainty,
                increments,
            ));
        }
        None
    }

    /// Whether a call that is not answered is on its way or to be made.
    pub fn is_calling(&self) -> bool {
        self.makes_calls() && self.unanswered > 0
    }

    /// Whether another batch may be sealed and sent now.
    pub fn has_room(&self) -> bool {
        self.is_ready()
            && self.owned
            && self.batches.len() < MAX_IN_FLIGHT
            && self.stalled.is_none()
    }

    /// Whether every batch is settled.
    pub fn is_settled(&self) -> bool {
        self.batches.is_empty()
    }

    /// Batches that are not settled.
    pub fn unsettled(&self) -> usize {
        self.batches.len()
    }

    /// How many of these were unanswered when a connection was lost: they may have been applied.
    pub fn unanswered(&self) -> usize {
        self.batches.iter().filter(|batch| batch.lost).count()
    }

    /// Seals the next batch and appends its call, unless [`Series::makes_calls`];
    /// [`Series::on_reply`] takes the answer. The caller has asked [`Series::has_room`]. Returns the
    /// batch's number.
    pub fn send(&mut self, increments: Vec<Increment>, out: &mut Vec<u8>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.batches.push_back(Batch {
            number,
            increments,
            in_flight: false,
            lost: false,
        });
        self.encode(self.batches.len() - 1, Stall::default(), out);
        number
    }

    /// Writes into `ledger` which batch the increments are in; to be called before its bytes are
    /// sent. Returns the number of the note, see [`Ledger::seal`].
    pub fn keep(&self, number: u64, ledger: Option<Ledger>) -> u64 {
        let batch = self.batches.iter().find(|batch| batch.number == number);
        match (ledger, batch) {
            (Some(ledger), Some(batch)) => ledger.seal(number, &batch.increments),
            _ => 0,
        }
    }

    /// Whether [`Series::send_again`] has something to send; `flushing` says that it is the time of
    /// a flush.
    pub fn wants_again(&self, flushing: bool) -> bool {
        self.is_ready()
            && self.unanswered == 0
            && self.stalled.is_some_and(|stall| flushing || !stall.wait)
    }

    /// Appends all batches that are not settled, in order; returns their numbers. 0 stands for the
    /// call that takes the series over, which goes alone.
    pub fn send_again(&mut self, out: &mut Vec<u8>) -> Vec<u64> {
        let stall = self.stalled.take().unwrap_or_default();
        if !self.owned {
            self.encode_takeover(stall, out);
            return vec![0];
        }
        for index in 0..self.batches.len() {
            self.encode(index, stall, out);
        }
        self.batches.iter().map(|batch| batch.number).collect()
    }

    /// The connection is gone: what was unanswered on it may have been applied. On the next one
    /// everything is sent again.
    pub fn disconnected(&mut self) {
        self.unanswered = 0;
        self.calls.clear();
        for batch in &mut self.batches {
            batch.lost |= std::mem::take(&mut batch.in_flight);
        }
        if !holds(Rule::SendAgain) {
            self.batches.clear();
        }
        let again = !self.owned || !self.batches.is_empty();
        self.stalled = again.then(Stall::default);
    }

    /// A request that sets the marker, or only makes a missing one, with `unless_there`. Sent on a
    /// new connection when nothing is unsettled, it makes a missing marker a sign of loss.
    pub fn encode_marker(&self, unless_there: bool, out: &mut Vec<u8>) {
        let value = format!("{} {}", self.epoch, self.next - 1);
        let mut request: Vec<&[u8]> =
            vec![b"SET", &self.marker, value.as_bytes(), b"PX", MARKER_MS];
        if unless_there {
            request.push(b"NX");
        }
        encode::request(out, &request);
    }

    /// Takes the answer to batch `number`, which may have been sent several times.
    pub fn on_reply(&mut self, number: u64, frame: &[u8], now: Instant) -> Verdict {
        self.unanswered = self.unanswered.saturating_sub(1);
        if let Some(batch) = self.batches.iter_mut().find(|batch| batch.number == number) {
            batch.in_flight = false;
        }
        let Some(answer) = Answer::read(frame) else {
            return self.refused(frame);
        };
        match answer.status {
            Status::Applied | Status::Done => Verdict::Settled(self.settle(number, &answer, now)),
            Status::Fenced => {
                self.fenced = true;
                let all = self
                    .batches
                    .drain(..)
                    .flat_map(|batch| batch.increments)
                    .collect();
                Verdict::Doubt(all)
            }
            Status::Taken => self.taken(&answer, now),
            Status::Missing if !self.owned => {
                // The batches are sent all the same, to be found in doubt one by one.
                self.owned = true;
                self.stall(Stall::default());
                Verdict::Again(None)
            }
            // Settled by an earlier answer.
            _ if !self.batches.iter().any(|batch| batch.number == number) => Verdict::Again(None),
            Status::Missing => self.missing(number),
            Status::Gap => {
                // Lower numbers are on their way, unless the node has forgotten what it had.
                if answer.number < self.settled() {
                    // The same answer comes to each batch in flight.
                    let lost = self.settled() - answer.number;
                    self.kept.clear();
                    let told = self.stalled.is_some_and(|stall| stall.resync);
                    let told = told || number <= self.gaps_to;
                    self.stall(Stall {
                        resync: true,
                        ..Stall::default()
                    });
                    return Verdict::Forgotten(if told { 0 } else { lost });
                }
                self.stall(Stall::default());
                Verdict::Again(None)
            }
        }
    }

    fn taken(&mut self, answer: &Answer<'_>, now: Instant) -> Verdict {
        self.owned = true;
        self.taken_at = answer.number;
        self.epoch = answer.epoch.unwrap_or(self.epoch);
        let settled = self.settle(0, answer, now);
        self.next = self.next.max(answer.number + 1);
        if !self.batches.is_empty() {
            self.stall(Stall::default());
        }
        Verdict::Settled(settled)
    }

    /// Takes the value that the marker had when the connection began. If the node has forgotten
    /// batches that it had acknowledged, those that are kept become unsettled again.
    pub fn on_marker(&mut self, marker: &[u8], now: Instant) -> Option<Forgotten> {
        let text = std::str::from_utf8(marker).ok()?;
        let number: u64 = text.split(' ').nth(1)?.parse().ok()?;
        if !self.owned || number >= self.settled() {
            return None;
        }
        let mut again = Vec::new();
        for kept in self.kept.take_above(number, now) {
            again.extend(kept.increments.iter().cloned());
            self.batches.push_front(Batch {
                number: kept.number,
                increments: kept.increments,
                in_flight: false,
                lost: true,
            });
        }
        let lost = self.settled() - number;
        if self.batches.is_empty() {
            // The next batch finds the gap.
            return Some(Forgotten { again, lost: 0 });
        }
        self.stall(Stall {
            resync: lost > 0,
            ..Stall::default()
        });
        Some(Forgotten { again, lost })
    }

    /// The keys are removed on purpose: nothing settled is ever sent again.
    pub fn wiped(&mut self) {
        self.kept.clear();
    }

    fn refused(&mut self, frame: &[u8]) -> Verdict {
        let refusal = Refusal::from_reply(frame);
        let with_body = refusal.text.starts_with("NOSCRIPT");
        // The script gives no error but for the node's state. Should there be another, the batch is
        // tried again at the next flush all the same, as its increments are acknowledged.
        self.stall(Stall {
            wait: !with_body,
            with_body,
            resync: false,
        });
        Verdict::Again((!with_body).then_some(refusal))
    }

    fn missing(&mut self, number: u64) -> Verdict {
        let Some(index) = self.batches.iter().position(|batch| batch.number == number) else {
            return Verdict::Again(None);
        };
        if !self.batches.iter().take(index + 1).any(|batch| batch.lost) {
            // Every copy of it that was sent has been answered, and none applied it.
            self.stall(Stall::default());
            return Verdict::Again(None);
        }
        let given_up = self
            .batches
            .drain(..=index)
            .flat_map(|batch| batch.increments)
            .collect();
        if !self.batches.is_empty() {
            self.stall(Stall::default());
        }
        Verdict::Doubt(given_up)
    }

    fn settle(&mut self, number: u64, answer: &Answer<'_>, now: Instant) -> Settled {
        let mut settled = Settled {
            increments: Vec::new(),
            readings: Vec::new(),
            time_ms: answer.time_ms,
        };
        let last = if holds(Rule::SettleUpTo) {
            answer.number
        } else {
            number
        };
        while self
            .batches
            .front()
            .is_some_and(|batch| batch.number <= last)
        {
            let Some(batch) = self.batches.pop_front() else {
                break;
            };
            let mut causes = vec![None; batch.increments.len()];
            for (index, kind) in answer.exceptions(batch.number) {
                if let Some(cause) = causes.get_mut(index) {
                    *cause = Some(Cause::of(kind));
                }
            }
            if batch.number == number {
                let keys = batch
                    .increments
                    .iter()
                    .map(|increment| increment.key.clone());
                settled.readings = keys.zip(answer.readings.iter().copied()).collect();
            }
            let usual = batch.increments.iter().zip(&causes);
            let usual = usual.filter(|(_, cause)| cause.is_none());
            let slotless = |(increment, _): (&Increment, _)| Increment {
                slot: None,
                ..increment.clone()
            };
            self.kept
                .push(batch.number, usual.map(slotless).collect(), now);
            settled
                .increments
                .extend(batch.increments.into_iter().zip(causes));
        }
        settled
    }

    fn stall(&mut self, stall: Stall) {
        let before = self.stalled.unwrap_or_default();
        self.stalled = Some(Stall {
            wait: stall.wait || before.wait,
            with_body: stall.with_body || before.with_body,
            resync: stall.resync || before.resync,
        });
    }

    /// Appends the call that takes the series over, or notes it for [`Series::next_call`].
    fn encode_takeover(&mut self, stall: Stall, out: &mut Vec<u8>) {
        let certainty = if self.batches.is_empty() {
            Certainty::Claim
        } else {
            Certainty::Takeover
        };
        self.unanswered += 1;
        let Some(script) = self
            .applier
            .as_ref()
            .and_then(|by| by.script(stall.with_body))
        else {
            self.calls.push_back((0, certainty));
            return;
        };
        let call = ScriptCall {
            marker: &self.marker,
            epoch: self.epoch,
            number: self.next - 1,
            certainty,
            increments: &[],
            asks_all: false,
        };
        call.append(script, out);
    }

    /// Appends the call of the batch at `index`, or notes it for [`Series::next_call`].
    fn encode(&mut self, index: usize, stall: Stall, out: &mut Vec<u8>) {
        let Some(batch) = self.batches.get_mut(index) else {
            return;
        };
        batch.in_flight = true;
        let certainty = match index {
            0 if stall.resync => Certainty::Resync,
            0 if !batch.lost => Certainty::First,
            _ => Certainty::Again,
        };
        self.unanswered += 1;
        let with_body = stall.with_body && index == 0;
        let Some(script) = self.applier.as_ref().and_then(|by| by.script(with_body)) else {
            self.calls.push_back((batch.number, certainty));
            return;
        };
        let call = ScriptCall {
            marker: &self.marker,
            epoch: self.epoch,
            number: batch.number,
            certainty,
            increments: &batch.increments,
            // On a connection that it was not sealed for, nobody has told of changes yet.
            asks_all: batch.lost,
        };
        call.append(script, out);
    }
}
