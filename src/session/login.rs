//! `AUTH` and `HELLO` with passwords that take long to check: argon2, on a thread that serves
//! nobody.
//!
//! The session waits as in a command aside. A right password is remembered for its user as a fast
//! hash with a key of this run's own, so that only the first connection with it, and those with
//! wrong ones, cost the time. Where some user's password is slow, every refusal of a named user is:
//! the time does not tell which names there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::aside::Answer;
use super::dispatch::{Dispatch, Flow};
use super::local::credentials;
use super::users::SlowCheck;
use super::{Denial, Refused};
use crate::command::Command;
use crate::node::error_frame;
use crate::resp::{Form, Request, encode, reply};

/// Where passwords are checked, a few at a time.
#[derive(Debug)]
pub(super) struct Logins {
    turns: Semaphore,
    waiting: AtomicUsize,
}

/// A login that waits for its turn or has it, counted until it is dropped.
struct Place(Arc<Logins>);

impl Default for Logins {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(AT_ONCE),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl Place {
    fn take(logins: &Arc<Logins>) -> Option<Self> {
        let below = |count: usize| (count < MAX_WAITING).then_some(count + 1);
        logins
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below)
            .ok()
            .map(|_| Self(Arc::clone(logins)))
    }

    async fn check(self, check: SlowCheck) -> Answer {
        // It is never closed.
        let _turn = self.0.turns.acquire().await;
        let mut frame = Vec::new();
        match spawn_blocking(move || check.run()).await {
            Ok(true) => encode::simple(&mut frame, "OK"),
            Ok(false) => encode::error(&mut frame, Refused::Wrong.text()),
            Err(_) => frame = error_frame("the password could not be checked"),
        }
        Answer::of(frame)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Dispatch<'_> {
    /// Has the password of an `AUTH` or `HELLO` checked, if that takes long. `None`: it can be
    /// answered at once, or there is nothing to check.
    pub(super) fn check_password(
        &mut self,
        command: &Command,
        request: &Request<'_>,
    ) -> Option<Flow> {
        loop {
            if self.state.aside.is_none() {
                let (user, password) = credentials(command.name, request)?;
                let check = self.shared.users().slow_check(user, password)?;
                if self.state.executing {
                    self.error(NOT_IN_MULTI);
                    return Some(Flow::Continue);
                }
                if self.replies.backlog().outstanding > 0 {
                    return Some(Flow::Await);
                }
                let Some(place) = Place::take(&self.shared.logins) else {
                    self.error(BUSY);
                    return Some(Flow::Continue);
                };
                self.begin_aside(place.check(check), None);
            }
            let Some(answer) = self.poll_aside() else {
                return Some(Flow::Stall);
            };
            if reply::is_error(&answer.frame) {
                if let Some((user, _)) = credentials(command.name, request) {
                    let denial = Denial {
                        reason: "auth",
                        in_multi: false,
                        object: request.arg(0).to_vec(),
                    };
                    self.log_denial(denial, user, (command.name, request));
                }
                self.pass(&answer.frame, Form::Plain);
                return Some(Flow::Continue);
            }
            // The password is remembered now, unless the users have changed meanwhile.
        }
    }
}

const NOT_IN_MULTI: &str =
    "ERR a user whose password is kept as argon2 can not log in inside MULTI";

const BUSY: &str = "ERR too many passwords are being checked, try again";

/// How many passwords are checked at once: each takes a core, and the memory that its hash asks
/// for.
const AT_ONCE: usize = 2;

/// Most clients that wait for that; further ones get an error.
const MAX_WAITING: usize = 64;
