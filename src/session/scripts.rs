//! Scripts that are known as limit scripts, among those that clients run.

use std::hash::{BuildHasher, RandomState};

use dashmap::{DashMap, DashSet};

use crate::limit::{self, Call, Catalogue};
use crate::resp::Request;

/// Knows limit scripts by their bodies, and by the names of those that clients have brought.
#[derive(Debug)]
pub struct Scripts {
    catalogue: Catalogue,
    /// For each body seen: its script's place in the catalogue, if it is there. Keyed by a hash
    /// under a random seed and the length; at most [`MAX_BODIES`].
    bodies: DashMap<(u64, usize), bool>,
    /// Names (SHA-1, hex) under which clients have brought a limit script. As many as such bodies.
    names: DashSet<Box<[u8]>>,
    seed: RandomState,
}

impl Scripts {
    /// Knows the scripts in `catalogue`.
    pub fn new(catalogue: Catalogue) -> Self {
        let seed = RandomState::new();
        Self {
            catalogue,
            bodies: DashMap::new(),
            names: DashSet::new(),
            seed,
        }
    }

    /// The call that an `EVAL` or `EVALSHA` makes, if it is one of a limit script with arguments
    /// as they should be. An `EVALSHA` counts only if the script was brought before, as in Redis.
    pub(super) fn call(&self, name: &str, request: &Request<'_>) -> Option<Call> {
        let known = match name {
            // The first one is forwarded, so that a node knows the script as it would have.
            "eval" => {
                let body = request.arg(1);
                let seen = self.bodies.contains_key(&self.place(body));
                self.brought(body) && seen
            }
            "evalsha" => self
                .names
                .contains(request.arg(1).to_ascii_lowercase().as_slice()),
            _ => false,
        };
        if !known {
            return None;
        }
        self.catalogue.recognise(request)?.call(request)
    }

    /// A client brought a script, with `EVAL` or `SCRIPT LOAD`. Returns whether it is a limit
    /// script. Looks into a body once.
    pub(super) fn brought(&self, body: &[u8]) -> bool {
        let place = self.place(body);
        if let Some(known) = self.bodies.get(&place) {
            return *known;
        }
        let known = self.catalogue.recognise_body(body).is_some();
        if known {
            self.names.insert(Box::from(limit::sha1_hex(body)));
        }
        if self.bodies.len() < MAX_BODIES {
            self.bodies.insert(place, known);
        }
        known
    }

    fn place(&self, body: &[u8]) -> (u64, usize) {
        (self.seed.hash_one(body), body.len())
    }

    /// The nodes have forgotten all scripts.
    pub(super) fn forget(&self) {
        self.names.clear();
        self.bodies.clear();
    }
}

/// Most bodies remembered; what comes later is looked into each time.
const MAX_BODIES: usize = 10_000;
