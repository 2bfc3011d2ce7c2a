//! Commands on keys that are passed on as they are: at once, or parked in the queues of their keys.

use super::lane::{Effect, Lane, Step};
use super::queue::{Parked, Queued, Submission};
use super::state::State;
use super::table::Place;
use crate::key::Key;
use crate::rule::{Rule, holds};

impl<T> Lane<T> {
    /// A command on `keys` (all of this node), sent as it is once its keys are ready for it.
    pub fn forward(
        &mut self,
        step: &mut Step<'_, T>,
        keys: &[&[u8]],
        wire: &[u8],
        effect: Effect,
        ticket: T,
    ) {
        if let Some(hold) = &mut self.hold {
            let keys = keys.iter().map(|key| Key::new(key)).collect();
            let wire = wire.into();
            hold.queue.push_back(Submission::Forward {
                keys,
                wire,
                effect,
                ticket,
            });
            self.waiting += 1;
            return;
        }
        let mut ready = true;
        for key in keys {
            let mut place = step.table.lock(key);
            ready &= self.claim(&mut place, effect);
        }
        if ready {
            let keys = keys.iter().map(|key| Key::new(key));
            self.go(step, keys, (effect, wire), ticket);
        } else {
            self.park(step, keys, wire, effect, ticket);
        }
    }

    /// Prepares one key for a command, and returns whether the command may be appended as far as
    /// this key is concerned. If so, and if the command is a barrier, the key is cold from now on.
    /// If not, the key has something in flight that must be answered first.
    fn claim(&mut self, place: &mut Place<'_>, effect: Effect) -> bool {
        match (place.state(), effect) {
            (Some(state), _) if state.queue().is_some() => false,
            // A look is no exception: a run may not have been sent yet, or be sent again.
            (Some(State::Opening { members, .. }), _) if *members > 1 && holds(Rule::RunFirst) => {
                false
            }
            (None, _) | (Some(_), Effect::Peek) => true,
            (Some(State::Warm(counter)), _) if counter.delays() => {
                self.seal(place);
                false
            }
            (Some(State::Fetching { .. }), _) if !holds(Rule::FetchCut) => true,
            (Some(_), _) => {
                place.clear();
                true
            }
        }
    }

    /// The keys of a forwarded command are ready.
    pub(super) fn go(
        &mut self,
        step: &mut Step<'_, T>,
        keys: impl Iterator<Item = Key>,
        (effect, wire): (Effect, &[u8]),
        ticket: T,
    ) {
        match effect {
            Effect::Peek | Effect::Barrier => self.append(step.now, wire, ticket),
            Effect::Transaction(commands) => {
                self.append_transaction(step.now, commands, wire, ticket);
            }
            Effect::Bar => {
                for key in keys {
                    *self.barred.entry(key).or_default() += 1;
                }
                (step.deliver)(ticket, b"+OK\r\n");
            }
            Effect::Lock => self.locked(step, keys, ticket),
        }
    }

    /// Makes a command wait in the queues of all its keys.
    fn park(
        &mut self,
        step: &mut Step<'_, T>,
        keys: &[&[u8]],
        wire: &[u8],
        effect: Effect,
        ticket: T,
    ) {
        let mut distinct = keys.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        if !holds(Rule::AllKeysAtOnce) {
            distinct.truncate(1);
        }
        let parked = self.parked.insert(Parked {
            wire: wire.into(),
            keys: Vec::new(),
            unready: 0,
            queues: distinct.len(),
            effect,
            ticket: Some(ticket),
        });
        let mut places = Vec::with_capacity(distinct.len());
        for key in distinct {
            let mut place = step.table.lock(key);
            let ready = match place.state() {
                Some(State::Warm(counter)) => {
                    counter.queue().is_none() && (effect == Effect::Peek || counter.is_clean())
                }
                Some(State::Opening { .. } | State::Waiting { .. }) => false,
                _ => true,
            };
            let queue = self.attach_queue(&mut place);
            self.enqueue(queue, Queued::Command(parked));
            places.push((Key::new(key), ready));
        }
        let unready = places.iter().filter(|(_, ready)| !ready).count();
        // What was pending may have become nothing since it was looked at: increments that cancel
        // each other are answered without the lane. Then nobody comes to let the command go.
        let first = places.first().map(|(key, _)| key.clone());
        let free = first.filter(|_| unready == 0);
        if let Some(command) = self.parked.get_mut(parked) {
            command.unready = unready;
            command.keys = places;
        }
        if let Some(key) = free {
            let queue = self.attach_queue(&mut step.table.lock(key.as_bytes()));
            self.drain_key(step, key, queue, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::*;
    use crate::limit::{CANONICAL, Catalogue};
    use crate::resp::{Limits, RequestScanner, encode};

    /// As after an increment and a decrement that cancel each other, both answered by the table
    /// between the look at the key and this.
    #[test]
    fn a_command_that_is_to_wait_for_nothing_goes_at_once() {
        let mut bench = Bench::new();
        bench.step(|lane, step| {
            lane.park(step, &[b"a", b"b"], b"COPY a b\r\n", Effect::Barrier, 1);
            lane.park(step, &[b"a"], &[], Effect::Bar, 2);
            lane.park(step, &[b"b", b"c"], &[], Effect::Lock, 3);
            lane.park(step, &[b"c"], b"DEL c\r\n", Effect::Barrier, 4);
        });
        assert_eq!(bench.wire(), "COPY a b\r\n");
        bench.was_told(&[(2, "+OK\r\n"), (3, "+OK\r\n")]);
        bench.step(|lane, step| lane.unlock(step, 0, &[Key::new(b"b"), Key::new(b"c")]));
        assert_eq!(bench.wire(), "DEL c\r\n");
        bench.reply(b":1\r\n");
        bench.reply(b":1\r\n");
        assert!(bench.lane.is_idle());
    }

    /// A call that is collected is sent later than what is forwarded at once.
    #[test]
    fn a_look_at_a_key_stays_behind_the_call_of_a_limit_script() {
        let mut wire = Vec::new();
        encode::request(&mut wire, &["EVAL", CANONICAL, "1", "k", "10"]);
        let mut scanner = RequestScanner::new();
        scanner.scan(&wire, &Limits::default()).unwrap().unwrap();
        let catalogue = Catalogue::new([]).unwrap();
        let script = catalogue.recognise_body(CANONICAL.as_bytes()).unwrap();
        let call = script.kind().call(&scanner.request(&wire)).unwrap();
        let mut bench = Bench::new();
        bench.step(|lane, step| {
            lane.limit(step, call, &wire, 1);
            lane.forward(step, &[b"k"], b"EXISTS k\r\n", Effect::Peek, 2);
        });
        assert!(!bench.wire().contains("EXISTS"));
        bench.reply(b":1\r\n");
        assert_eq!(bench.wire(), "EXISTS k\r\n");
        bench.reply(b":1\r\n");
        bench.was_told(&[(1, ":1\r\n"), (2, ":1\r\n")]);
    }
}
