//! What stops a request before anything is done with it: no password yet, or its user.

use std::sync::Arc;

use super::dispatch::Dispatch;
use super::local::{credentials, names_no_user};
use super::transaction::{Part, Queued};
use super::users::Login;
use super::{Denial, Gate, User, Users, local};
use crate::access::Denied;
use crate::command::{self, Command};
use crate::resp::Request;

/// Why a user may not.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// Its rules say so.
    Denied(Denied),
    /// This option of `SORT` looks at keys that it does not name.
    Looks(&'static str),
}

impl Stop {
    /// The error for the client.
    fn text(self, command: &Command) -> String {
        match self {
            Self::Denied(denied) => denied.text(command),
            // `sortCommandGeneric` in `sort.c`.
            Self::Looks(option) => {
                format!("ERR {option} option of SORT denied due to insufficient ACL permissions.")
            }
        }
    }
}

impl Dispatch<'_> {
    /// The error's text if a client that may not do everything may not execute this.
    #[cold]
    pub(super) fn stopped(
        &mut self,
        command: &'static Command,
        request: &Request<'_>,
    ) -> Option<String> {
        if local::allowed_before_auth(command.name) {
            return None;
        }
        // Nobody yet, or logged out since the gate was read.
        let user = match self.client.gate() {
            Gate::Open => return None,
            Gate::Outside => return Some(local::NO_AUTH.to_owned()),
            Gate::User => self.user(),
        };
        let since = self.now.saturating_duration_since(self.shared.started);
        if !user.count_command(u32::try_from(since.as_secs()).unwrap_or(u32::MAX)) {
            return Some("ERR this user has used up its commands of this second".to_owned());
        }
        let stop = self.stop(&user, command, request)?;
        let in_multi = self.state.transaction.is_some();
        self.log_stop(&user, stop, command, request, in_multi);
        Some(stop.text(command))
    }

    /// Who the client is.
    fn user(&self) -> Arc<User> {
        let users = || Arc::clone(self.shared.users().default_user());
        self.client.user().unwrap_or_else(users)
    }

    /// Who the client is, unless it may do everything.
    fn bounded_user(&self) -> Option<Arc<User>> {
        (self.client.gate() != Gate::Open).then(|| self.user())
    }

    /// Who the client is, if a node has to check what its scripts call.
    pub(super) fn checked_user(&self) -> Option<Arc<User>> {
        self.bounded_user()
            .filter(|user| user.is_checked_in_scripts())
    }

    fn stop(
        &mut self,
        user: &User,
        command: &'static Command,
        request: &Request<'_>,
    ) -> Option<Stop> {
        let account = user.account();
        if let Err(denied) = account.check(command, request, &mut self.positions) {
            return Some(Stop::Denied(denied));
        }
        let option = command::looking_option(command, request)?;
        let may = account.may_look_anywhere(command, request, &mut self.positions);
        (!may).then_some(Stop::Looks(option))
    }

    fn log_stop(
        &self,
        user: &User,
        stop: Stop,
        command: &Command,
        request: &Request<'_>,
        in_multi: bool,
    ) {
        let (reason, object) = match stop {
            Stop::Denied(Denied::Key(at)) => ("key", request.arg(at)),
            Stop::Denied(Denied::Channel(at)) => ("channel", request.arg(at)),
            Stop::Denied(Denied::Command) => ("command", command.name.as_bytes()),
            // Redis finds this later, and logs nothing.
            Stop::Looks(_) => return,
        };
        let denial = Denial {
            reason,
            in_multi,
            object: object.to_vec(),
        };
        self.log_denial(denial, user.name(), (command.name, request));
    }

    /// Adds to `ACL LOG`.
    pub(super) fn log_denial(
        &self,
        denial: Denial,
        user: &[u8],
        (name, request): (&str, &Request<'_>),
    ) {
        let mut line = String::new();
        let asking = Some((name, request.wire().len()));
        self.client.write_line(&mut line, self.now, asking);
        let log = &self.shared.directory.log;
        log.add(denial, user, line, self.now);
    }

    /// Takes out of a transaction what its user may not do: the rules may have changed since it was
    /// queued, and an `AUTH` in it has what follows executed as another.
    pub(super) fn recheck_queued(&mut self) {
        let Some(mut transaction) = self.state.transaction.take() else {
            return;
        };
        let mut user = self.bounded_user();
        for queued in &mut transaction.commands {
            if local::allowed_before_auth(queued.command.name) {
                if let Some(login) = self.login_of(queued) {
                    user = login.bounded_user(&self.shared.users());
                }
                continue;
            }
            let Some(user) = &user else {
                continue;
            };
            queued.user = Some(Arc::clone(user)).filter(|user| user.is_checked_in_scripts());
            if matches!(queued.part, Part::Nowhere(_)) {
                continue;
            }
            let request = queued.request();
            let Some(stop) = self.stop(user, queued.command, &request) else {
                continue;
            };
            self.log_stop(user, stop, queued.command, &request, true);
            queued.part = Part::Nowhere(match stop {
                Stop::Denied(denied) => denied.text_at_exec(),
                other @ Stop::Looks(_) => other.text(queued.command),
            });
        }
        self.state.transaction = Some(transaction);
    }

    /// What a queued `AUTH` or `HELLO` will make the client, if its password is right.
    fn login_of(&self, queued: &Queued) -> Option<Login> {
        let request = queued.request();
        let users = self.shared.users();
        let (user, password) = credentials(queued.command.name, &request)?;
        let is_refused = queued.command.name == "auth" && names_no_user(&users, &request);
        (!is_refused).then(|| users.log_in(user, password).ok())?
    }

    /// The user may have lost a channel between the look at its rights and the subscription: who
    /// took the right away may not have found the subscription.
    pub(super) fn recheck_subscription(&mut self, request: &Request<'_>) {
        let command = self.command();
        if self.client.gate() == Gate::User && self.stop(&self.user(), command, request).is_some() {
            self.client.kill.cancel();
        }
    }

    /// Users may have been changed since the client was let in as one of `users`. False: its user
    /// is gone.
    pub(super) fn renew(&self, users: &Arc<Users>) -> bool {
        let present = self.shared.users();
        Arc::ptr_eq(users, &present) || self.client.renew(&present)
    }
}
