//! Scripts of users who may not do everything: the node checks what they call.
//!
//! ```text
//!  MULTI  ACL SETUSER ...  AUTH of that user  EVAL ...  AUTH of Tally  ACL DELUSER  EXEC
//! ```
//!
//! On the lane, in its turn, the connection becomes a user with the rules of Tally's user, and is
//! itself again before anything else is executed. The node has that user no longer than the script
//! runs. First it is made with a password and no rights, which can not fail; rules that the node does
//! not take leave it without them. So a script never runs with more rights than its user has.

use std::sync::Arc;
use std::task::Waker;

use memchr::memmem;

use super::replies::Ticket;
use super::users::User;
use crate::access::Account;
use crate::config;
use crate::node::{Came, Deliver, Node};
use crate::resp::encode;
use crate::telemetry::random_run_id;

/// What gives a connection to a node the rights of a user.
#[derive(Clone, Debug)]
pub(super) struct Loan {
    wire: Vec<u8>,
    commands: usize,
}

/// The same for one node, and what takes the rights back.
pub(super) struct Around {
    user: Arc<User>,
    node: Arc<Node<Ticket>>,
    back: Vec<u8>,
}

/// Who waits for the reply of a script of a user.
#[derive(Debug)]
pub struct Lent {
    ticket: Ticket,
    user: Arc<User>,
}

impl Loan {
    pub(super) fn of(account: &Account) -> Self {
        let password = random_run_id();
        let given = format!(">{password}");
        let mut loan = Self {
            wire: Vec::new(),
            commands: 0,
        };
        loan.set(&[b"reset".into(), b"on".into(), given.into()]);
        let (known, others) = account.rules_for_node();
        loan.set(&known);
        for rule in others {
            loan.set(&[rule]);
        }
        encode::request(&mut loan.wire, &["AUTH", NAME, &password]);
        loan.commands += 1;
        loan
    }

    fn set(&mut self, rules: &[Vec<u8>]) {
        let mut args: Vec<&[u8]> = vec![b"ACL", b"SETUSER", NAME.as_bytes()];
        args.extend(rules.iter().map(Vec::as_slice));
        encode::request(&mut self.wire, &args);
        self.commands += 1;
    }
}

impl Around {
    pub(super) fn new(user: &Arc<User>, node: &Arc<Node<Ticket>>) -> Self {
        let mut back = Vec::new();
        let config = node.config();
        let (name, password) = credentials(&config);
        encode::request(&mut back, &["AUTH", name, password]);
        encode::request(&mut back, &["ACL", "DELUSER", NAME]);
        Self {
            user: Arc::clone(user),
            node: Arc::clone(node),
            back,
        }
    }

    /// The script between what gives the rights and what takes them back, without `MULTI`.
    pub(super) fn wire(&self, script: &[u8]) -> Vec<u8> {
        [&self.user.loan().wire, script, &self.back].concat()
    }

    /// How many commands that are.
    pub(super) fn commands(&self) -> u32 {
        let before = self.user.loan().commands;
        u32::try_from(before + 1 + BEHIND).unwrap_or(u32::MAX)
    }

    /// Who waits for their replies; `ticket` is for that of the script.
    pub(super) fn tickets(self, ticket: Ticket) -> Vec<Ticket> {
        let before = (0..self.user.loan().commands).map(|_| Ticket::Nobody);
        let mut tickets: Vec<Ticket> = before.collect();
        let user = self.user;
        tickets.push(Ticket::Lent(Box::new(Lent { ticket, user })));
        tickets.extend([Ticket::Back(self.node), Ticket::Nobody]);
        tickets
    }
}

impl Lent {
    /// Takes the reply. Errors name the user as its clients know it.
    pub(super) fn deliver(self, frame: &[u8], came: Came) -> Option<Waker> {
        let Self { ticket, user } = self;
        if !frame.starts_with(b"-") {
            return ticket.deliver(frame, came);
        }
        if asks_for_acl(frame) {
            return ticket.deliver(NOT_CHECKED, came);
        }
        match memmem::find(frame, NAME.as_bytes()) {
            None => ticket.deliver(frame, came),
            Some(at) => {
                let (before, behind) = frame.split_at(at);
                let behind = behind.get(NAME.len()..).unwrap_or_default();
                ticket.deliver(&[before, user.name(), behind].concat(), came)
            }
        }
    }
}

/// Whether the node does not let Tally make users: it is another error than what a script gives, as
/// that is not looked at before `ACL` was taken.
fn asks_for_acl(error: &[u8]) -> bool {
    let names = [&b"'acl|"[..], b"'acl'", b"'ACL'"];
    let is_refusal = error.starts_with(b"-NOPERM") || error.starts_with(b"-ERR unknown command");
    is_refusal && names.iter().any(|name| memmem::find(error, name).is_some())
}

/// Who Tally is at a node.
fn credentials(config: &config::Node) -> (&str, &str) {
    match &config.password {
        Some(password) => (
            config.username.as_deref().unwrap_or("default"),
            password.reveal(),
        ),
        // It is let in without one, so any is right.
        None => ("default", ""),
    }
}

/// The name of the user at the nodes. Nothing comes between its being made and its end, so one name
/// does for everybody.
const NAME: &str = "__tally__:script";

/// Commands behind the script.
const BEHIND: usize = 2;

const NOT_CHECKED: &[u8] = b"-NOPERM this user has no permissions to run scripts: its node has to \
check what they call, and does not let Tally use ACL SETUSER\r\n";
