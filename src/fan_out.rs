//! One reply made of the replies of several nodes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;

use crate::flush::RESERVED_PREFIX;
use crate::node::Came;
use crate::resp::{Protocol, encode, reply};
use crate::session::Place;

/// Collects the parts of one reply; the last part makes the reply.
pub struct Gather(Mutex<Option<Open>>);

struct Open {
    parts: Parts,
    missing: usize,
    /// Most bytes of all parts.
    limit: usize,
    place: Place,
    merge: Merge,
}

/// Makes the reply from its parts and fills the place with it (or sees to it that somebody does).
pub type Merge = Box<dyn FnOnce(&Parts, Place) -> Option<Waker> + Send>;

/// The parts of a reply, each a RESP3 frame.
#[derive(Debug, Default)]
pub struct Parts {
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl Gather {
    /// Waits for `count` parts (at least one).
    pub fn new(count: usize, place: Place, merge: Merge) -> Arc<Self> {
        let parts = Parts {
            bytes: Vec::new(),
            ranges: vec![0..0; count],
        };
        Arc::new(Self(Mutex::new(Some(Open {
            parts,
            missing: count,
            limit: place.limit(),
            place,
            merge,
        }))))
    }

    /// Takes part `index`, which comes once. Returns whom to wake when it was the last, or when
    /// the parts are more than the client may leave unread: then its session ends.
    pub fn part(&self, index: usize, frame: &[u8], came: Came) -> Option<Waker> {
        let mut gather = self.0.lock();
        let open = gather.as_mut()?;
        // Nodes are asked at once: the reply waits for the slowest.
        open.place.came(came);
        let start = open.parts.bytes.len();
        if start + frame.len() > open.limit {
            // Many keys of large values: the reply would be many times what Redis sent us.
            let Open { place, .. } = gather.take()?;
            drop(gather);
            return place.overrun();
        }
        open.parts.bytes.extend_from_slice(frame);
        *open.parts.ranges.get_mut(index)? = start..open.parts.bytes.len();
        open.missing -= 1;
        if open.missing > 0 {
            return None;
        }
        let Open {
            parts,
            place,
            merge,
            ..
        } = gather.take()?;
        drop(gather);
        merge(&parts, place)
    }
}

impl fmt::Debug for Gather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.0.lock().as_ref().map_or(0, |open| open.missing);
        f.debug_struct("Gather")
            .field("missing", &missing)
            .finish_non_exhaustive()
    }
}

impl Parts {
    /// The frames, in the order of their indices.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.ranges
            .iter()
            .map(|range| self.bytes.get(range.clone()).unwrap_or_default())
    }

    /// The first part that is an error, if any is: then it is the whole reply.
    pub fn error(&self) -> Option<&[u8]> {
        self.frames().find(|frame| reply::is_error(frame))
    }
}

/// A merge that gets only parts without an error among them.
pub fn merged(make: impl FnOnce(&Parts, &mut Vec<u8>) + Send + 'static) -> Merge {
    Box::new(move |parts, place| {
        if let Some(error) = parts.error() {
            return place.fill(error);
        }
        let mut frame = Vec::new();
        make(parts, &mut frame);
        place.fill(&frame)
    })
}

/// The parts are integers: their sum.
pub fn sum() -> Merge {
    merged(|parts, out| encode::integer(out, parts.frames().filter_map(reply::integer).sum()))
}

/// All parts say the same: the first.
pub fn first() -> Merge {
    merged(|parts, out| out.extend_from_slice(parts.frames().next().unwrap_or_default()))
}

/// Each part is an element of an array.
pub fn array() -> Merge {
    merged(|parts, out| {
        encode::array(out, parts.frames().len());
        out.extend_from_slice(&parts.frames().collect::<Vec<_>>().concat());
    })
}

/// The parts are arrays of keys: all of them but Tally's own.
pub fn keys() -> Merge {
    merged(|parts, out| append_keys(parts.frames(), out))
}

/// The parts are, for each node, its number of keys and how many of them are Tally's own.
pub fn count_keys() -> Merge {
    merged(|parts, out| {
        let numbers: Vec<_> = parts.frames().filter_map(reply::integer).collect();
        let each = numbers.chunks(2).map(|pair| match pair {
            [all, own] => all - own,
            _ => 0,
        });
        encode::integer(out, each.sum());
    })
}

/// Appends the keys in these arrays as one array, without Tally's own.
fn append_keys<'a>(arrays: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    let own = |key: &&[u8]| reply::text(key).is_some_and(|key| key.starts_with(RESERVED_PREFIX));
    let keys = arrays.filter_map(reply::elements).flatten();
    let keys: Vec<&[u8]> = keys.filter(|key| !own(key)).collect();
    encode::array(out, keys.len());
    out.extend(keys.concat());
}

/// The parts are arrays of 0 and 1: 1 where all have it, and where `sure` says so.
pub fn all_or(sure: Vec<bool>) -> Merge {
    merged(move |parts, out| {
        let flags = |frame| {
            reply::elements(frame)
                .into_iter()
                .flatten()
                .map(reply::integer)
        };
        let mut known: Vec<bool> = Vec::new();
        for (index, frame) in parts.frames().enumerate() {
            let flags = flags(frame).map(|flag| flag == Some(1));
            if index == 0 {
                known = flags.collect();
            } else {
                known
                    .iter_mut()
                    .zip(flags)
                    .for_each(|(known, flag)| *known &= flag);
            }
        }
        known
            .iter_mut()
            .zip(sure)
            .for_each(|(known, sure)| *known |= sure);
        encode::array(out, known.len());
        for known in known {
            encode::integer(out, i64::from(known));
        }
    })
}

/// The parts are strings or nulls: a string, with the parts tried from `start` on.
pub fn any_string(start: usize) -> Merge {
    merged(move |parts, out| {
        let frames: Vec<_> = parts.frames().collect();
        let turned = frames.iter().cycle().skip(start).take(frames.len());
        match turned.into_iter().find(|frame| !reply::is_null(frame)) {
            Some(frame) => out.extend_from_slice(frame),
            None => encode::null(out, Protocol::Resp3),
        }
    })
}

/// The only part is a node's answer to SCAN: its cursor becomes one that names the node.
pub fn scan(node: usize, nodes: usize) -> Merge {
    merged(move |parts, out| {
        let frame = parts.frames().next().unwrap_or_default();
        let mut elements = reply::elements(frame).into_iter().flatten();
        let cursor = elements.next().and_then(reply::text).and_then(parse_cursor);
        let next = cursor.and_then(|cursor| {
            Cursor {
                node,
                inner: cursor,
            }
            .after(nodes)
        });
        let (Some(next), Some(keys)) = (next, elements.next()) else {
            return encode::error(
                out,
                "ERR the node's cursor does not fit into one of Tally's",
            );
        };
        encode::array(out, 2);
        encode::bulk(out, itoa::Buffer::new().format(next).as_bytes());
        append_keys(std::iter::once(keys), out);
    })
}

/// A place in a scan over several nodes: `inner * nodes + node` for clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cursor {
    /// Index of the node that is scanned.
    pub node: usize,
    /// The node's own cursor.
    pub inner: u64,
}

impl Cursor {
    /// Reads a client's cursor. Zero begins at the first node.
    pub fn of(cursor: u64, nodes: usize) -> Self {
        let count = u64::try_from(nodes).unwrap_or(u64::MAX).max(1);
        let node = usize::try_from(cursor % count).unwrap_or(0);
        Self {
            node,
            inner: cursor / count,
        }
    }

    /// What the client sends next, when the node answered with `self.inner`; `None` when it does
    /// not fit 64 bits, which takes a table of 2^64 / nodes places.
    fn after(self, nodes: usize) -> Option<u64> {
        let next = match self.inner {
            0 if self.node + 1 == nodes => return Some(0),
            0 => Self {
                node: self.node + 1,
                inner: 0,
            },
            _ => self,
        };
        let place = next.inner.checked_mul(u64::try_from(nodes).ok()?)?;
        place.checked_add(u64::try_from(next.node).ok()?)
    }
}

/// Reads a cursor as Redis does (`parseScanCursorOrReply` in `db.c`): an unsigned decimal.
pub fn parse_cursor(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text)
        .ok()
        .filter(|text| !text.starts_with('+'))?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_visits_every_node_and_ends() {
        // Each node gives its own cursors 5, 9, 0.
        let (mut cursor, mut seen) = (0, Vec::new());
        loop {
            let at = Cursor::of(cursor, 3);
            seen.push((at.node, at.inner));
            let inner = match at.inner {
                0 => 5,
                5 => 9,
                _ => 0,
            };
            cursor = Cursor {
                node: at.node,
                inner,
            }
            .after(3)
            .unwrap();
            if cursor == 0 {
                break;
            }
        }
        let node = |node| [(node, 0), (node, 5), (node, 9)];
        assert_eq!(seen, [node(0), node(1), node(2)].concat());
    }

    proptest::proptest! {
        #[test]
        fn a_client_s_cursor_leads_back_to_its_place(
            nodes in 1_usize..2000,
            node in 0_usize..2000,
            inner: u64,
        ) {
            let at = Cursor { node: node % nodes, inner };
            match at.after(nodes) {
                Some(0) => assert_eq!((at.node + 1, at.inner), (nodes, 0)),
                Some(next) if inner == 0 => {
                    let next_node = Cursor { node: at.node + 1, inner };
                    assert_eq!(Cursor::of(next, nodes), next_node);
                }
                Some(next) => assert_eq!(Cursor::of(next, nodes), at),
                None => {
                    let place = u128::from(inner) * u128::try_from(nodes).unwrap()
                        + u128::try_from(at.node).unwrap();
                    assert!(u64::try_from(place).is_err());
                }
            }
        }
    }

    #[test]
    fn a_cursor_that_does_not_fit_is_refused() {
        assert_eq!(
            Cursor {
                node: 0,
                inner: u64::MAX / 2
            }
            .after(3),
            None
        );
    }
}
