//! `GET` and `MGET`: answered from what is known, joined to one in flight, or sent.

use std::time::Instant;

use super::lane::{Lane, Step};
use super::queue::{Get, GetMany, InFlight, Queued, Submission, Wanted};
use super::rules::Mode;
use super::state::State;
use crate::key::Key;
use crate::resp::encode;

impl<T> Lane<T> {
    /// `GET key` by a client.
    pub fn get(&mut self, step: &mut Step<'_, T>, key: &[u8], ticket: T) {
        if let Some(hold) = &mut self.hold {
            let key = Key::new(key);
            hold.queue.push_back(Submission::Get { key, ticket });
            self.waiting += 1;
            return;
        }
        let mut place = step.table.lock(key);
        let mut frame = Vec::new();
        if place.answer(step.now, &mut frame) {
            drop(place);
            return (step.deliver)(ticket, &frame);
        }
        if !step.table.policy(key).shares()
            && place.state().is_none_or(|state| state.queue().is_none())
        {
            drop(place);
            return self.append_get(step.now, key, ticket);
        }
        if let Some(queue) = self.line(&mut place) {
            return self.enqueue(queue, Queued::get(ticket));
        }
        let barred = self.is_barred(key);
        let keep = match place.state() {
            Some(State::Fetching {
                members: Some(members),
                ..
            }) => match self.fetches.get_mut(*members) {
                Some(members) => {
                    self.joined += 1;
                    return members.push(ticket);
                }
                None => true,
            },
            Some(State::Warm(counter)) if !counter.is_clean() => {
                self.seal(&mut place);
                let queue = self.attach_queue(&mut place);
                return self.enqueue(queue, Queued::get(ticket));
            }
            // The one in flight is an MGET, whose nil may stand for a key of another type, or a GET
            // whose clients were told of a timeout.
            state if barred || matches!(state, Some(State::Fetching { members: None, .. })) => {
                drop(place);
                return self.append_get(step.now, key, ticket);
            }
            state => state.is_some() && step.table.policy(key).caches(),
        };
        let fetch = self.next_id();
        let members = self.fetches.insert(vec![ticket]);
        // Without room in the table the value is not kept, and nobody joins.
        place.try_set(State::Fetching {
            fetch,
            members: Some(members),
        });
        drop(place);
        let get = Get {
            key: Key::new(key),
            fetch,
            members,
            keep,
            value: None,
        };
        encode::request(&mut self.wire, &[b"GET", key]);
        if keep {
            encode::request(&mut self.wire, &[b"PTTL".as_slice(), key]);
        }
        self.push(step.now, InFlight::Get(Box::new(get)));
    }

    /// `MGET` by a client: each key has a ticket of its own, and gets a string, nil, or an error.
    pub fn get_many(&mut self, step: &mut Step<'_, T>, keys: Vec<(Key, T)>) {
        if let Some(hold) = &mut self.hold {
            hold.queue.push_back(Submission::GetMany(keys));
            self.waiting += 1;
            return;
        }
        let fetch = self.next_id();
        let mut wanted = Vec::with_capacity(keys.len());
        for (key, ticket) in keys {
            let mut place = step.table.lock(key.as_bytes());
            let mut frame = Vec::new();
            if place.answer(step.now, &mut frame) {
                drop(place);
                (step.deliver)(ticket, &frame);
                continue;
            }
            if let Some(queue) = self.line(&mut place) {
                self.enqueue(queue, Queued::Get { ticket, many: true });
                continue;
            }
            let keep = match place.state() {
                Some(State::Warm(counter)) if !counter.is_clean() => {
                    self.seal(&mut place);
                    let queue = self.attach_queue(&mut place);
                    self.enqueue(queue, Queued::Get { ticket, many: true });
                    continue;
                }
                // Somebody else's reply will be kept.
                Some(State::Fetching { .. }) => false,
                // Nothing is known of a key that is only forwarded.
                None if step.table.policy(key.as_bytes()).mode == Mode::Through => false,
                None if self.is_barred(key.as_bytes()) => false,
                state => {
                    let again = state.is_some() && step.table.policy(key.as_bytes()).caches();
                    let members = None;
                    place.try_set(State::Fetching { fetch, members }) && again
                }
            };
            drop(place);
            wanted.push(Wanted {
                key,
                ticket: Some(ticket),
                keep,
            });
        }
        self.append_get_many(step.now, fetch, wanted);
    }

    /// One client's GET on its own.
    pub(super) fn append_get(&mut self, now: Instant, key: &[u8], ticket: T) {
        encode::request(&mut self.wire, &[b"GET", key]);
        self.push(now, InFlight::Forwarded(Some(ticket)));
    }

    pub(super) fn append_get_many(&mut self, now: Instant, fetch: u32, wanted: Vec<Wanted<T>>) {
        if wanted.is_empty() {
            return;
        }
        encode::array(&mut self.wire, wanted.len() + 1);
        encode::bulk(&mut self.wire, b"MGET");
        for wanted in &wanted {
            encode::bulk(&mut self.wire, wanted.key.as_bytes());
        }
        let mut keep = 0;
        for wanted in wanted.iter().filter(|wanted| wanted.keep) {
            encode::request(&mut self.wire, &[b"PTTL".as_slice(), wanted.key.as_bytes()]);
            keep += 1;
        }
        let get = GetMany {
            fetch,
            keys: wanted,
            values: None,
            ttls: Vec::new(),
            keep,
        };
        self.push(now, InFlight::GetMany(Box::new(get)));
    }
}
