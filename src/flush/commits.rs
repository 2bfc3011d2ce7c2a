//! Group commit: which notes in the slots are on the disk, and who waits until they are. Pure: who
//! writes the disk is the caller's.
//!
//! ```text
//!   note ──> noted: 9 ─────────────┐ one thread: takes `noted`, has the disk written,
//!                                  │ tells up to where it is; meanwhile others note and wait
//!   waits for 8, 9 <── kept: 7 <───┘
//! ```
//!
//! Every note has a number. A session writes no reply, and a lane no batch, before what was noted
//! when it was made is on the disk. So no reply tells of an increment that a power cut could take
//! back, whoever made it, and one write of the disk serves all who wait.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use parking_lot::{Condvar, Mutex};

/// The notes of one journal. Numbers rise from 1; 0 is before the first.
#[derive(Debug, Default)]
pub struct Commits {
    noted: AtomicU64,
    kept: AtomicU64,
    state: Mutex<State>,
    /// Wakes the thread that writes the disk: somebody waits, or the end has come.
    wanted: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Who waits for which note: each session and lane at most once for each.
    waiting: Vec<(u64, Waker)>,
    ended: bool,
}

/// What a session or lane waits for, and what wakes it.
#[derive(Debug, Default)]
pub struct Wait(Option<(u64, Waker)>);

impl Commits {
    /// A note was made, in words stored before this call. Returns its number. Cost: one atomic
    /// addition, which threads share.
    pub fn note(&self) -> u64 {
        self.noted.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Number of the last note that the caller can know of.
    pub fn noted(&self) -> u64 {
        self.noted.load(Ordering::Acquire)
    }

    /// Whether everything up to this note is on the disk.
    pub fn is_kept(&self, note: u64) -> bool {
        self.kept.load(Ordering::Acquire) >= note
    }

    /// The same; if not, the disk is asked for it and `waker` is woken when it is.
    pub fn watch(&self, note: u64, wait: &mut Wait, waker: &Waker) -> bool {
        if self.is_kept(note) {
            return true;
        }
        let is_known = |(known, by): &(u64, Waker)| *known == note && by.will_wake(waker);
        if wait.0.as_ref().is_some_and(is_known) {
            return false;
        }
        let mut state = self.state.lock();
        if self.is_kept(note) {
            return true;
        }
        wait.0 = Some((note, waker.clone()));
        state.waiting.push((note, waker.clone()));
        drop(state);
        self.wanted.notify_one();
        false
    }

    /// Waits until everything up to this note is on the disk.
    pub async fn kept(&self, note: u64, wait: &mut Wait) {
        poll_fn(|cx| {
            if self.watch(note, wait, cx.waker()) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Blocks until somebody waits; returns the note up to which the disk is to be written, or
    /// `None` at the end.
    pub fn next(&self) -> Option<u64> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() && !state.ended {
            self.wanted.wait(&mut state);
        }
        (!state.ended).then(|| self.noted())
    }

    /// Everything up to this note is on the disk.
    pub fn keep(&self, note: u64) {
        let mut state = self.state.lock();
        self.kept.fetch_max(note, Ordering::AcqRel);
        let woken = state.waiting.extract_if(.., |(waits, _)| *waits <= note);
        let woken: Vec<_> = woken.collect();
        drop(state);
        for (_, waker) in woken {
            waker.wake();
        }
    }

    /// Nobody writes the disk any more: whoever waits, waits for ever.
    pub fn end(&self) {
        self.state.lock().ended = true;
        self.wanted.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU64);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_is_woken_when_its_note_is_kept_and_not_before() {
        let commits = Commits::default();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let count = || woken.0.load(Ordering::Relaxed);
        let mut waits = [Wait::default(), Wait::default()];
        let mut watch = |at: usize, note| commits.watch(note, &mut waits[at], &waker);
        assert!(watch(0, 0), "nothing was noted");
        let (first, second) = (commits.note(), commits.note());
        assert!(!watch(0, first) && !watch(1, second));
        assert!(!watch(1, second), "once is enough");
        assert_eq!(commits.next(), Some(second));
        commits.keep(first);
        assert_eq!(count(), 1);
        assert!(watch(0, first) && !commits.is_kept(second));
        commits.keep(second);
        assert_eq!(count(), 2);
        commits.end();
        assert_eq!(commits.next(), None);
    }
}
