//! Which node a key belongs to: a ketama ring, placed exactly as twemproxy 0.5.0 places it for
//! the same names, weights, hash and hash tag. Pure: names and numbers only.
//!
//! ```text
//! key --hash tag--> part of the key --hash--> place --first point at or after it--> node
//!
//!   0        p0      p1          p2                      pn   2^32
//!   |--------*-------*-----------*---------- ... --------*----|
//!            ^ b     ^ a         ^ a  each point has an owner ^ wraps to p0
//! ```
//!
//! Only names and weights place a node, never its address or its turn in the configuration; so a
//! node can move to another machine and keep its keys. A node that is down keeps its place too:
//! there is no ejection here, since a counter that continues on a neighbour is split in two.
//!
//! Keys that match a route are placed by it, and not by the ring.

mod families;
mod hash;
mod routes;

pub use hash::{Hash, UnknownHash};

use families::{FAMILIES, PARTS};
use routes::{All, Routes, Target};

/// Where every key belongs. Never changes; a new configuration makes a new one.
#[derive(Clone, Debug)]
pub struct Ring {
    hash: Hash,
    hash_tag: Option<(u8, u8)>,
    /// By place, ascending; none when there is one node.
    points: Box<[Point]>,
    /// For each stretch of places with the same highest bits, the node that owns all of it, or
    /// [`SEVERAL`].
    owners: Box<[u16]>,
    /// By how much a place is shifted to keep just those bits.
    shift: u32,
    /// Asked before the ring.
    routes: Routes,
    /// Asked for channels, after `routes` and before the ring.
    channels: Routes,
    /// First keys of scripts that are given values in the places of the others.
    passing_values: Routes,
}

impl Ring {
    /// Places `nodes`, each a name and a weight of at least 1, in the order of the configuration.
    ///
    /// A node has about 160 points per average weight. One of a weight under 1/40 of the average
    /// gets no point and no key, as in twemproxy.
    ///
    /// `hash_tag` is a pair of bytes, which may be equal: of a key that has a non-empty part
    /// between the first opening byte and the next closing one, only that part is hashed.
    ///
    /// # Errors
    ///
    /// When there is no node, two have one name, a name is empty or longer than 255 bytes
    /// (twemproxy cuts the labels of such), a weight is 0, or the weights add up to 2^32 or more.
    pub fn new(
        nodes: &[(&str, u32)],
        hash: Hash,
        hash_tag: Option<(u8, u8)>,
    ) -> Result<Self, RingError> {
        let points = if let [only] = nodes {
            check(&[*only])?;
            Vec::new() // nothing to look up
        } else {
            points(nodes, check(nodes)?)
        };
        // Eight stretches for each point: nine of ten have one owner. So a search seldom looks at
        // points, and the branch is well predicted.
        let wanted = u32::try_from(points.len() * 8).unwrap_or(u32::MAX);
        let stretches = wanted.clamp(2, 1 << 16).next_power_of_two();
        let shift = 32 - stretches.trailing_zeros();
        let owners = (0..stretches).map(|stretch| owner_of_all(&points, stretch, shift));
        Ok(Self {
            hash,
            hash_tag,
            owners: owners.collect(),
            shift,
            points: points.into(),
            routes: Routes::default(),
            channels: Routes::default(),
            passing_values: Routes::default(),
        })
    }

    /// Adds a route behind those that it has. Every key that matches `pattern` (as in `KEYS`,
    /// case-sensitive) and none before belongs to the node `index`, or, for `None`, to the one that
    /// the ring gives. A hash tag in such a key changes nothing.
    #[must_use]
    pub fn with_route(mut self, pattern: &[u8], index: Option<usize>) -> Self {
        let to = index.map_or(Target::Ring, Target::Node);
        self.routes.push(pattern, to);
        self
    }

    /// Adds a route for each pattern of the families of keys that are kept together. The keys of a
    /// family are on the node that the ring gives for the family's name, those that only belong to
    /// another key where that is. And kombu's queues that differ in their priority alone are on one
    /// node, whatever their name.
    #[must_use]
    pub fn with_families(mut self) -> Self {
        for family in FAMILIES {
            let to = Target::Node(self.place(family.name.as_bytes()));
            for pattern in family.keys {
                self.routes.push(pattern.as_bytes(), to);
                if family.passes_values {
                    self.passing_values.push(pattern.as_bytes(), to);
                }
            }
            for pattern in family.channels {
                self.channels.push(pattern.as_bytes(), to);
            }
        }
        for part in PARTS {
            let to = Target::Named(part.name);
            self.routes.push(part.keys.as_bytes(), to);
        }
        self.routes.join_priorities();
        self
    }

    /// Index of the node that `key` belongs to, into the nodes given to [`Ring::new`].
    ///
    /// Costs one hash and nearly always one look; see `benches/core.rs`.
    #[inline]
    pub fn node(&self, key: &[u8]) -> usize {
        if self.points.is_empty() {
            return 0;
        }
        let key = self.routes.name(key);
        match self.routes.target(key) {
            None | Some(Target::Ring) => self.place(key),
            Some(Target::Node(index)) => index,
            Some(Target::Named(name)) => self.node_of_name(&name.of(key)),
        }
    }

    #[inline(never)]
    fn node_of_name(&self, name: &[u8]) -> usize {
        self.node(name)
    }

    /// Whether a script whose first key this is, is given values in the places of its other keys.
    pub fn passes_values(&self, first: &[u8]) -> bool {
        self.passing_values.target(first).is_some()
    }

    /// Index of the node of what names no key, but may use some: that of the route `*`, else the
    /// first one.
    pub fn keyless(&self) -> usize {
        self.routes.of_rest().unwrap_or(0)
    }

    /// Index of the node of a channel: where a key of its name would be, but for the channels of
    /// families.
    pub fn channel(&self, name: &[u8]) -> usize {
        if self.points.is_empty() {
            return 0;
        }
        match (self.routes.target(name), self.channels.target(name)) {
            (None | Some(Target::Ring), Some(Target::Node(index))) => index,
            _ => self.node(name),
        }
    }

    /// Whether every key that `pattern` can name, which has one `*` or none, belongs to the node
    /// `index`.
    pub fn holds_all(&self, pattern: &[u8], index: usize) -> bool {
        if self.points.is_empty() {
            return true;
        }
        let Some(star) = memchr::memchr(b'*', pattern) else {
            return self.node(pattern) == index;
        };
        match self.routes.of_all(pattern.get(..star).unwrap_or_default()) {
            All::Node(node) => node == index,
            All::Ring => {
                let tag = self.tag(pattern).filter(|tag| !tag.contains(&b'*'));
                tag.is_some() && self.place(pattern) == index
            }
            All::Differs => false,
        }
    }

    /// Index of the node that the ring has for a key.
    #[inline]
    fn place(&self, key: &[u8]) -> usize {
        let place = self.hash.of(self.hashed_part(key));
        let stretch = usize::try_from(place >> self.shift).unwrap_or_default();
        match self.owners.get(stretch) {
            Some(&owner) if owner != SEVERAL => usize::from(owner),
            _ => owner(&self.points, place),
        }
    }

    /// The part of `key` in its hash tag, which alone decides where it belongs, if it has one.
    #[inline]
    pub fn tag<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        let (open, close) = self.hash_tag?;
        if lacks(key, open) {
            return None;
        }
        let rest = key.get(memchr::memchr(open, key)? + 1..)?;
        let part = rest.get(..memchr::memchr(close, rest)?)?;
        Some(part).filter(|part| !part.is_empty())
    }

    /// The part of `key` that is hashed: what is in its hash tag if it has one, else all of it.
    fn hashed_part<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        self.tag(key).unwrap_or(key)
    }
}

/// Why nodes make no ring.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RingError {
    /// The list is empty.
    #[error("a ring needs at least one node")]
    NoNodes,
    /// Two nodes would share every point.
    #[error("two nodes are named \"{0}\"")]
    DuplicateName(String),
    /// Empty, or longer than [`MAX_NAME_BYTES`].
    #[error("the node name \"{0}\" is not 1 to {MAX_NAME_BYTES} bytes long")]
    NameLength(String),
    /// A node without a share.
    #[error("the node \"{0}\" has weight 0; the least is 1")]
    ZeroWeight(String),
    /// The sum must fit 32 bits, as in twemproxy.
    #[error("the weights of the nodes add up to {0}; the most is 4294967295")]
    TotalWeight(u64),
}

/// Longest name of a node. twemproxy labels points in a buffer of 273 bytes, made for a host
/// name of 255, and cuts what does not fit; below this length nothing is cut.
pub const MAX_NAME_BYTES: usize = 255;

/// Labels that a node of average weight has. Each is hashed to 4 points, which makes
/// libmemcached's 160 points per node.
const LABELS_PER_NODE: f32 = 40.0;

/// One place on the ring and whose it is: an index into the nodes given.
#[derive(Clone, Copy, Debug)]
struct Point {
    place: u32,
    owner: usize,
}

/// Says that a stretch has places of several nodes.
const SEVERAL: u16 = u16::MAX;

/// The node that owns a place: the owner of the first point at or after it, else that of the very
/// first.
fn owner(points: &[Point], place: u32) -> usize {
    let at = points.partition_point(|point| point.place < place);
    let point = points.get(at).or_else(|| points.first());
    point.map_or(0, |point| point.owner)
}

/// The node that owns all places of a stretch, or [`SEVERAL`].
fn owner_of_all(points: &[Point], stretch: u32, shift: u32) -> u16 {
    let (first, last) = (stretch << shift, stretch << shift | ((1 << shift) - 1));
    let only = owner(points, first);
    let from = points.partition_point(|point| point.place < first);
    let inside = points
        .iter()
        .skip(from)
        .take_while(|point| point.place < last);
    let is_only =
        owner(points, last) == only && inside.into_iter().all(|point| point.owner == only);
    u16::try_from(only)
        .ok()
        .filter(|_| is_only)
        .unwrap_or(SEVERAL)
}

/// Whether a short key certainly lacks such a byte. For the usual key, without a tag, that takes a
/// third of the instructions of `memchr`, which is made for long texts.
#[inline]
fn lacks(key: &[u8], byte: u8) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let Some(last) = key.last_chunk::<8>().filter(|_| key.len() <= 64) else {
        return false;
    };
    // Bytes that are equal become zero, and a zero byte borrows from its highest bit.
    let hit = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word) ^ (LOW * u64::from(byte));
        word.wrapping_sub(LOW) & !word & HIGH
    };
    let mut hits = hit(last);
    for word in key.as_chunks::<8>().0 {
        hits |= hit(word);
    }
    hits == 0
}

/// Checks names and weights; returns the total weight.
fn check(nodes: &[(&str, u32)]) -> Result<u32, RingError> {
    if nodes.is_empty() {
        return Err(RingError::NoNodes);
    }
    let mut names = std::collections::HashSet::new();
    for &(name, weight) in nodes {
        if !(1..=MAX_NAME_BYTES).contains(&name.len()) {
            return Err(RingError::NameLength(name.to_owned()));
        }
        if weight == 0 {
            return Err(RingError::ZeroWeight(name.to_owned()));
        }
        if !names.insert(name) {
            return Err(RingError::DuplicateName(name.to_owned()));
        }
    }
    let total: u64 = nodes.iter().map(|&(_, weight)| u64::from(weight)).sum();
    u32::try_from(total).map_err(|_| RingError::TotalWeight(total))
}

/// All points, by place.
fn points(nodes: &[(&str, u32)], total_weight: u32) -> Vec<Point> {
    // twemproxy sorts its servers by length of name, then by name, before it places them. That
    // shows where two points fall on one place: its sort is stable, and the first one is hit.
    let mut by_name: Vec<_> = nodes.iter().copied().enumerate().collect();
    by_name.sort_by_key(|&(_, (name, _))| (name.len(), name));
    let mut points = Vec::with_capacity(nodes.len() * 160);
    for (owner, (name, weight)) in by_name {
        for label in 0..labels(weight, total_weight, nodes.len()) {
            let digest = hash::md5_words(format!("{name}-{label}").as_bytes());
            points.extend(digest.map(|place| Point { place, owner }));
        }
    }
    points.sort_by_key(|point| point.place);
    points
}

/// How many labels a node has, for its share of the total weight.
///
/// In twemproxy's arithmetic, since its rounding shows: 32-bit floats, with 1e-10 added in 64
/// bits. So 25 nodes of equal weight have 39 labels each, not 40.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "rounds where twemproxy rounds; the result is never negative"
)]
fn labels(weight: u32, total_weight: u32, nodes: usize) -> u32 {
    let share = weight as f32 / total_weight as f32;
    let labels = share * LABELS_PER_NODE * nodes as f32;
    (f64::from(labels) + 1e-10) as f32 as u32
}
