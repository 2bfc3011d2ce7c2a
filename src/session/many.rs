//! `MGET`: what is known here, and the rest from the nodes.

use std::ops::Range;
use std::sync::Arc;

use super::dispatch::{Dispatch, Fate, Flow, SAMPLED};
use super::replies::Ticket;
use super::tables::Tables;
use crate::command::Command;
use crate::fan_out::{self, Gather};
use crate::key::Key;
use crate::node::{Came, Refused};
use crate::resp::{Protocol, Request, encode};
use crate::telemetry::Use;

/// An `MGET` whose first keys were read or asked for. Others have their turn before the next ones.
#[derive(Debug)]
pub(super) struct Begun {
    gather: Arc<Gather>,
    /// How many keys are done.
    done: usize,
    fate: Fate,
}

impl Dispatch<'_> {
    /// `MGET`: each key from memory if it is known here, the others with one command per node, or
    /// one for every [`AT_ONCE`] keys.
    pub(super) fn get_many(&mut self, command: &Command, request: &Request<'_>) -> Flow {
        let count = request.len() - 1;
        let done = self.state.begun.as_ref().map_or(0, |begun| begun.done);
        let is_whole = self.state.executing || self.client.tracks().notes_reads();
        let most = if is_whole { count } else { AT_ONCE };
        let keys = done..count.min(done + most);
        let begun = match self.state.begun.take() {
            Some(begun) => self.go_on(begun, request, keys.clone()),
            None => self.begin(command, request, keys.clone()),
        };
        let begun = match begun {
            Ok(begun) => begun,
            Err(flow) => return flow,
        };
        let done = keys.end;
        self.get_keys(&begun.gather, request, keys);
        if done < count {
            self.state.begun = Some(Begun { done, ..begun });
            return Flow::Again;
        }
        self.fate = begun.fate;
        Flow::Continue
    }

    fn begin(
        &mut self,
        command: &Command,
        request: &Request<'_>,
        keys: Range<usize>,
    ) -> Result<Begun, Flow> {
        if let Some(flow) = self.admit_all(keys.map(|at| request.arg(at + 1))) {
            return Err(flow);
        }
        let place = self.place(command.form);
        Ok(Begun {
            gather: Gather::new(request.len() - 1, place, fan_out::array()),
            done: 0,
            fate: self.fate,
        })
    }

    fn go_on(
        &mut self,
        begun: Begun,
        request: &Request<'_>,
        keys: Range<usize>,
    ) -> Result<Begun, Flow> {
        match self.refusal(request, keys) {
            None => Ok(begun),
            Some(Refused::Full) => {
                self.state.begun = Some(begun);
                Err(Flow::Stall)
            }
            Some(Refused::Failed(text)) => {
                self.fail(&begun.gather, begun.done..request.len() - 1, &text);
                self.fate = begun.fate;
                Err(Flow::Continue)
            }
        }
    }

    /// Why the next keys can not be asked for, or not now.
    fn refusal(&mut self, request: &Request<'_>, keys: Range<usize>) -> Option<Refused> {
        let mut nodes = Vec::new();
        for at in keys {
            let key = request.arg(at + 1);
            if let Some(text) = Self::reserved(key) {
                return Some(Refused::Failed(text.into()));
            }
            let index = self.shared.router.index(key);
            if !nodes.contains(&index) {
                nodes.push(index);
            }
        }
        let waker = self.waker;
        let mut ask = |index| self.lane(index).0.admit(waker).err();
        nodes.into_iter().find_map(&mut ask)
    }

    /// Ends the reply with this error.
    fn fail(&mut self, gather: &Gather, mut keys: Range<usize>, text: &str) {
        let mut frame = Vec::new();
        encode::error(&mut frame, text);
        let came = Came::here(self.now);
        let first = keys.next().and_then(|at| gather.part(at, &frame, came));
        self.woken.extend(first);
        frame.clear();
        encode::null(&mut frame, Protocol::Resp3);
        for at in keys {
            self.woken.extend(gather.part(at, &frame, came));
        }
    }

    fn get_keys(&mut self, gather: &Arc<Gather>, request: &Request<'_>, keys: Range<usize>) {
        let mut missing: Vec<Vec<(Key, Ticket)>> = Vec::new();
        missing.resize_with(self.nodes.len(), Vec::new);
        let mut frame = Vec::new();
        let mut tables = Tables::new(self.nodes);
        for at in keys {
            let key = request.arg(at + 1);
            let index = self.shared.router.index(key);
            let asked = (self.node(index).table().spot(key), key);
            frame.clear();
            if tables.get(index, asked, self.now, &mut frame) {
                self.tally.hits += 1;
                if self.is_sampled_at(at) {
                    self.touch(key, Use::Read(SAMPLED));
                }
                self.woken
                    .extend(gather.part(at, &frame, Came::here(self.now)));
            } else if let Some(missing) = missing.get_mut(index) {
                self.tally.misses += 1;
                self.touch(key, Use::Read(1));
                missing.push((Key::new(key), Ticket::Part(Arc::clone(gather), at)));
            }
        }
        drop(tables);
        for (index, keys) in missing.into_iter().enumerate() {
            if keys.is_empty() {
                continue;
            }
            let now = self.now;
            let (entry, woken) = self.lane(index);
            entry.step(now, woken, |lane, step| lane.get_many(step, keys));
        }
    }
}

/// Keys of one `MGET` that are read in a row: half a millisecond, here and on a node. A million of
/// them kept everybody else waiting for 0.6 s when they were read at once (measured).
const AT_ONCE: usize = 1024;
