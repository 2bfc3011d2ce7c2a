//! Keys that one command has for itself while it works on keys of other nodes too.
//!
//! ```text
//!   forward(Lock) ──> waits like any command on the keys ──> `+OK`: every key has a queue, Lock stands first in it
//!                                                              │
//!                  within(requests of the owner) ──> replies ──┤
//!                                                              v
//!   unlock ──> what came meanwhile, in its order
//! ```
//!
//! Nothing is pending on a locked key and nothing of it is known. A lost connection unlocks: so the
//! owner gives [`Lane::losses`] as it was when the lock was asked for. Who locks keys of several
//! lanes asks all of them in one step, or two would wait for each other.

use super::drain::Drain;
use super::lane::{Effect, Lane, Step};
use super::queue::Queued;
use crate::key::Key;

impl<T> Lane<T> {
    /// How many connections were lost.
    pub fn losses(&self) -> u32 {
        self.lost
    }

    /// The keys are ready: nothing is in flight on them, or only what the node executes before
    /// anything that is sent from now on.
    pub(super) fn locked(
        &mut self,
        step: &mut Step<'_, T>,
        keys: impl Iterator<Item = Key>,
        ticket: T,
    ) {
        for key in keys {
            let queue = self.attach_queue(&mut step.table.lock(key.as_bytes()));
            if let Some(queue) = self.queues.get_mut(queue) {
                queue.push_front(Queued::Lock);
                self.waiting += 1;
            }
        }
        (step.deliver)(ticket, b"+OK\r\n");
    }

    /// A request on locked keys by their owner, sent past everything that waits. Returns false,
    /// and does nothing, if they are not locked any more.
    pub fn within(
        &mut self,
        step: &Step<'_, T>,
        losses: u32,
        (effect, wire): (Effect, &[u8]),
        ticket: T,
    ) -> bool {
        let is_locked = self.lost == losses;
        match effect {
            _ if !is_locked => {}
            Effect::Transaction(commands) => {
                self.append_transaction(step.now, commands, wire, ticket);
            }
            _ => self.append(step.now, wire, ticket),
        }
        is_locked
    }

    /// Ends the lock of these keys, each named once.
    pub fn unlock(&mut self, step: &mut Step<'_, T>, losses: u32, keys: &[Key]) {
        if self.lost != losses {
            return;
        }
        for key in keys {
            let mut place = step.table.lock(key.as_bytes());
            let queue = place.state().and_then(|state| state.queue());
            drop(place);
            let waiting = queue.and_then(|queue| self.queues.get_mut(queue));
            if let (Some(queue), Some(waiting)) = (queue, waiting)
                && matches!(waiting.front(), Some(Queued::Lock))
            {
                waiting.pop_front();
                self.waiting -= 1;
                let drain = Drain {
                    key: key.clone(),
                    queue,
                    base: None,
                };
                self.drain(step, vec![drain]);
            }
        }
        if self.hold.is_some() {
            self.release_hold(step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::super::lane::Extent;
    use super::*;

    fn lock(bench: &mut Bench, keys: &[&[u8]], ticket: u8) {
        bench.step(|lane, step| lane.forward(step, keys, &[], Effect::Lock, ticket));
    }

    fn unlock(bench: &mut Bench, keys: &[&[u8]]) {
        let keys: Vec<Key> = keys.iter().map(|key| Key::new(key)).collect();
        bench.step(|lane, step| lane.unlock(step, 0, &keys));
    }

    fn forward(bench: &mut Bench, keys: &[&[u8]], word: &str, ticket: u8) {
        let wire = format!("*1\r\n${}\r\n{word}\r\n", word.len());
        bench.step(|lane, step| {
            lane.forward(step, keys, wire.as_bytes(), Effect::Barrier, ticket);
        });
    }

    /// The words of the bytes to be sent.
    fn sent(bench: &mut Bench) -> Vec<String> {
        let wire = bench.wire();
        let words = wire
            .split("\r\n")
            .filter(|line| !line.starts_with(['*', '$']));
        words
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn what_comes_for_a_locked_key_waits_in_its_order_and_other_keys_do_not() {
        let mut bench = Bench::new();
        lock(&mut bench, &[b"a"], 1);
        bench.was_told(&[(1, "+OK\r\n")]);
        bench.step(|lane, step| lane.increment(step, b"a", 1, 2));
        forward(&mut bench, &[b"a", b"b"], "BOTH", 3);
        bench.step(|lane, step| lane.get(step, b"a", 4));
        forward(&mut bench, &[b"c"], "OTHER", 5);
        bench.step(|lane, step| {
            assert!(lane.within(step, 0, (Effect::Barrier, b"*1\r\n$5\r\nOWNER\r\n"), 6));
        });
        assert_eq!(sent(&mut bench), ["OTHER", "OWNER"]);
        unlock(&mut bench, &[b"a"]);
        assert_eq!(sent(&mut bench), ["INCRBY", "a", "1"]);
        bench.reply(b"+OK\r\n");
        bench.reply(b"+OK\r\n");
        bench.reply(b":1\r\n");
        assert_eq!(sent(&mut bench), ["BOTH", "GET", "a"]);
    }

    #[test]
    fn two_locks_follow_each_other() {
        let mut bench = Bench::new();
        lock(&mut bench, &[b"a", b"b"], 1);
        lock(&mut bench, &[b"b", b"c"], 2);
        forward(&mut bench, &[b"b"], "LATER", 3);
        bench.was_told(&[(1, "+OK\r\n")]);
        unlock(&mut bench, &[b"a", b"b"]);
        bench.was_told(&[(2, "+OK\r\n")]);
        assert!(sent(&mut bench).is_empty());
        unlock(&mut bench, &[b"b", b"c"]);
        assert_eq!(sent(&mut bench), ["LATER"]);
        bench.reply(b"+OK\r\n");
        assert!(bench.lane.is_idle());
    }

    #[test]
    fn a_lock_waits_for_what_is_in_flight_and_a_command_on_the_node_for_the_lock() {
        let mut bench = Bench::new();
        bench.step(|lane, step| lane.increment(step, b"a", 1, 1));
        bench.step(|lane, step| lane.increment(step, b"a", 2, 2));
        assert_eq!(sent(&mut bench), ["INCRBY", "a", "1"]);
        lock(&mut bench, &[b"a"], 3);
        bench.step(|lane, step| {
            lane.whole_node(step, b"*1\r\n$5\r\nWHOLE\r\n", Extent::AnyKey, 4);
        });
        bench.reply(b":1\r\n");
        // The second one goes before it, and so may what it leaves pending.
        while !bench.told.iter().any(|(ticket, _)| *ticket == 3) {
            assert!(!sent(&mut bench).contains(&"WHOLE".to_owned()));
            bench.reply(b":3\r\n");
        }
        assert!(sent(&mut bench).is_empty());
        unlock(&mut bench, &[b"a"]);
        assert_eq!(sent(&mut bench), ["WHOLE"]);
    }

    #[test]
    fn a_lost_connection_unlocks() {
        let mut bench = Bench::new();
        lock(&mut bench, &[b"a"], 1);
        bench.step(|lane, step| lane.increment(step, b"a", 1, 2));
        bench.step(|lane, step| lane.disconnected(step, b"-unknown\r\n", b"-unsent\r\n"));
        bench.was_told(&[(1, "+OK\r\n"), (2, "-unsent\r\n")]);
        bench.step(|lane, step| assert!(!lane.within(step, 0, (Effect::Barrier, b"x"), 3)));
        unlock(&mut bench, &[b"a"]);
        bench.step(|lane, step| lane.increment(step, b"a", 1, 4));
        assert_eq!(sent(&mut bench), ["INCRBY", "a", "1"]);
    }
}
