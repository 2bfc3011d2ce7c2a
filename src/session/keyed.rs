//! Commands for the one node of their keys.

use super::copies::MAX_PARTS;
use super::dispatch::{Dispatch, Flow};
use super::expiry;
use super::moves::Move;
use super::replies::Ticket;
use super::rounds::Asked;
use super::transaction::CROSS_SLOT;
use crate::command::{self, Class, Command, Copying};
use crate::counter::{Effect, Extent};
use crate::resp::Request;

impl Dispatch<'_> {
    /// A command whose keys must all be of one node.
    pub(super) fn keyed(&mut self, command: &Command, request: &Request<'_>) -> Flow {
        let mut positions = std::mem::take(&mut self.positions);
        let found = command::key_positions(command, request, &mut positions);
        let keys: Vec<&[u8]> = positions.iter().map(|at| request.arg(*at)).collect();
        self.positions = positions;
        if let Err(error) = found {
            return self.without_keys(command, request, &error);
        }
        if let Some(flow) = keys.iter().find_map(|key| self.refuse_reserved(key)) {
            return flow;
        }
        let mut indices = keys.iter().map(|key| self.shared.router.index(key));
        let keyless = || self.shared.router.keyless();
        let index = indices.next().unwrap_or_else(keyless);
        if indices.any(|other| other != index) && !self.passes_values(command, &keys) {
            if let Some(asked) = Asked::of(command, request) {
                return self.ask_in_rounds(asked, request, &keys);
            }
            if let Some(what) = Move::of(command, request) {
                let positions = std::mem::take(&mut self.positions);
                let flow = self.move_over(what, command, request, &positions);
                self.positions = positions;
                return flow;
            }
            if command.name == "sort"
                && let Some(flow) = self.sort_across(request)
            {
                return flow;
            }
            let other = command::other_database(command, request);
            if let Some(copying) = Copying::of(command)
                && other.is_none_or(|other| other == i64::from(self.client.database()))
                && request.len() <= MAX_PARTS
            {
                return self.with_copies(copying, command, request);
            }
            if command.class == Class::Script && self.shared.scripts.calls_nothing(request) {
                if let Some(flow) = self.admit(index) {
                    return flow;
                }
                self.send_keyed(command, request, index, &[]);
                return Flow::Continue;
            }
            if command.class == Class::Script && self.splits() {
                return self.bring(command, request, &keys);
            }
            self.reject(CROSS_SLOT);
            return Flow::Continue;
        }
        let database = i64::from(self.client.database());
        match command::other_database(command, request) {
            Some(other) if other != database => {
                return self.carry_over(command, request, (index, other));
            }
            _ => {}
        }
        let mut patterns = command::key_patterns(command, request);
        if patterns.any(|pattern| !self.shared.router.holds_all(pattern, index))
            && let Some(flow) = self.sort_across(request)
        {
            return flow;
        }
        if command::blocks(command, request) {
            return self.wait_aside(command, request, (index, &keys));
        }
        if let Some(flow) = self.admit(index) {
            return flow;
        }
        self.send_keyed(command, request, index, &keys);
        Flow::Continue
    }

    /// Whether what a script is given as keys are values, but for the first.
    fn passes_values(&self, command: &Command, keys: &[&[u8]]) -> bool {
        let first = keys.first().filter(|_| command.class == Class::Script);
        first.is_some_and(|first| self.shared.router.passes_values(first))
    }

    /// A command whose keys can not be told.
    fn without_keys(
        &mut self,
        command: &Command,
        request: &Request<'_>,
        error: &command::KeysError,
    ) -> Flow {
        if command.name.starts_with("fcall") {
            // Redis looks for the function first, and executes it in no case.
            return self.any_node(command, request);
        }
        self.error(error.to_string());
        Flow::Continue
    }

    /// Gives a command to the lane of its keys' node, which has admitted it.
    fn send_keyed(
        &mut self,
        command: &Command,
        request: &Request<'_>,
        index: usize,
        keys: &[&[u8]],
    ) {
        let ticket = if command.name.starts_with("evalsha") {
            self.call_by_name(index, request.arg(1), command.form_of(request))
        } else {
            self.ticket(command.form_of(request))
        };
        let whole = command::needs_whole_node(command, request);
        self.send_with(command, request, (index, keys), whole, ticket);
    }

    /// The same with a ticket for the answer; `whole`: it may reach any key of the node.
    pub(super) fn send_with(
        &mut self,
        command: &Command,
        request: &Request<'_>,
        (index, keys): (usize, &[&[u8]]),
        whole: bool,
        ticket: Ticket,
    ) {
        let effect = if command.class == Class::Peek {
            Effect::Peek
        } else {
            Effect::Barrier
        };
        let timed = expiry::read(command, request);
        let wrapped = match command.class {
            Class::Script => self.wrapped(index, request, ticket),
            _ => Err(ticket),
        };
        let now = self.now;
        let (entry, woken) = self.lane(index);
        if command.class == Class::Script {
            entry.note_script();
        }
        let ticket = match wrapped {
            Err(ticket) => ticket,
            Ok((wire, tickets)) => {
                let commands = u32::try_from(tickets.len()).unwrap_or(u32::MAX);
                let ticket = Ticket::Within(tickets);
                entry.step(now, woken, |lane, step| {
                    if whole && !step.table.rules().forwards_all() {
                        lane.whole_node(step, &wire, Extent::Transaction(commands), ticket);
                    } else {
                        lane.forward(step, keys, &wire, Effect::Transaction(commands), ticket);
                    }
                });
                return;
            }
        };
        entry.step(now, woken, |lane, step| match (timed, keys) {
            (Some(timed), [key]) => lane.timed(step, key, timed, request.wire(), ticket),
            // Where every key is only forwarded, nothing is known that would have to be looked
            // after.
            _ if whole && !step.table.rules().forwards_all() => {
                lane.whole_node(step, request.wire(), Extent::AnyKey, ticket);
            }
            _ => lane.forward(step, keys, request.wire(), effect, ticket),
        });
    }
}
