//! Commands on several keys that only read all but one of them, such as `SUNIONSTORE`, when the
//! keys live on several nodes: what is read from other nodes is copied to one, for a moment.
//!
//! ```text
//!  other nodes ──DUMP──> one atomic step: RESTORE of the copies, the command, DEL of the copies ──> reply
//!                        (node of the key that is written; else of the first key)
//! ```
//!
//! The copies are never seen. What is read may be as old as the step before, so the whole is not
//! atomic; what is written is.

use std::sync::Arc;

use super::aside::{Answer, on_lane, submitted};
use super::dispatch::{Dispatch, Flow};
use super::locked::{Told, answer};
use super::moves::time_to_live;
use super::replies::Ticket;
use crate::command::{self, Command, Copying};
use crate::counter::Effect;
use crate::key::Key;
use crate::node::{Node, error_frame};
use crate::resp::{Request, encode, reply};

/// A command and what is to be copied for it.
struct Copies {
    copying: Copying,
    home: Arc<Node<Ticket>>,
    /// Keys of the node.
    keys: Vec<Key>,
    /// Keys of others, each once.
    others: Vec<(Arc<Node<Ticket>>, Key)>,
    /// The command, with the names of copies.
    parts: Vec<Vec<u8>>,
    /// Copies end when their keys do.
    with_deadlines: bool,
    /// Most bytes of all copies.
    limit: usize,
}

/// What a node gave of a key: how long it has yet in milliseconds, 0 for ever, and its value.
struct Copy {
    ttl: Vec<u8>,
    /// `None` where there is no such key.
    value: Option<Vec<u8>>,
}

impl Dispatch<'_> {
    /// Executes a command whose keys are of several nodes.
    pub(super) fn with_copies(
        &mut self,
        copying: Copying,
        command: &Command,
        request: &Request<'_>,
    ) -> Flow {
        if self.state.aside.is_none() {
            if self.replies.backlog().outstanding > 0 {
                return Flow::Await;
            }
            let copies = self.copies(copying, command, request);
            self.begin_aside(
                async move { Answer::of(copies.run().await.unwrap_or_else(|error| error)) },
                None,
            );
        }
        let Some(answer) = self.poll_aside() else {
            return Flow::Stall;
        };
        self.pass(&answer.frame, command.form_of(request));
        Flow::Continue
    }

    fn copies(&self, copying: Copying, command: &Command, request: &Request<'_>) -> Copies {
        let mut positions = Vec::new();
        // The caller has found the keys before.
        _ = command::key_positions(command, request, &mut positions);
        let place = match copying {
            Copying::Read => 0,
            Copying::Store(written) => written,
        };
        let index = |at: &usize| self.shared.router.index(request.arg(*at));
        let home = positions.get(place).map_or(0, index);
        let mut parts: Vec<Vec<u8>> = request.args().map(<[u8]>::to_vec).collect();
        let (mut keys, mut others) = (Vec::new(), Vec::<(Arc<Node<Ticket>>, Key)>::new());
        for at in &positions {
            let key = Key::new(request.arg(*at));
            if index(at) == home {
                keys.push(key);
                continue;
            }
            let known = others.iter().position(|(_, other)| *other == key);
            let number = known.unwrap_or_else(|| {
                others.push((Arc::clone(self.node(index(at))), key));
                others.len() - 1
            });
            if let Some(part) = parts.get_mut(*at) {
                *part = name(number);
            }
        }
        Copies {
            copying,
            home: Arc::clone(self.node(home)),
            keys,
            others,
            parts,
            with_deadlines: command.name == "copy",
            limit: self.shared.live().server.output_buffer_bytes,
        }
    }
}

impl Copies {
    /// The reply, or the frame of an error.
    async fn run(self) -> Result<Vec<u8>, Vec<u8>> {
        let copies = self.fetch().await?;
        let (wire, effect) = match self.copying {
            Copying::Read => self.transaction(&copies),
            Copying::Store(_) => (self.script(&copies), Effect::Barrier),
        };
        let keys: Vec<&[u8]> = self.keys.iter().map(Key::as_bytes).collect();
        let frame = on_lane(&self.home, |lane, step, ticket| {
            lane.forward(step, &keys, &wire, effect, ticket);
        });
        let frame = frame.await;
        let Some(elements) = reply::elements(&frame).filter(|_| self.copying == Copying::Read)
        else {
            return Ok(frame);
        };
        // A copy that was not taken would be read as if there were no such key.
        let elements: Vec<&[u8]> = elements.collect();
        let taken = copies.iter().filter(|copy| copy.value.is_some()).count();
        let mut taken = elements.iter().take(taken + 1);
        let refused = taken.find(|element| reply::is_error(element));
        let answer = refused.or_else(|| elements.iter().rev().nth(1));
        Ok(answer.copied().unwrap_or_default().to_vec())
    }

    /// Asks all nodes at once.
    async fn fetch(&self) -> Result<Vec<Copy>, Vec<u8>> {
        let mut asked = Vec::new();
        for (node, key) in &self.others {
            let mut ttl = None;
            if self.with_deadlines {
                ttl = Some(ask(node, "PTTL", key).await?);
            }
            asked.push((ttl, ask(node, "DUMP", key).await?));
        }
        let (mut copies, mut bytes) = (Vec::new(), 0);
        for (ttl, value) in asked {
            let mut left = None;
            if let Some(ttl) = ttl {
                left = reply::integer(&answer(ttl).await?);
            }
            let frame = answer(value).await?;
            bytes += frame.len();
            if bytes > self.limit {
                return Err(error_frame(
                    "the keys of other nodes are too large to be copied",
                ));
            }
            let value = reply::text(&frame).filter(|_| !reply::is_null(&frame));
            copies.push(Copy {
                ttl: time_to_live(left.unwrap_or(-1)).into_bytes(),
                // It ended between the two answers.
                value: value.filter(|_| left != Some(-2)).map(<[u8]>::to_vec),
            });
        }
        Ok(copies)
    }

    /// The last element but one of the reply is the command's.
    fn transaction(&self, copies: &[Copy]) -> (Vec<u8>, Effect) {
        let mut wire = Vec::new();
        let mut commands = 2;
        encode::request(&mut wire, &[b"MULTI"]);
        for (number, copy) in copies.iter().enumerate() {
            if let Some(value) = &copy.value {
                let name = name(number);
                let restore = [b"RESTORE".as_slice(), &name, &copy.ttl, value];
                encode::request(&mut wire, &restore);
                commands += 1;
            }
        }
        encode::request(&mut wire, &self.parts);
        let mut delete = vec![b"DEL".to_vec()];
        delete.extend((0..copies.len()).map(name));
        encode::request(&mut wire, &delete);
        encode::request(&mut wire, &[b"EXEC"]);
        (wire, Effect::Transaction(commands))
    }

    /// Nothing is written if a copy is not taken.
    fn script(&self, copies: &[Copy]) -> Vec<u8> {
        let count = copies.len().to_string().into_bytes();
        let mut arguments = vec![b"EVAL".to_vec(), STORE.to_vec(), count];
        arguments.extend((0..copies.len()).map(name));
        for copy in copies {
            arguments.push(copy.ttl.clone());
            arguments.push(copy.value.clone().unwrap_or_default());
        }
        arguments.extend(self.parts.iter().cloned());
        let mut wire = Vec::new();
        encode::request(&mut wire, &arguments);
        wire
    }
}

/// Restores `KEYS` from pairs of time to live and value, and calls the command behind them.
const STORE: &[u8] = b"local copies = #KEYS \
    local function drop() for i = 1, copies do redis.call('DEL', KEYS[i]) end end \
    for i = 1, copies do \
        if ARGV[2 * i] ~= '' then \
            local taken = redis.pcall('RESTORE', KEYS[i], ARGV[2 * i - 1], ARGV[2 * i]) \
            if taken.err then drop() return taken end \
        end \
    end \
    local reply = redis.pcall(unpack(ARGV, 2 * copies + 1)) \
    drop() \
    return reply";

/// Most arguments: Lua unpacks 8,000 (`LUAI_MAXCSTACK` in Redis's `luaconf.h`).
pub(super) const MAX_PARTS: usize = 7_000;

/// What a copy is called where it is made: a name that clients may not use.
fn name(number: usize) -> Vec<u8> {
    format!("__tally__:copy:{number}").into_bytes()
}

async fn ask(node: &Node<Ticket>, command: &str, key: &Key) -> Result<Told, Vec<u8>> {
    let mut wire = Vec::new();
    encode::request(&mut wire, &[command.as_bytes(), key.as_bytes()]);
    submitted(node, |lane, step, ticket| {
        lane.forward(step, &[key.as_bytes()], &wire, Effect::Barrier, ticket);
    })
    .await
}
