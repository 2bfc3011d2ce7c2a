//! Commands of a transaction whose own keys are of several nodes, such as `RENAME`, with
//! `transactions.cross_node = "split"`: which keys are brought to one node for it.
//!
//! ```text
//!  MULTI  INCR a   LPUSH b x   LMOVE b c   LLEN c   INCR d  EXEC        a, b on one node, c, d on the other
//!                     └────── together ──────┘
//!  one node:   c comes ── INCR a ── LPUSH b x ── LMOVE b c ── LLEN c ── c goes
//!  the other:  INCR d
//! ```
//!
//! What such a command names has to be at one node, and so has whatever else of the stretch names
//! one of these keys with others. All other keys stay where they are. A stretch is what stands
//! between two commands that are executed apart.

use std::collections::{HashMap, HashSet};

use super::transaction::{Part, Queued};
use crate::key::Key;

/// What a stretch of a transaction finds at one node.
#[derive(Debug, Default)]
pub(super) struct Together {
    /// Place of the node in the ring.
    pub(super) home: usize,
    /// Keys that live on other nodes, and whether they may be changed there.
    pub(super) guests: Vec<(Key, bool)>,
}

impl Together {
    /// Decides where the commands of a stretch are executed. `place` says where a key lives, and
    /// `changes` whether a command may change what it names.
    pub(super) fn of(
        stretch: &mut [Queued],
        place: impl Fn(&[u8]) -> usize,
        changes: impl Fn(&Queued) -> bool,
    ) -> Self {
        let Some(home) = stretch.iter().find_map(Queued::joint) else {
            return Self::default();
        };
        let bound = bound(stretch);
        let mut guests = HashMap::new();
        for queued in stretch.iter() {
            let changes = changes(queued);
            for key in queued.keys() {
                if bound.contains(key) && place(key) != home {
                    *guests.entry(Key::new(key)).or_default() |= changes;
                }
            }
        }
        let at = |key: &[u8]| {
            if bound.contains(key) {
                home
            } else {
                place(key)
            }
        };
        let parts: Vec<Option<Part>> = stretch
            .iter()
            .map(|queued| moved(queued, home, at))
            .collect();
        for (queued, part) in stretch.iter_mut().zip(parts) {
            queued.part = part.unwrap_or_else(|| std::mem::replace(&mut queued.part, Part::Here));
        }
        Self {
            home,
            guests: guests.into_iter().collect(),
        }
    }
}

/// The keys that have to be at one node: those of commands that need all of theirs there, and of
/// others that name one of them with further ones.
fn bound(stretch: &[Queued]) -> HashSet<Key> {
    let mut named: HashMap<&[u8], Vec<&Queued>> = HashMap::new();
    for queued in stretch {
        if matches!(queued.part, Part::Node(_) | Part::Joint(_)) {
            for key in queued.keys() {
                named.entry(key).or_default().push(queued);
            }
        }
    }
    let mut bound = HashSet::new();
    let is_joint = |queued: &&Queued| queued.joint().is_some();
    let mut unseen: Vec<&Queued> = stretch.iter().filter(is_joint).collect();
    while let Some(queued) = unseen.pop() {
        for key in queued.keys() {
            if bound.insert(Key::new(key)) {
                unseen.extend(named.remove(key).unwrap_or_default());
            }
        }
    }
    bound
}

/// Where a command is executed with keys brought to `home`; `None`: where it was to be.
fn moved(queued: &Queued, home: usize, at: impl Fn(&[u8]) -> usize) -> Option<Part> {
    match &queued.part {
        Part::Joint(_) | Part::Keyless => Some(Part::Node(home)),
        Part::Node(_) => queued.keys().next().map(|key| Part::Node(at(key))),
        Part::Spread(parts) => {
            let positions = parts.iter().flat_map(|(_, positions)| positions);
            let mut positions: Vec<usize> = positions.copied().collect();
            positions.sort_unstable();
            let request = queued.request();
            Some(Part::over(&positions, |position| at(request.arg(position))))
        }
        Part::Here | Part::Apart | Part::Nowhere(_) => None,
    }
}
