//! Who waits for a node's reply, and what each does with it.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::Waker;

use tokio::sync::oneshot;

use super::{Place, Replies};
use crate::fan_out::Gather;
use crate::node::{Came, Deliver, Node};
use crate::resp::reply;
use crate::session::Lent;
use crate::session::scripts::Reminded;
use crate::session::tracking::Deadline;

/// Names who waits for a node's reply.
#[derive(Debug)]
pub enum Ticket {
    /// A place among a session's replies.
    Reply(Place),
    /// A part of a reply that is made of several.
    Part(Arc<Gather>, usize),
    /// Places for the elements of the reply to a transaction.
    Elements(Box<Elements>),
    /// A task that waits for the frame.
    Told(oneshot::Sender<Vec<u8>>),
    /// A place for the reply of a script that was called by its name.
    Script(Box<Reminded>),
    /// Who waits for the elements of the reply to a transaction, which is not the client's.
    Within(Box<[Self]>),
    /// Who waits for the reply of a script that ran with the rights of a user.
    Lent(Box<Lent>),
    /// A node that is to have its own rights again.
    Back(Arc<Node<Self>>),
    /// Clients that keep a key, whose time to live is asked for.
    Deadline(Box<Deadline>),
    /// Nobody.
    Nobody,
}

/// Who waits for the elements of a node's reply to `EXEC`.
#[derive(Debug)]
pub struct Elements {
    /// The elements of the client's array.
    pub replies: Arc<Replies>,
    /// One for each command, in order.
    pub tickets: Vec<Ticket>,
    /// Whether the client's `EXEC` holds nothing else that was sent: an error of the node is its
    /// whole reply.
    pub is_all: bool,
}

impl Deliver for Ticket {
    fn deliver(self, frame: &[u8], came: Came) -> Option<Waker> {
        match self {
            Self::Reply(place) => place.filled(frame, came),
            Self::Part(gather, index) => gather.part(index, frame, came),
            Self::Elements(elements) => elements.fill(frame, came),
            Self::Told(task) => {
                // A task that is gone wants nothing.
                drop(task.send(frame.to_vec()));
                None
            }
            Self::Script(reminded) => reminded.deliver(frame, came),
            Self::Within(tickets) => within(tickets, frame, came),
            Self::Lent(lent) => lent.deliver(frame, came),
            Self::Back(node) => {
                // Its password was changed: the connection is the user's for ever.
                if frame.starts_with(b"-WRONGPASS") {
                    node.reconnect();
                }
                None
            }
            Self::Deadline(key) => {
                key.deliver(frame, came.now);
                None
            }
            Self::Nobody => None,
        }
    }
}

/// Gives each its element. If something went wrong, all get the error as it would be outside of a
/// transaction.
fn within(tickets: Box<[Ticket]>, frame: &[u8], came: Came) -> Option<Waker> {
    let error: Cow<'_, [u8]> = match frame.strip_prefix(ABORTED) {
        Some(cause) => [b"-", cause].concat().into(),
        None => frame.into(),
    };
    let mut elements = reply::elements(frame);
    let mut waker = None;
    for ticket in tickets {
        let element = elements.as_mut().and_then(Iterator::next);
        waker = ticket.deliver(element.unwrap_or(&error), came).or(waker);
    }
    waker
}

impl Elements {
    /// Takes the node's reply to `EXEC`: each ticket gets its element. An error, or the null of a
    /// transaction whose watched keys were changed, goes to all of them.
    pub fn fill(self, frame: &[u8], came: Came) -> Option<Waker> {
        let mut elements = reply::elements(frame);
        let refusal = (elements.is_none() && self.is_all).then_some(frame);
        self.replies.node_replied(came, refusal);
        let came = Came::here(came.now);
        let mut waker = None;
        for ticket in self.tickets {
            let element = elements.as_mut().and_then(Iterator::next).unwrap_or(frame);
            waker = ticket.deliver(element, came).or(waker);
        }
        waker
    }
}

/// How Redis says why a transaction was not executed (`execCommandAbort` in `multi.c`).
const ABORTED: &[u8] = b"-EXECABORT Transaction discarded because of: ";
