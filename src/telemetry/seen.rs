//! Which keys clients asked for lately, and what was refused: for whoever shows it.
//!
//! Both are bounded, both are written with `try_lock`: a session never waits for a page.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::key::Key;

/// A key that a client asked for.
#[derive(Clone, Debug)]
pub struct Touch {
    /// The key.
    pub key: Key,
    /// Number of its database.
    pub database: u32,
    /// What was done with it.
    pub how: Use,
}

/// What a client did with a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Use {
    /// This many reads.
    Read(u32),
    /// It was incremented by this much, at its node.
    Rose(u32),
    /// It was incremented in memory, where the rise can be seen.
    Counted,
    /// A limit script was called for it, with this limit if the call names one.
    Limited(Option<i64>),
}

/// Keys that clients asked for since they were last taken.
#[derive(Debug, Default)]
pub struct Seen {
    watched: AtomicBool,
    touches: Mutex<Vec<Touch>>,
    /// Touches for which there was no room.
    dropped: AtomicU64,
}

impl Seen {
    /// From now on touches are kept.
    pub fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Whether somebody takes them.
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Keeps what a batch touched as far as there is room, and counts the rest and `more`.
    pub fn offer(&self, batch: Vec<Touch>, more: u64) {
        let mut kept = 0;
        let all = batch.len();
        if let Some(mut touches) = self.touches.try_lock() {
            kept = all.min(MAX_TOUCHES - touches.len());
            touches.extend(batch.into_iter().take(kept));
        }
        let dropped = u64::try_from(all - kept).unwrap_or(u64::MAX);
        if dropped + more > 0 {
            self.dropped.fetch_add(dropped + more, Ordering::Relaxed);
        }
    }

    /// Takes them all, and how many were dropped.
    pub fn take(&self) -> (Vec<Touch>, u64) {
        let touches = std::mem::take(&mut *self.touches.lock());
        (touches, self.dropped.swap(0, Ordering::Relaxed))
    }
}

/// Errors that clients were given here, by their text.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<VecDeque<Refusal>>);

/// An error text, and how often it was given.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// As the client saw it, without the arguments of its request.
    pub text: String,
    /// How often.
    pub count: u64,
    /// The client that was given it last.
    pub client: String,
    /// When last, since 1970.
    pub last: Duration,
}

impl Refusals {
    /// Counts an error. Cost: some string comparisons; nothing when another session does the same.
    pub fn note(&self, text: &[u8], client: &dyn std::fmt::Display, wall: Duration) {
        let Some(mut refusals) = self.0.try_lock() else {
            return;
        };
        let text = shown(text);
        let at = refusals.iter().position(|refusal| refusal.text == text);
        if let Some(mut refusal) = at.and_then(|at| refusals.remove(at)) {
            refusal.count += 1;
            refusal.client = client.to_string();
            refusal.last = wall;
            refusals.push_front(refusal);
            return;
        }
        refusals.truncate(MAX_REFUSALS - 1);
        refusals.push_front(Refusal {
            text: text.into_owned(),
            count: 1,
            client: client.to_string(),
            last: wall,
        });
    }

    /// All of them, the latest first.
    pub fn list(&self) -> Vec<Refusal> {
        self.0.lock().iter().cloned().collect()
    }
}

/// What may be shown of an error: Redis quotes arguments in it, which may be secrets.
fn shown(text: &[u8]) -> std::borrow::Cow<'_, str> {
    let end = memchr::memmem::find(text, b", with args").unwrap_or(text.len());
    String::from_utf8_lossy(text.get(..end.min(MAX_TEXT_BYTES)).unwrap_or_default())
}

/// Touches kept between two looks, a second apart: 200 KiB.
const MAX_TOUCHES: usize = 4096;

/// Different texts kept.
const MAX_REFUSALS: usize = 50;

/// Most of a text that is kept.
const MAX_TEXT_BYTES: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touches_beyond_the_bound_are_only_counted() {
        let seen = Seen::default();
        let touch = Touch {
            key: Key::new(b"k"),
            database: 0,
            how: Use::Read(1),
        };
        seen.offer(vec![touch; MAX_TOUCHES + 5], 2);
        let (touches, dropped) = seen.take();
        assert_eq!((touches.len(), dropped), (MAX_TOUCHES, 7));
        let (touches, dropped) = seen.take();
        assert_eq!((touches.len(), dropped), (0, 0));
    }

    #[test]
    fn refusals_are_counted_by_text_without_arguments() {
        let refusals = Refusals::default();
        for argument in ["secret", "other"] {
            let text = format!("ERR unknown command 'X', with args beginning with: '{argument}'");
            refusals.note(text.as_bytes(), &"127.0.0.1:1", Duration::ZERO);
        }
        let list = refusals.list();
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].count, 2);
        assert_eq!(list[0].text, "ERR unknown command 'X'");
        for n in 0..200 {
            refusals.note(format!("ERR {n}").as_bytes(), &"c", Duration::ZERO);
        }
        assert_eq!(refusals.list().len(), MAX_REFUSALS);
        assert_eq!(refusals.list()[0].text, "ERR 199");
    }
}
