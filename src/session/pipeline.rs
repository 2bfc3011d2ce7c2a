//! What a client sent that is not executed yet: where requests begin and end in it.

use super::ahead::Ahead;
use super::dispatch::{Dispatch, Known};
use crate::command::Command;
use crate::resp::{Limits, ProtocolError, Request, RequestScanner};

/// Places in a session's bytes. The session itself holds the bytes.
///
/// Requests that key tables may answer are looked ahead at, see [`super::ahead`]; any other is
/// scanned and executed on its own.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    /// Scans behind the requests in `ahead`.
    scanner: RequestScanner,
    /// The request that `scanner` has found, if it is not executed.
    scanned: Option<Scanned>,
    /// Requests that were looked ahead at; those from `next` on are at the front.
    ahead: Vec<Ahead>,
    next: usize,
    /// Scans again those of them that no table answered.
    again: RequestScanner,
}

/// A complete request.
#[derive(Clone, Copy, Debug)]
struct Scanned {
    length: usize,
    command: Option<&'static Command>,
}

/// What to do with the bytes at the front.
#[derive(Debug)]
pub(super) enum Next<'a> {
    /// Nothing: requests of so many bytes have been answered.
    Answered(usize),
    /// To execute this request; [`Pipeline::executed`] says how long it is.
    Execute(Request<'a>, Known),
    /// To read more.
    Incomplete,
}

impl Pipeline {
    /// The front of `unread`, which begins where the last request that was answered or executed
    /// ended.
    ///
    /// # Errors
    ///
    /// As [`RequestScanner::scan`].
    #[inline]
    pub(super) fn next<'a>(
        &'a mut self,
        dispatch: &mut Dispatch<'_>,
        unread: &'a [u8],
        limits: &Limits,
    ) -> Result<Next<'a>, ProtocolError> {
        if self.next == self.ahead.len() && self.scanned.is_none() && dispatch.looks_ahead() {
            self.look_ahead(dispatch, unread, limits);
        }
        if let Some(ahead @ [first, ..]) = self.ahead.get(self.next..) {
            let answered = dispatch.answer_ahead(ahead, unread);
            if answered.requests > 0 {
                self.next += answered.requests;
                return Ok(Next::Answered(answered.bytes));
            }
            let known = Known::Elsewhere(first.command);
            // It was scanned before: it is complete.
            self.again.scan(unread, limits)?;
            return Ok(Next::Execute(self.again.request(unread), known));
        }
        let scanned = match self.scanned {
            Some(scanned) => scanned,
            None => match self.scanner.scan(unread, limits)? {
                Some(length) => *self.scanned.insert(Scanned {
                    length,
                    command: None,
                }),
                None => return Ok(Next::Incomplete),
            },
        };
        let known = scanned.command.map_or(Known::Nothing, Known::Command);
        Ok(Next::Execute(self.scanner.request(unread), known))
    }

    /// The request given last was executed. Returns its length.
    pub(super) fn executed(&mut self) -> usize {
        if let Some(first) = self.ahead.get(self.next) {
            self.next += 1;
            return first.length;
        }
        self.scanned.take().map_or(0, |scanned| scanned.length)
    }

    /// Nothing more is executed for now. What was looked ahead at will be scanned again: other
    /// things may have changed by then.
    pub(super) fn pause(&mut self) {
        if self.next < self.ahead.len() {
            self.scanner.start_over();
            self.scanned = None;
        }
        self.ahead.clear();
        self.next = 0;
    }

    /// See [`RequestScanner::wanted`].
    pub(super) fn wanted(&self) -> usize {
        self.scanner.wanted()
    }

    /// Scans requests until one comes that no table answers.
    fn look_ahead(&mut self, dispatch: &Dispatch<'_>, mut unread: &[u8], limits: &Limits) {
        self.ahead.clear();
        self.next = 0;
        while self.ahead.len() < MOST_AHEAD {
            // An error will come again, when it is this request's turn.
            let Ok(Some(length)) = self.scanner.scan(unread, limits) else {
                return;
            };
            let request = self.scanner.request(unread);
            // An inline request is not where its bytes are: the scanner has encoded it anew.
            let is_inline = !std::ptr::eq(request.wire().as_ptr(), unread.as_ptr());
            match dispatch.ask(&request, length) {
                Ok(ahead) if !is_inline => self.ahead.push(ahead),
                Ok(Ahead { command, .. }) => {
                    let command = Some(command);
                    self.scanned = Some(Scanned { length, command });
                    return;
                }
                Err(command) => {
                    self.scanned = Some(Scanned { length, command });
                    return;
                }
            }
            unread = unread.get(length..).unwrap_or_default();
        }
    }
}

/// Most requests that are looked ahead at. Tables stay locked for as long as they take to answer
/// these, some two microseconds, and a session keeps up to 80 bytes for each that its client ever
/// sent at once.
const MOST_AHEAD: usize = 64;
