//! The reply to one `SUBSCRIBE` or `UNSUBSCRIBE`: a confirmation for each name, sent together once
//! every node has given its own.

use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;

use super::Topic;
use crate::resp::encode;
use crate::session::{Client, Place};

/// Collects the nodes' answers.
#[derive(Debug)]
pub struct Confirmations(Mutex<Open>);

#[derive(Debug)]
struct Open {
    /// `None` once it has been filled.
    place: Option<Place>,
    each: Vec<Confirmation>,
    missing: usize,
}

/// One name of the request.
#[derive(Debug)]
pub struct Confirmation {
    /// What the client gets, in its protocol.
    pub bytes: Vec<u8>,
    /// How many nodes have to answer first.
    pub nodes: usize,
    /// The subscription that is undone if one of them refuses.
    pub subscription: Option<(Arc<Client>, Topic)>,
}

impl Confirmations {
    /// Waits for all nodes of all names. Returns the session's waker when there is nothing to wait
    /// for.
    pub fn new(place: Place, each: Vec<Confirmation>) -> (Arc<Self>, Option<Waker>) {
        let missing = each.iter().map(|one| one.nodes).sum();
        let mut open = Open {
            place: Some(place),
            each,
            missing,
        };
        let waker = open.fill_if_complete();
        (Arc::new(Self(Mutex::new(open))), waker)
    }
}

impl Open {
    fn fill_if_complete(&mut self) -> Option<Waker> {
        if self.missing > 0 {
            return None;
        }
        let each = std::mem::take(&mut self.each);
        let bytes: Vec<u8> = each.into_iter().flat_map(|one| one.bytes).collect();
        self.place.take()?.fill_as_is(&bytes)
    }
}

/// The answer of one node that one name waits for.
#[derive(Debug)]
pub(super) struct Part {
    of: Arc<Confirmations>,
    index: usize,
}

impl Part {
    pub(super) fn new(of: &Arc<Confirmations>, index: usize) -> Self {
        Self {
            of: Arc::clone(of),
            index,
        }
    }

    /// The node has confirmed, or it can not, with the error's text. Returns the subscription that
    /// is to be undone, and the session's waker when this was the last answer.
    pub(super) fn settle(
        self,
        result: Result<(), String>,
    ) -> (Option<(Arc<Client>, Topic)>, Option<Waker>) {
        let mut open = self.of.0.lock();
        let mut undo = None;
        if let (Err(text), Some(one)) = (result, open.each.get_mut(self.index))
            && let Some(subscription) = one.subscription.take()
        {
            one.bytes.clear();
            encode::error(&mut one.bytes, text);
            undo = Some(subscription);
        }
        open.missing = open.missing.saturating_sub(1);
        (undo, open.fill_if_complete())
    }
}
