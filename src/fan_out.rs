//! One reply made of the replies of several nodes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use memchr::memmem;
use parking_lot::Mutex;

use crate::flush::RESERVED_PREFIX;
use crate::key::Key;
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

/// Makes the reply from its parts and fills the place with it, at once or later.
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

    /// Takes part `index`, which comes once. Returns whom to wake when it was the last one, or when
    /// the parts are larger than the client may leave unread: then its session ends.
    pub fn part(&self, index: usize, frame: &[u8], came: Came) -> Option<Waker> {
        let mut gather = self.0.lock();
        let open = gather.as_mut()?;
        // Nodes are asked at once: the reply waits for the slowest.
        open.place.came(came);
        let start = open.parts.bytes.len();
        if start + frame.len() > open.limit {
            // For many keys of large values the reply would be many times what Redis sent us.
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

    /// The first part that is an error, if there is one: then it is the whole reply.
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

/// The parts are integers: what `fold` makes of them. Or arrays of integers: the same for each
/// place.
pub fn folded(fold: fn(i64, i64) -> i64) -> Merge {
    merged(move |parts, out| {
        let is_list = parts.frames().any(|frame| reply::elements(frame).is_some());
        let mut whole: Vec<i64> = Vec::new();
        for (index, frame) in parts.frames().enumerate() {
            let numbers = match reply::elements(frame) {
                Some(elements) => elements.filter_map(reply::integer).collect(),
                None => Vec::from_iter(reply::integer(frame)),
            };
            if index == 0 {
                whole = numbers;
            } else {
                let pairs = whole.iter_mut().zip(numbers);
                pairs.for_each(|(whole, number)| *whole = fold(*whole, number));
            }
        }
        if is_list {
            encode::array(out, whole.len());
            for number in whole {
                encode::integer(out, number);
            }
        } else {
            encode::integer(out, whole.first().copied().unwrap_or(0));
        }
    })
}

/// The parts are lists: one with the elements of all. Of something else, one for each part.
pub fn joined() -> Merge {
    merged(|parts, out| {
        let is_list = |frame: &&[u8]| frame.starts_with(b"*") || frame.starts_with(b"~");
        let frames: Vec<&[u8]> = parts.frames().collect();
        let elements: Vec<&[u8]> = if frames.iter().all(is_list) {
            let lists = frames.into_iter().filter_map(reply::elements);
            lists.flatten().collect()
        } else {
            frames
        };
        encode::array(out, elements.len());
        out.extend(elements.concat());
    })
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

/// Each part is an array. `positions` has a number for each of its elements: the whole has the
/// elements of all parts in the order of these numbers.
pub fn interleaved(positions: Vec<Vec<usize>>) -> Merge {
    merged(move |parts, out| {
        let mut elements: Vec<(usize, &[u8])> = Vec::new();
        for (frame, positions) in parts.frames().zip(positions) {
            let frames = reply::elements(frame).into_iter().flatten();
            elements.extend(positions.into_iter().zip(frames));
        }
        elements.sort_unstable_by_key(|(position, _)| *position);
        encode::array(out, elements.len());
        for (_, element) in elements {
            out.extend_from_slice(element);
        }
    })
}

/// The parts are what a script says that has looked for keys on each node: counts are added up,
/// lists of keys put one behind the other, without Tally's own. What else it says is the first node's.
/// A node that has found nothing may have failed by that (`redis.call('DEL', unpack({}))`), and is
/// left out where another has found something.
pub fn swept() -> Merge {
    Box::new(|parts, place| {
        let found_nothing =
            |frame: &[u8]| reply::is_error(frame) && memmem::find(frame, NO_ARGUMENTS).is_some();
        let mut said: Vec<&[u8]> = parts.frames().collect();
        if said.iter().any(|frame| !found_nothing(frame)) {
            said.retain(|frame| !found_nothing(frame));
        }
        let all = |is: fn(&[u8]) -> bool| said.iter().all(|frame| is(frame));
        // An array within an array is no list of keys: the reply of a `SCAN`, say.
        let is_list = |frame: &[u8]| {
            let elements = reply::elements(frame).filter(|_| frame.starts_with(b"*"));
            elements.is_some_and(|mut elements| elements.all(|key| reply::text(key).is_some()))
        };
        let mut out = Vec::new();
        if let Some(error) = said.iter().find(|frame| reply::is_error(frame)) {
            out.extend_from_slice(error);
        } else if all(|frame| reply::integer(frame).is_some()) {
            let counts = said.iter().filter_map(|frame| reply::integer(frame));
            encode::integer(&mut out, counts.fold(0, i64::saturating_add));
        } else if all(is_list) {
            append_keys(said.iter().copied(), &mut out);
        } else {
            out.extend_from_slice(said.first().copied().unwrap_or_default());
        }
        place.fill(&out)
    })
}

/// In the error of a call without arguments in a script. Valkey leaves out the "Redis" that follows.
const NO_ARGUMENTS: &[u8] = b"Wrong number of args calling ";

/// The parts are arrays of keys: all of them but Tally's own.
pub fn keys() -> Merge {
    merged(|parts, out| append_keys(parts.frames(), out))
}

/// The parts are two for each node: its number of keys, and how many of them are Tally's own.
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

/// The parts are strings or nulls: the first string, with the parts tried from `start` on.
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

/// The parts are the answers to `SCAN` by the node of `from` and by those that follow it. The reply
/// has the keys of as many nodes as it takes to give `count`, and the cursor behind the last of
/// these.
pub fn scan(from: Cursor, nodes: usize, count: usize) -> Merge {
    Box::new(move |parts, place| place.fill(&scanned(parts.frames(), from, nodes, count)))
}

fn scanned<'p>(
    frames: impl Iterator<Item = &'p [u8]>,
    from: Cursor,
    nodes: usize,
    count: usize,
) -> Vec<u8> {
    let mut frame = Vec::new();
    let (mut keys, mut found) = (Vec::new(), 0);
    let mut next = None;
    for (answer, node) in frames.zip(from.node..) {
        if reply::is_error(answer) {
            if node == from.node {
                return answer.to_vec();
            }
            // `next` is the beginning of this node: the next call meets the error.
            break;
        }
        let mut elements = reply::elements(answer).into_iter().flatten();
        let inner = elements.next().and_then(reply::text).and_then(parse_cursor);
        let (Some(inner), Some(here)) = (inner, elements.next()) else {
            next = None;
            break;
        };
        found += reply::elements(here).into_iter().flatten().count();
        keys.push(here);
        next = Cursor { node, inner }.after(nodes);
        if inner != 0 || found >= count {
            break;
        }
    }
    let Some(next) = next else {
        encode::error(
            &mut frame,
            "ERR the node's cursor does not fit into one of Tally's",
        );
        return frame;
    };
    encode::array(&mut frame, 2);
    encode::number(&mut frame, next);
    append_keys(keys.into_iter(), &mut frame);
    frame
}

/// The entries of streams that were read in parts, each of which is the reply of `XREAD` for some
/// of them. One map in the order of `order`, which gives each stream with the index of its part.
/// `None`: there are no entries, or only errors.
pub fn streams(order: &[(usize, Key)], parts: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut parts: Vec<Vec<(&[u8], &[u8])>> = parts
        .iter()
        .map(|part| {
            let mut pairs = Vec::new();
            let mut fields = reply::elements(part).into_iter().flatten();
            while let (Some(key), Some(entries)) = (fields.next(), fields.next()) {
                pairs.push((key, entries));
            }
            pairs
        })
        .collect();
    let mut found = Vec::new();
    for (index, key) in order {
        let part = parts.get_mut(*index)?;
        let of_key = |(name, _): &(&[u8], &[u8])| reply::text(name) == Some(key.as_bytes());
        // A stream that is named twice is there twice.
        if let Some(at) = part.iter().position(of_key) {
            found.push(part.remove(at));
        }
    }
    if found.is_empty() {
        return None;
    }
    let mut frame = Vec::new();
    encode::map(&mut frame, Protocol::Resp3, found.len());
    for (key, entries) in found {
        frame.extend_from_slice(key);
        frame.extend_from_slice(entries);
    }
    Some(frame)
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

/// Reads a cursor as Redis does (`parseScanCursorOrReply` in `db.c`, which calls `strtoul`): a
/// decimal with or without a sign, where `-1` is 2^64 - 1, and nothing at all is zero.
pub fn parse_cursor(text: &[u8]) -> Option<u64> {
    let (negative, digits) = match text {
        [] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    // `parse` would take a second sign.
    let digits = std::str::from_utf8(digits)
        .ok()
        .filter(|digits| !digits.starts_with('+'))?;
    let number: u64 = digits.parse().ok()?;
    Some(if negative {
        number.wrapping_neg()
    } else {
        number
    })
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

    #[track_caller]
    fn check_scan(answers: &[&str], count: usize, expected: &str) {
        let from = Cursor { node: 0, inner: 0 };
        let frames = answers.iter().map(|answer| answer.as_bytes());
        let made = scanned(frames, from, 3, count);
        assert_eq!(String::from_utf8_lossy(&made), expected);
    }

    #[test]
    fn a_scan_goes_on_to_the_next_node_until_it_has_enough() {
        let a = "*2\r\n$1\r\n0\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n";
        let c = "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nc\r\n";
        let none = "*2\r\n$1\r\n0\r\n*0\r\n";
        let begun = "*2\r\n$1\r\n4\r\n*1\r\n$1\r\nd\r\n";
        let abc = "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n";
        check_scan(&[a, c, none], 10, &format!("*2\r\n$1\r\n0\r\n{abc}"));
        // Cursors are inner * 3 + node.
        check_scan(&[a, c, none], 3, &format!("*2\r\n$1\r\n2\r\n{abc}"));
        let ab = "*2\r\n$1\r\na\r\n$1\r\nb\r\n";
        check_scan(&[a, c, none], 2, &format!("*2\r\n$1\r\n1\r\n{ab}"));
        let d = "*1\r\n$1\r\nd\r\n";
        check_scan(&[begun, c, none], 10, &format!("*2\r\n$2\r\n12\r\n{d}"));
        let abd = "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nd\r\n";
        check_scan(&[a, begun, c], 10, &format!("*2\r\n$2\r\n13\r\n{abd}"));
    }

    #[test]
    fn streams_come_in_the_order_of_the_request() {
        let order = [
            (0, Key::new(b"a")),
            (1, Key::new(b"b")),
            (0, Key::new(b"c")),
        ];
        let first = b"%2\r\n+a\r\n:1\r\n+c\r\n:3\r\n".to_vec();
        let second = b"%1\r\n+b\r\n:2\r\n".to_vec();
        let all = b"%3\r\n+a\r\n:1\r\n+b\r\n:2\r\n+c\r\n:3\r\n";
        assert_eq!(streams(&order, &[first.clone(), second]).unwrap(), all);
        let (none, error) = (b"_\r\n".to_vec(), b"-ERR no\r\n".to_vec());
        assert_eq!(
            streams(&order, &[first.clone(), none.clone()]).unwrap(),
            first
        );
        assert_eq!(streams(&order, &[none, error]), None);
    }

    #[test]
    fn a_scan_ends_before_a_node_that_fails_and_begins_there_the_next_time() {
        let a = "*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n";
        let away = "-ERR node b is unreachable (x)\r\n";
        let found = "*2\r\n$1\r\n1\r\n*1\r\n$1\r\na\r\n";
        check_scan(&[a, away, a], 10, found);
        check_scan(&[away, a, a], 10, away);
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
