//! What stops a request before anything is done with it: no password yet, or its user.

use std::sync::Arc;

use super::dispatch::Dispatch;
use super::{Gate, Users, local};
use crate::command::Command;
use crate::resp::Request;

impl Dispatch<'_> {
    /// The error's text if a client that is not the default user may not execute this.
    #[cold]
    pub(super) fn stopped(&mut self, command: &Command, request: &Request<'_>) -> Option<String> {
        if local::allowed_before_auth(command.name) {
            return None;
        }
        // Nobody yet, or logged out since the gate was read.
        let user = match self.client.gate() {
            Gate::Open => return None,
            Gate::Outside => None,
            Gate::User => self.client.user(),
        };
        let Some(user) = user else {
            return Some(local::NO_AUTH.to_owned());
        };
        let since = self.now.saturating_duration_since(self.shared.started);
        if !user.count_command(u32::try_from(since.as_secs()).unwrap_or(u32::MAX)) {
            return Some("ERR this user has used up its commands of this second".to_owned());
        }
        let access = user.access();
        let checked = access.check(command, request, &mut self.positions);
        checked.err().map(|denied| denied.text(command))
    }

    /// Users may have been changed since the client was let in as one of `users`.
    pub(super) fn renew(&self, users: &Arc<Users>) {
        let present = self.shared.users();
        if !Arc::ptr_eq(users, &present) {
            self.client.renew(&present);
        }
    }
}
