//! Commands on several keys that only read all but one of them, such as `SUNIONSTORE`, when the
//! keys live on several nodes: what is read from other nodes is copied to one, for a moment.
//!
//! ```text
//!  other nodes ──DUMP──> one atomic step: RESTORE of the copies, the command, DEL of the copies ──> reply
//!                        (node of the key that is written; else of the first key)
//! ```
//!
//! The copies are never seen. All keys are locked meanwhile, so clients of this Tally find one order;
//! what others change on the nodes between the two steps is not in what was read.

use std::sync::Arc;

use parking_lot::Mutex;

use super::aside::Answer;
use super::dispatch::{Dispatch, Flow};
use super::locked::{Located, Locked, answer, told};
use super::replies::Ticket;
use crate::command::{self, Command, Copying};
use crate::counter::Effect;
use crate::node::{Node, error_frame};
use crate::resp::{Request, encode, reply};

/// A command and what is to be copied for it.
struct Copies {
    copying: Copying,
    home: Arc<Node<Ticket>>,
    /// Keys of the node where it is executed.
    keys: Vec<Located>,
    /// Keys of other nodes, each once.
    others: Vec<Located>,
    order: Arc<Mutex<()>>,
    /// The command, with the copies' names in place of those keys.
    parts: Vec<Vec<u8>>,
    /// Most bytes of all copies together.
    limit: usize,
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
        self.pass_aside(command.form_of(request))
    }

    fn copies(&self, copying: Copying, command: &Command, request: &Request<'_>) -> Copies {
        let mut positions = Vec::new();
        // It can not fail: the caller has found the keys before.
        _ = command::key_positions(command, request, &mut positions);
        let place = match copying {
            Copying::Read => 0,
            Copying::Store(written) => written,
        };
        let index = |at: &usize| self.shared.router.index(request.arg(*at));
        let home = positions.get(place).map_or(0, index);
        let mut parts: Vec<Vec<u8>> = request.args().map(<[u8]>::to_vec).collect();
        let (mut keys, mut others) = (Vec::new(), Vec::new());
        for at in &positions {
            let key = self.locate(request.arg(*at));
            if key.index == home {
                keys.push(key);
                continue;
            }
            let known = others
                .iter()
                .position(|other: &Located| other.key == key.key);
            let number = known.unwrap_or_else(|| {
                others.push(key);
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
            order: Arc::clone(&self.shared.crossings),
            parts,
            limit: self.shared.live().server.output_buffer_bytes,
        }
    }
}

impl Copies {
    /// The reply, or the frame of an error.
    async fn run(self) -> Result<Vec<u8>, Vec<u8>> {
        let locked = Locked::new(&self.order, [&self.keys[..], &self.others].concat()).await?;
        let copies = self.fetch(&locked).await?;
        let (wire, effect) = match self.copying {
            Copying::Read => self.transaction(&copies),
            Copying::Store(_) => (self.script(&copies), Effect::Barrier),
        };
        let frame = told(locked.send(&self.home, &wire, effect)?).await;
        let Some(elements) = reply::elements(&frame).filter(|_| self.copying == Copying::Read)
        else {
            return Ok(frame);
        };
        // A copy that the node did not take would be read as if there were no such key.
        let elements: Vec<&[u8]> = elements.collect();
        let taken = copies.iter().flatten().count();
        let mut taken = elements.iter().take(taken + 1);
        let refused = taken.find(|element| reply::is_error(element));
        let answer = refused.or_else(|| elements.iter().rev().nth(1));
        Ok(answer.copied().unwrap_or_default().to_vec())
    }

    /// Asks all nodes at once.
    async fn fetch(&self, locked: &Locked) -> Result<Vec<Option<Vec<u8>>>, Vec<u8>> {
        let mut asked = Vec::new();
        for other in &self.others {
            asked.push(other.ask(locked, "DUMP", &[])?);
        }
        let (mut copies, mut bytes) = (Vec::new(), 0);
        for told in asked {
            let frame = answer(told).await?;
            bytes += frame.len();
            if bytes > self.limit {
                return Err(error_frame(
                    "the keys of other nodes are too large to be copied",
                ));
            }
            let value = reply::text(&frame).filter(|_| !reply::is_null(&frame));
            copies.push(value.map(<[u8]>::to_vec));
        }
        Ok(copies)
    }

    /// One transaction. The element of its reply before the last is the command's.
    fn transaction(&self, copies: &[Option<Vec<u8>>]) -> (Vec<u8>, Effect) {
        let mut wire = Vec::new();
        let mut commands = 2;
        encode::request(&mut wire, &[b"MULTI"]);
        for (number, copy) in copies.iter().enumerate() {
            if let Some(value) = copy {
                let name = name(number);
                let restore = [b"RESTORE".as_slice(), &name, b"0", value];
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

    /// One script: nothing is written if a copy is not taken.
    fn script(&self, copies: &[Option<Vec<u8>>]) -> Vec<u8> {
        let count = copies.len().to_string().into_bytes();
        let mut arguments = vec![b"EVAL".to_vec(), STORE.to_vec(), count];
        arguments.extend((0..copies.len()).map(name));
        arguments.extend(copies.iter().map(|copy| copy.clone().unwrap_or_default()));
        arguments.extend(self.parts.iter().cloned());
        let mut wire = Vec::new();
        encode::request(&mut wire, &arguments);
        wire
    }
}

/// Restores `KEYS` from as many values, and calls the command behind them.
const STORE: &[u8] = b"local copies = #KEYS \
    local function drop() for i = 1, copies do redis.call('DEL', KEYS[i]) end end \
    for i = 1, copies do \
        if ARGV[i] ~= '' then \
            local taken = redis.pcall('RESTORE', KEYS[i], 0, ARGV[i]) \
            if taken.err then drop() return taken end \
        end \
    end \
    local reply = redis.pcall(unpack(ARGV, copies + 1)) \
    drop() \
    return reply";

/// Most arguments: Lua unpacks 8,000 (`LUAI_MAXCSTACK` in Redis's `luaconf.h`).
pub(super) const MAX_PARTS: usize = 7_000;

/// The name of a copy on the node where it is made. Clients may not use it.
fn name(number: usize) -> Vec<u8> {
    format!("__tally__:copy:{number}").into_bytes()
}
