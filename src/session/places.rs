//! Where the reply to a request goes: written here at once, or a place among the session's replies
//! that is filled later.

use super::dispatch::{Dispatch, Fate, Flow};
use super::replies::{Place, Ticket};
use super::timing::Asked;
use crate::flush::RESERVED_PREFIX;
use crate::resp::{Form, encode};
use crate::telemetry::clock::wall_time;

impl Dispatch<'_> {
    /// Drops a reply made here if the client does not want it.
    pub(super) fn mute_from(&mut self, start: usize) {
        if !self.client.finish_command() {
            self.made.truncate(start);
        }
    }

    /// Answers with an error a command that is not allowed now; to `EXEC` Redis says more.
    pub(super) fn refuse(&mut self, text: &[u8]) {
        if self.command.name == "exec" {
            self.refuse_exec(text);
            self.fate = Fate::Rejected;
        } else {
            self.reject(text);
        }
    }

    /// Answers an `EXEC` that is not executed: the transaction and what was watched for it end.
    pub(super) fn refuse_exec(&mut self, text: &[u8]) {
        self.unwatch();
        self.abort(text);
    }

    /// Answers with an error what was refused before anything was done.
    pub(super) fn reject(&mut self, text: impl AsRef<[u8]>) {
        self.error(text);
        self.fate = Fate::Rejected;
    }

    /// Answers with an error.
    pub(super) fn error(&mut self, text: impl AsRef<[u8]>) {
        self.tally.errors += 1;
        self.fate = Fate::Failed;
        let stats = &self.shared.stats;
        stats.errors.note(text.as_ref());
        stats
            .refusals
            .note(text.as_ref(), &self.client.addr, wall_time());
        if self.client.finish_command() {
            encode::error(self.made, text);
        }
    }

    /// A ticket for the next reply.
    pub(super) fn ticket(&mut self, form: Form) -> Ticket {
        Ticket::Reply(self.place(form))
    }

    /// A place for the next reply.
    pub(super) fn place(&mut self, form: Form) -> Place {
        self.push_made();
        let mute = !self.client.finish_command();
        let (asked, protocol) = (self.asked(), self.client.protocol());
        let place = self.replies.reserve(asked, protocol, form, mute);
        self.fate = Fate::Asked(place.number());
        self.note_reads();
        place
    }

    /// A place for confirmations of subscriptions.
    pub(super) fn place_of_confirmation(&mut self) -> Place {
        self.push_made();
        // It is sent either way, and counts as the command that `CLIENT REPLY SKIP` skips.
        _ = self.client.finish_command();
        let (asked, protocol) = (self.asked(), self.client.protocol());
        let place = self.replies.reserve_confirmation(asked, protocol);
        self.fate = Fate::Asked(place.number());
        place
    }

    fn asked(&self) -> Asked {
        Asked {
            command: self.command,
            at: self.now,
        }
    }

    /// Pushes the replies made here so far: whatever gets a place from now on comes behind them.
    pub(super) fn push_made(&mut self) {
        if !self.made.is_empty() {
            self.replies.push(self.made);
            self.made.clear();
        }
    }

    /// Answers with an error if a key is one that Tally keeps on the nodes.
    pub(super) fn refuse_reserved(&mut self, key: &[u8]) -> Option<Flow> {
        self.reject(Self::reserved(key)?);
        Some(Flow::Continue)
    }

    /// The error for a key that Tally keeps on the nodes.
    pub(super) fn reserved(key: &[u8]) -> Option<&'static str> {
        key.starts_with(RESERVED_PREFIX)
            .then_some("ERR keys that begin with __tally__: are Tally's own")
    }
}
