//! Scripts and functions on keys of several nodes, with `transactions.cross_node = "split"`: the
//! keys are brought to one node, the script runs there, and they are taken back.
//!
//! ```text
//!  keys locked ──DUMP──> one atomic step at the node of the first key:     ──RESTORE, DEL──> unlocked
//!  on all nodes          RESTORE of the others, the script, DUMP and DEL     where they changed
//! ```
//!
//! Clients of this Tally see all of it or nothing. A fault before the keys are taken back leaves
//! what the script did at its own node, and the other keys as they were.

use std::sync::Arc;

use parking_lot::Mutex;

use super::aside::Answer;
use super::dispatch::{Dispatch, Flow};
use super::locked::{Dumped, Located, Locked, Told, answer, told};
use crate::command::Command;
use crate::counter::Effect;
use crate::node::error_frame;
use crate::resp::{Request, encode, reply};

/// A script on its way.
struct Brought {
    order: Arc<Mutex<()>>,
    /// Keys of the node where it runs, at least one.
    keys: Vec<Located>,
    /// Those of other nodes, each once.
    others: Vec<Located>,
    wire: Vec<u8>,
    /// Most bytes of the values of all other keys together.
    limit: usize,
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
            let (keys, others) = located.into_iter().partition(|key| key.index == home);
            let brought = Brought {
                order: Arc::clone(&self.shared.crossings),
                keys,
                others,
                wire: request.wire().to_vec(),
                limit: self.shared.live().server.output_buffer_bytes,
            };
            self.begin_aside(
                async move { Answer::of(brought.run().await.unwrap_or_else(|error| error)) },
                None,
            );
        }
        self.pass_aside(command.form_of(request))
    }
}

impl Brought {
    /// The reply, or the frame of an error.
    async fn run(self) -> Result<Vec<u8>, Vec<u8>> {
        let all = [&self.keys[..], &self.others].concat();
        let locked = Locked::new(&self.order, all).await?;
        let before = self.fetch(&locked).await?;
        let home = self.keys.first().map(|key| &key.node);
        let home = home.ok_or_else(|| error_frame("no key is at home"))?;
        let (wire, effect) = self.transaction(&before);
        let begun = tokio::time::Instant::now();
        let frame = told(locked.send(home, &wire, effect)?).await;
        let Some(elements) = reply::elements(&frame) else {
            return Err(frame);
        };
        let elements: Vec<&[u8]> = elements.collect();
        let (put, rest) = elements.split_at_checked(before.len()).unwrap_or_default();
        if let Some(refused) = put.iter().find(|element| reply::is_error(element)) {
            // The script found the key missing. What it did stays at its node.
            return Err(refused.to_vec());
        }
        let [answer, rest @ ..] = rest else {
            return Err(error_frame(
                "the node gave another reply than was asked for",
            ));
        };
        let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut taken = Vec::new();
        let pairs = rest.chunks_exact(2).zip(&before).zip(&self.others);
        for ((pair, before), other) in pairs {
            if let [left, value] = pair {
                let after = Dumped::of(left, value);
                taken.extend(put_back(&locked, other, before.as_ref(), after, took)?);
            }
        }
        for told in taken {
            self::answer(told).await?;
        }
        Ok(answer.to_vec())
    }

    /// Asks all nodes at once.
    async fn fetch(&self, locked: &Locked) -> Result<Vec<Option<Dumped>>, Vec<u8>> {
        let mut asked = Vec::new();
        for other in &self.others {
            let left = other.ask(locked, "PTTL", &[])?;
            asked.push((left, other.ask(locked, "DUMP", &[])?));
        }
        let (mut found, mut bytes) = (Vec::new(), 0);
        for (left, value) in asked {
            let (left, value) = (answer(left).await?, answer(value).await?);
            bytes += value.len();
            if bytes > self.limit {
                let text = "the keys of other nodes are too large to be brought to one";
                return Err(error_frame(text));
            }
            found.push(Dumped::of(&left, &value));
        }
        Ok(found)
    }

    /// One transaction. The elements of its reply are one for each other key, the script's, then
    /// `PTTL` and `DUMP` of each other key.
    fn transaction(&self, before: &[Option<Dumped>]) -> (Vec<u8>, Effect) {
        let mut wire = Vec::new();
        let mut commands = 2;
        encode::request(&mut wire, &[b"MULTI"]);
        for (other, dumped) in self.others.iter().zip(before) {
            let key = other.key.as_bytes();
            match dumped {
                Some(Dumped { left, value }) => {
                    let left = left.to_string();
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
            commands += 1;
        }
        wire.extend_from_slice(&self.wire);
        for other in &self.others {
            encode::request(&mut wire, &[b"PTTL".as_slice(), other.key.as_bytes()]);
            encode::request(&mut wire, &[b"DUMP".as_slice(), other.key.as_bytes()]);
            commands += 2;
        }
        let mut delete = vec![b"DEL".as_slice()];
        delete.extend(self.others.iter().map(|other| other.key.as_bytes()));
        encode::request(&mut wire, &delete);
        encode::request(&mut wire, &[b"EXEC"]);
        (wire, Effect::Transaction(commands))
    }
}

/// Gives a key back to its node as the script left it, if the script changed it. `took` is the
/// longest that the script's step can have taken, in milliseconds.
fn put_back(
    locked: &Locked,
    key: &Located,
    before: Option<&Dumped>,
    after: Option<Dumped>,
    took: u64,
) -> Result<Option<Told>, Vec<u8>> {
    match (before, after) {
        (None, None) => Ok(None),
        (Some(_), None) => key.ask(locked, "DEL", &[]).map(Some),
        (Some(before), Some(after)) if is_same(before, &after, took) => Ok(None),
        (_, Some(Dumped { left, value })) => {
            let left = left.to_string();
            let args: &[&[u8]] = &[left.as_bytes(), &value, b"REPLACE"];
            key.ask(locked, "RESTORE", args).map(Some)
        }
    }
}

/// Whether a key still has its value and its deadline. A deadline that was moved by less than the
/// time that passed counts as the same.
fn is_same(before: &Dumped, after: &Dumped, took: u64) -> bool {
    let same_end = match (before.left, after.left) {
        (0, 0) => true,
        (0, _) | (_, 0) => false,
        (before, after) => after <= before && before - after <= took.saturating_add(1),
    };
    same_end && before.value == after.value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_while_only_time_passes() {
        let dumped = |left, value: &[u8]| Dumped {
            left,
            value: value.to_vec(),
        };
        let check = |before, after, expected| {
            assert_eq!(
                is_same(&before, &after, 10),
                expected,
                "{before:?} {after:?}"
            );
        };
        check(dumped(0, b"a"), dumped(0, b"a"), true);
        check(dumped(0, b"a"), dumped(0, b"b"), false);
        check(dumped(0, b"a"), dumped(5, b"a"), false);
        check(dumped(500, b"a"), dumped(0, b"a"), false);
        check(dumped(500, b"a"), dumped(495, b"a"), true);
        check(dumped(500, b"a"), dumped(505, b"a"), false);
        check(dumped(500, b"a"), dumped(100, b"a"), false);
    }
}
