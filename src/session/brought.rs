//! Scripts and functions on keys of several nodes, with `transactions.cross_node = "split"`: the
//! keys are brought to one node, the script runs there, and they are taken back. So it is for
//! commands of a transaction (`together.rs`, `behind_locks.rs`).
//!
//! ```text
//!  keys locked ──DUMP──> one atomic step at the node of the first key:     ──RESTORE, DEL──> unlocked
//!  on all nodes          RESTORE of the others, the script, DUMP and DEL     where they changed
//! ```
//!
//! Clients of this Tally see all of it or nothing. A fault before the keys are taken back leaves
//! what the script did at its own node, and the other keys as they were.

use std::sync::Arc;

use memchr::memmem;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::aside::Answer;
use super::dispatch::{Dispatch, Flow};
use super::loan::Around;
use super::locked::{Dumped, Located, Locked, Told, answer, told};
use super::replies::Ticket;
use crate::command::Command;
use crate::counter::Effect;
use crate::node::{Came, Deliver, error_frame};
use crate::resp::{Request, encode, reply};
use crate::telemetry::clock::now;

/// A script on its way.
struct Brought {
    order: Arc<Mutex<()>>,
    /// Keys of the node where it runs, at least one.
    keys: Vec<Located>,
    guests: Guests,
    wire: Vec<u8>,
    /// What stands around the script, if the node has to check what it calls.
    around: Option<Around>,
}

/// Keys that are brought to another node for one transaction there.
pub(super) struct Guests {
    /// Each once, and whether it may be changed there.
    pub(super) keys: Vec<(Located, bool)>,
    /// Most bytes of all their values together.
    pub(super) limit: usize,
}

/// Guests whose values are known.
pub(super) struct Visit<'g> {
    guests: &'g [(Located, bool)],
    before: Vec<Option<Dumped>>,
    begun: tokio::time::Instant,
}

impl Dispatch<'_> {
    /// Runs a script whose keys are of several nodes.
    pub(super) fn bring(
        &mut self,
        command: &Command,
        request: &Request<'_>,
        keys: &[&[u8]],
    ) -> Flow {
        if self.state.aside.is_none() {
            let mut located: Vec<Located> = keys.iter().map(|key| self.locate(key)).collect();
            let refused = located.iter().find_map(|key| self.admit_aside(key.index));
            if let Some(flow) = refused {
                return flow;
            }
            let home = located.first().map_or(0, |key| key.index);
            match command.name {
                "eval" | "eval_ro" => self.shared.scripts.brought(request.arg(1)),
                "evalsha" | "evalsha_ro" => self.remind(home, request.arg(1)),
                _ => {}
            }
            located.sort_by(|one, other| one.key.as_bytes().cmp(other.key.as_bytes()));
            located.dedup_by(|one, other| one.key == other.key);
            let changes = self.may_change(command, request);
            let (keys, others): (Vec<_>, Vec<_>) =
                located.into_iter().partition(|key| key.index == home);
            let brought = Brought {
                order: Arc::clone(&self.shared.crossings),
                keys,
                guests: self.guests(others.into_iter().map(|key| (key, changes))),
                wire: request.wire().to_vec(),
                around: self
                    .checked_user()
                    .map(|user| Around::new(&user, self.node(home))),
            };
            self.begin_aside(
                async move { Answer::of(brought.run().await.unwrap_or_else(|error| error)) },
                None,
            );
        }
        self.pass_aside(command.form_of(request))
    }

    pub(super) fn guests(&self, keys: impl Iterator<Item = (Located, bool)>) -> Guests {
        Guests {
            keys: keys.collect(),
            limit: self.shared.live().server.output_buffer_bytes,
        }
    }
}

impl Brought {
    /// The reply, or the frame of an error.
    async fn run(self) -> Result<Vec<u8>, Vec<u8>> {
        let mut all = self.keys.clone();
        all.extend(self.guests.keys.iter().map(|(key, _)| key.clone()));
        let locked = Locked::new(&self.order, all).await?;
        let visit = self.guests.fetch(&locked).await?;
        let home = self.keys.first().map(|key| &key.node);
        let home = home.ok_or_else(|| error_frame("no key is at home"))?;
        let (sender, answer) = oneshot::channel();
        let ticket = Ticket::Told(sender);
        let (script, tickets) = match self.around {
            Some(around) => (around.wire(&self.wire), around.tickets(ticket)),
            None => (self.wire, vec![ticket]),
        };
        let count = u32::try_from(tickets.len()).unwrap_or(u32::MAX);
        let (wire, commands) = visit.transaction(&script, count);
        let frame = told(locked.send(home, &wire, Effect::Transaction(commands))?).await;
        let replies = visit.end(&locked, count, &frame).await;
        let replies = replies.unwrap_or_else(|error| error);
        // Nobody sleeps on it.
        drop(Ticket::Within(tickets.into()).deliver(&replies, Came::here(now())));
        Ok(told(answer).await)
    }
}

impl Guests {
    /// Asks all nodes at once.
    ///
    /// # Errors
    ///
    /// The frame of an error.
    pub(super) async fn fetch(&self, locked: &Locked) -> Result<Visit<'_>, Vec<u8>> {
        let mut asked = Vec::new();
        for (key, _) in &self.keys {
            let left = key.ask(locked, "PTTL", &[])?;
            asked.push((left, key.ask(locked, "DUMP", &[])?));
        }
        let (mut before, mut bytes) = (Vec::new(), 0);
        for ((left, value), (key, _)) in asked.into_iter().zip(&self.keys) {
            let left = answer(left).await.map_err(|error| unread(key, error))?;
            let value = answer(value).await.map_err(|error| unread(key, error))?;
            bytes += value.len();
            if bytes > self.limit {
                let text = "the keys of other nodes are too large to be brought to one";
                return Err(error_frame(text));
            }
            before.push(Dumped::of(&left, &value));
        }
        Ok(Visit {
            guests: &self.keys,
            before,
            begun: tokio::time::Instant::now(),
        })
    }
}

impl Visit<'_> {
    /// Nobody comes.
    pub(super) fn of_nobody() -> Self {
        Self {
            guests: &[],
            before: Vec::new(),
            begun: tokio::time::Instant::now(),
        }
    }

    /// So many commands as a transaction, and how many that has with the coming and going of the
    /// guests: one for each that comes, then the commands, then two for each that may have been
    /// changed, and one more.
    pub(super) fn transaction(&self, commands: &[u8], count: u32) -> (Vec<u8>, u32) {
        let mut wire = Vec::new();
        let mut all = count;
        encode::request(&mut wire, &[b"MULTI"]);
        for ((guest, _), dumped) in self.guests.iter().zip(&self.before) {
            let key = guest.key.as_bytes();
            match dumped {
                Some(Dumped { left, value }) => {
                    let left = still(*left, self.took()).to_string();
                    let args = [
                        b"RESTORE".as_slice(),
                        key,
                        left.as_bytes(),
                        value,
                        b"REPLACE",
                    ];
                    encode::request(&mut wire, &args);
                }
                None => encode::request(&mut wire, &[b"DEL".as_slice(), key]),
            }
            all += 1;
        }
        wire.extend_from_slice(commands);
        for guest in self.changed() {
            encode::request(&mut wire, &[b"PTTL".as_slice(), guest.key.as_bytes()]);
            encode::request(&mut wire, &[b"DUMP".as_slice(), guest.key.as_bytes()]);
            all += 2;
        }
        if !self.before.is_empty() {
            let mut delete = vec![b"DEL".as_slice()];
            let names = self.guests.iter().map(|(guest, _)| guest.key.as_bytes());
            delete.extend(names);
            encode::request(&mut wire, &delete);
            all += 1;
        }
        encode::request(&mut wire, &[b"EXEC"]);
        (wire, all)
    }

    /// The longest that has passed since the guests' values were known, in milliseconds.
    fn took(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Those that may have been changed.
    fn changed(&self) -> impl Iterator<Item = &Located> {
        let guests = self.guests.iter();
        guests.filter_map(|(guest, changes)| changes.then_some(guest))
    }

    /// Takes the reply to the transaction, and gives the guests back to their nodes where they were
    /// changed. Returns the array of the replies to the commands.
    ///
    /// # Errors
    ///
    /// The frame of an error. What was done at the node stays.
    pub(super) async fn end(
        self,
        locked: &Locked,
        count: u32,
        frame: &[u8],
    ) -> Result<Vec<u8>, Vec<u8>> {
        let Some(elements) = reply::elements(frame) else {
            return Err(frame.to_vec());
        };
        if self.before.is_empty() {
            return Ok(frame.to_vec());
        }
        let elements: Vec<&[u8]> = elements.collect();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let parts = elements.split_at_checked(self.before.len());
        let parts = parts.and_then(|(came, rest)| Some((came, rest.split_at_checked(count)?)));
        let (came, (replies, left)) =
            parts.ok_or_else(|| error_frame("the node gave another reply than was asked for"))?;
        if let Some(refused) = came.iter().find(|element| reply::is_error(element)) {
            // The commands found the key missing.
            return Err(refused.to_vec());
        }
        let took = self.took();
        let mut taken = Vec::new();
        let guests = self.guests.iter().zip(&self.before);
        let changed = guests.filter(|((_, changes), _)| *changes);
        for (((guest, _), before), pair) in changed.zip(left.chunks_exact(2)) {
            if let [left, value] = pair {
                let after = Dumped::of(left, value);
                taken.extend(put_back(locked, guest, before.as_ref(), after, took)?);
            }
        }
        for told in taken {
            answer(told).await?;
        }
        let mut array = Vec::new();
        encode::array(&mut array, replies.len());
        array.extend(replies.concat());
        Ok(array)
    }
}

/// The error of a key that could not be read, which leaves nothing open.
fn unread(key: &Located, error: Vec<u8>) -> Vec<u8> {
    if memmem::find(&error, b"; the command may").is_none() {
        return error;
    }
    error_frame(format!(
        "node {} did not give what is to be brought to another; nothing was executed",
        key.node.name()
    ))
}

/// Gives a key back to its node as it was left, if it was changed. `took` is the longest that it can
/// have been away, in milliseconds.
fn put_back(
    locked: &Locked,
    key: &Located,
    before: Option<&Dumped>,
    after: Option<Dumped>,
    took: u64,
) -> Result<Option<Told>, Vec<u8>> {
    let Some(Dumped { left, value }) = after else {
        return match before {
            None => Ok(None),
            Some(_) => key.ask(locked, "DEL", &[]).map(Some),
        };
    };
    let before = before.map(|before| (has_same_end(before.left, left, took), before));
    let left = match before {
        Some((true, before)) if before.value == value => return Ok(None),
        Some((true, before)) => still(before.left, took),
        _ => left,
    };
    let left = left.to_string();
    let args: &[&[u8]] = &[left.as_bytes(), &value, b"REPLACE"];
    key.ask(locked, "RESTORE", args).map(Some)
}

/// Whether a key still has its deadline. One that was moved by less than the time that passed
/// counts as the same.
fn has_same_end(before: u64, after: u64, took: u64) -> bool {
    match (before, after) {
        (0, 0) => true,
        (0, _) | (_, 0) => false,
        (before, after) => after <= before && before - after <= took.saturating_add(1),
    }
}

/// What is left of a time to live, in milliseconds, when so much of it has passed. 0 is for ever.
fn still(left: u64, took: u64) -> u64 {
    match left {
        0 => 0,
        left => left.saturating_sub(took).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_the_same_while_only_time_passes() {
        for (before, after, expected) in [
            (0, 0, true),
            (0, 5, false),
            (500, 0, false),
            (500, 495, true),
            (500, 505, false),
            (500, 100, false),
        ] {
            assert_eq!(
                has_same_end(before, after, 10),
                expected,
                "{before} {after}"
            );
        }
        assert_eq!([still(0, 10), still(5, 10), still(50, 10)], [0, 1, 40]);
    }
}
