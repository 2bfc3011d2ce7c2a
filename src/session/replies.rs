//! The replies of one session, put into the order of its requests.

mod ticket;

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use super::timing::{Asked, Notes};
use crate::node::Came;
use crate::resp::{Form, Protocol, encode, to_resp2};
use crate::telemetry::clock::now;

pub use ticket::{Elements, Ticket};

/// A place among a session's replies, to be filled once.
#[derive(Debug)]
pub struct Place {
    replies: Arc<Replies>,
    number: u64,
    protocol: Protocol,
    form: Form,
    /// `CLIENT REPLY OFF` or `SKIP`: nothing is sent.
    mute: bool,
    /// The longest time that a node had some part of the request, in microseconds.
    node_us: u32,
}

impl Place {
    /// Its number among the replies of its session.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Notes that a part of what it waits for has come.
    pub fn came(&mut self, came: Came) {
        self.node_us = self.node_us.max(came.node_us);
    }

    /// Fills the place with a reply that came at that time.
    pub(super) fn filled(mut self, frame: &[u8], came: Came) -> Option<Waker> {
        self.came(came);
        self.fill_at(frame, came.now)
    }

    /// Fills the place with a RESP3 frame, in the client's protocol. Returns the session's waker
    /// if it has something to write now and sleeps.
    pub fn fill(self, frame: &[u8]) -> Option<Waker> {
        self.fill_at(frame, now())
    }

    /// The same, with a clock that was read already.
    pub(super) fn fill_at(self, frame: &[u8], now: Instant) -> Option<Waker> {
        let (protocol, form) = (self.protocol, self.form);
        self.fill_with(now, frame.strip_prefix(b"-"), |out| match protocol {
            Protocol::Resp3 => out.extend_from_slice(frame),
            Protocol::Resp2 => to_resp2(frame, form, out),
        })
    }

    /// Fills the place with what the client is to see; `error` is the text if that is one.
    fn fill_with(
        self,
        now: Instant,
        error: Option<&[u8]>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Option<Waker> {
        let Self {
            replies,
            number,
            mute,
            node_us,
            ..
        } = self;
        replies.fill(number, (Came { now, node_us }, error), |out| {
            if !mute {
                write(out);
            }
        })
    }

    /// Fills the place with replies that are in the client's protocol already and are sent whether
    /// it wants replies or not: confirmations of subscriptions.
    pub fn fill_as_is(self, bytes: &[u8]) -> Option<Waker> {
        let now = now();
        let came = Came { now, node_us: 0 };
        self.replies.fill(self.number, (came, None), |out| {
            out.extend_from_slice(bytes);
        })
    }

    /// Most bytes of replies that its session may hold.
    pub fn limit(&self) -> usize {
        self.replies.0.lock().limit
    }

    /// Gives up a reply that has outgrown the limit, and with it the session. Returns the
    /// session's waker if it sleeps.
    pub fn overrun(self) -> Option<Waker> {
        let mut queue = self.replies.0.lock();
        queue.overrun();
        settle(queue)
    }
}

/// Replies of one session: those that may be written, and those that wait for earlier ones.
///
/// ```text
///   ready: bytes in order ──> socket      slots: [waiting][spill 0..5][waiting][spill 5..12]
/// ```
///
/// Past its limit the queue drops everything and takes nothing more; the session ends then.
///
/// The elements of the reply to an `EXEC` are collected in a queue of their own, which becomes one
/// reply of the session's when all have come; see [`Replies::close`].
pub struct Replies(Mutex<Queue>);

struct Queue {
    ready: Vec<u8>,
    /// Number of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    /// Bytes of replies that came out of turn. Those whose turn has come are among them until
    /// [`Queue::compact`] takes them out.
    spill: Vec<u8>,
    /// How many bytes of `spill` are of replies whose turn has come.
    spent: usize,
    /// How many slots lie in `spill`.
    spilled: usize,
    /// Number behind the last slot that messages may not overtake: it holds a confirmation or a
    /// message.
    barrier: u64,
    /// Wakes the session, when it sleeps.
    waker: Option<Waker>,
    /// Most bytes held.
    limit: usize,
    /// Whether there were more.
    overrun: bool,
    notes: Notes,
    /// The array that the replies become, if they are elements of one.
    whole: Option<Whole>,
    /// The error that takes the place of the elements.
    refusal: Option<Vec<u8>>,
    /// The longest time that a node had some of the elements, in microseconds.
    node_us: u32,
}

/// An array that waits for its last element.
struct Whole {
    elements: usize,
    place: Place,
}

enum Slot {
    Waiting(Asked),
    Spilled(Range<usize>),
}

/// What became of a message.
#[derive(Debug)]
#[must_use = "a session that sleeps has to be woken, one that has overrun has to be ended"]
pub enum Pushed {
    /// It will be sent; the session is to be woken if it sleeps.
    Kept(Option<Waker>),
    /// The session holds more than it may.
    Overrun,
}

/// How much there is, for limits.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    /// Number of the first reply that has not been taken.
    pub first: u64,
    /// Replies that have not come yet.
    pub outstanding: usize,
    /// Bytes of replies that wait for earlier ones, or to be taken.
    pub bytes: usize,
    /// Whether there were more bytes than the limit allows: replies are missing.
    pub overrun: bool,
}

impl Replies {
    /// An empty queue that never holds more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self(Mutex::new(Queue {
            ready: Vec::new(),
            first: 0,
            slots: VecDeque::new(),
            spill: Vec::new(),
            spent: 0,
            spilled: 0,
            barrier: 0,
            waker: None,
            limit,
            overrun: false,
            notes: Notes::default(),
            whole: None,
            refusal: None,
            node_us: 0,
        }))
    }

    /// Holds at most so many bytes from now on.
    pub(super) fn set_limit(&self, limit: usize) {
        self.0.lock().limit = limit;
    }

    /// A queue for the elements of one of these replies.
    pub fn within(&self) -> Arc<Self> {
        Arc::new(Self::new(self.0.lock().limit))
    }

    /// Says that these are the elements of an array, that all `elements` of them have been asked
    /// for, and where the array goes. Returns whom to wake if all have come.
    pub fn close(&self, elements: usize, place: Place) -> Option<Waker> {
        let mut queue = self.0.lock();
        queue.whole = Some(Whole { elements, place });
        settle(queue)
    }

    /// A node's part of the elements comes now, or a `refusal` in place of all of them.
    fn node_replied(&self, came: Came, refusal: Option<&[u8]>) {
        let mut queue = self.0.lock();
        queue.node_us = queue.node_us.max(came.node_us);
        if let Some(frame) = refusal {
            queue.refusal = Some(frame.to_vec());
        }
    }

    /// Takes a place behind all replies so far.
    pub fn reserve(
        self: &Arc<Self>,
        asked: Asked,
        protocol: Protocol,
        form: Form,
        mute: bool,
    ) -> Place {
        let mut queue = self.0.lock();
        let number = queue.first + u64::try_from(queue.slots.len()).unwrap_or(u64::MAX);
        queue.slots.push_back(Slot::Waiting(asked));
        drop(queue);
        Place {
            replies: Arc::clone(self),
            number,
            protocol,
            form,
            mute,
            node_us: 0,
        }
    }

    /// Takes a place for confirmations of subscriptions, which no later message overtakes.
    pub fn reserve_confirmation(self: &Arc<Self>, asked: Asked, protocol: Protocol) -> Place {
        let place = self.reserve(asked, protocol, Form::Plain, false);
        self.0.lock().barrier = place.number + 1;
        place
    }

    /// Adds a message, which is not a reply: it leaves as soon as possible, but behind the
    /// confirmations and messages before it.
    pub fn push_message(&self, bytes: &[u8]) -> Pushed {
        let mut queue = self.0.lock();
        if queue.is_overrun(bytes.len()) {
            return Pushed::Overrun;
        }
        if queue.barrier <= queue.first {
            queue.ready.extend_from_slice(bytes);
            return Pushed::Kept(queue.waker.take());
        }
        queue.append(bytes);
        queue.barrier = queue.first + u64::try_from(queue.slots.len()).unwrap_or(u64::MAX);
        Pushed::Kept(None)
    }

    /// Adds a message behind everything that has been asked so far, whether its reply has come or
    /// not.
    pub fn push_behind(&self, bytes: &[u8]) -> Pushed {
        {
            let mut queue = self.0.lock();
            queue.barrier = queue.first + u64::try_from(queue.slots.len()).unwrap_or(u64::MAX);
        }
        self.push_message(bytes)
    }

    /// Adds complete replies, in the client's protocol, behind all so far.
    pub fn push(&self, bytes: &[u8]) {
        let mut queue = self.0.lock();
        if queue.is_overrun(bytes.len()) {
            return;
        }
        if queue.slots.is_empty() {
            queue.ready.extend_from_slice(bytes);
            return;
        }
        queue.append(bytes);
    }

    /// Swaps what may be written now into `out`, and what was noted into `notes`; both are empty.
    /// When there is nothing to write, `waker` is woken once there is.
    pub fn take(&self, out: &mut Vec<u8>, notes: &mut Notes, waker: &Waker) -> Backlog {
        let mut queue = self.0.lock();
        queue.notes.exchange(notes);
        if queue.ready.is_empty() {
            match &mut queue.waker {
                Some(old) => old.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        } else {
            std::mem::swap(&mut queue.ready, out);
        }
        queue.backlog()
    }

    /// How much there is.
    pub fn backlog(&self) -> Backlog {
        self.0.lock().backlog()
    }

    /// The same; `waker` is woken when the oldest reply that is missing has come.
    pub fn watch(&self, waker: &Waker) -> Backlog {
        let mut queue = self.0.lock();
        match &mut queue.waker {
            Some(old) => old.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        queue.backlog()
    }

    fn fill(
        &self,
        number: u64,
        (came, error): (Came, Option<&[u8]>),
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Option<Waker> {
        let mut locked = self.0.lock();
        let queue = &mut *locked;
        if queue.is_overrun(0) {
            return settle(locked);
        }
        let index = usize::try_from(number.checked_sub(queue.first)?).ok()?;
        if let Some(Slot::Waiting(asked)) = queue.slots.get(index) {
            let asked = (number, *asked);
            queue.notes.take_down(asked, came, error);
        }
        if index > 0 {
            let start = queue.spill.len();
            write(&mut queue.spill);
            *queue.slots.get_mut(index)? = Slot::Spilled(start..queue.spill.len());
            queue.spilled += 1;
            return None;
        }
        write(&mut queue.ready);
        queue.slots.pop_front();
        queue.first += 1;
        while let Some(Slot::Spilled(range)) = queue.slots.front() {
            let bytes = queue.spill.get(range.clone()).unwrap_or_default();
            queue.ready.extend_from_slice(bytes);
            queue.spent += bytes.len();
            queue.slots.pop_front();
            queue.first += 1;
            queue.spilled -= 1;
        }
        queue.compact();
        settle(locked)
    }
}

/// Makes one reply of the elements when all have come, or when they are too large. Returns the
/// waker of the session if it sleeps.
fn settle(mut queue: MutexGuard<'_, Queue>) -> Option<Waker> {
    let ended = queue.overrun || queue.slots.is_empty();
    let Some(whole) = queue.whole.take_if(|_| ended) else {
        return queue.waker.take();
    };
    let Whole {
        elements,
        mut place,
    } = whole;
    let (overrun, refusal) = (queue.overrun, queue.refusal.take());
    let (bytes, notes) = (
        std::mem::take(&mut queue.ready),
        std::mem::take(&mut queue.notes),
    );
    let now = now();
    place.came(Came {
        now,
        node_us: queue.node_us,
    });
    drop(queue);
    place.replies.0.lock().notes.join(notes);
    match refusal {
        _ if overrun => place.overrun(),
        Some(frame) => place.fill_at(&frame, now),
        None => place.fill_with(now, None, |out| {
            encode::array(out, elements);
            out.extend_from_slice(&bytes);
        }),
    }
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Replies").field(&self.backlog()).finish()
    }
}

impl Queue {
    /// Adds bytes behind all slots.
    fn append(&mut self, bytes: &[u8]) {
        let start = self.spill.len();
        self.spill.extend_from_slice(bytes);
        let end = self.spill.len();
        self.slots.push_back(Slot::Spilled(start..end));
        self.spilled += 1;
    }

    fn backlog(&self) -> Backlog {
        Backlog {
            first: self.first,
            outstanding: self.slots.len() - self.spilled,
            bytes: self.bytes(),
            overrun: self.overrun,
        }
    }

    /// Bytes of replies that have not been taken.
    fn bytes(&self) -> usize {
        self.ready.len() + self.spill.len() - self.spent
    }

    /// Takes the replies whose turn has come out of `spill`: all at once where no other is left, and
    /// otherwise once they are the larger part. In a pipeline to several nodes that never ends there
    /// may always be another one.
    fn compact(&mut self) {
        if self.spilled == 0 {
            self.spent = 0;
            self.spill.clear();
            if self.spill.capacity() > KEPT_SPILL {
                self.spill = Vec::new();
            }
        } else if self.spent > KEPT_SPILL && self.spent > self.spill.len() / 2 {
            let mut spill = Vec::with_capacity(self.spill.len() - self.spent);
            for slot in &mut self.slots {
                if let Slot::Spilled(range) = slot {
                    let start = spill.len();
                    spill.extend_from_slice(self.spill.get(range.clone()).unwrap_or_default());
                    *range = start..spill.len();
                }
            }
            self.spent = 0;
            self.spill = spill;
        }
    }

    /// Whether the limit has been passed, or is with `more` bytes.
    fn is_overrun(&mut self, more: usize) -> bool {
        if self.bytes() + more > self.limit {
            self.overrun();
        }
        self.overrun
    }

    fn overrun(&mut self) {
        self.overrun = true;
        self.ready = Vec::new();
        self.spill = Vec::new();
        self.spent = 0;
    }
}

/// Largest buffer of early replies that a session keeps when it is empty. So many bytes of replies
/// whose turn has come may also stay in one that is not.
const KEPT_SPILL: usize = 64 << 10;

#[cfg(test)]
mod tests;
