//! Keys that are placed by their names, before the ring is asked: those of a pattern are together
//! on one node, or left to the ring.

use super::families::Name;
use crate::glob::{self, Case};

/// The patterns in their order; the first that matches a key decides.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    patterns: Vec<Route>,
    /// A set of pairs of bytes, see [`place`]: those that a key of some route may begin with.
    starts: [u64; 4],
    /// Whether kombu's queues of one name are treated as one.
    joins_priorities: bool,
}

#[derive(Clone, Debug)]
struct Route {
    pattern: Box<[u8]>,
    /// Bytes of the pattern before its first special one; they stand for themselves.
    literal: usize,
    /// The first eight of them as a number, and which of its bits count: most keys that do not
    /// match differ here, and the pattern need not be looked at.
    head: u64,
    mask: u64,
    to: Target,
}

/// Where a key belongs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// Index of the node.
    Node(usize),
    /// Where the ring has it.
    Ring,
    /// Where another name belongs.
    Named(Name),
}

impl Routes {
    /// Adds a route behind those that are there.
    pub(super) fn push(&mut self, pattern: &[u8], to: Target) {
        let special = |byte: &u8| b"*?[\\".contains(byte);
        let literal = pattern.iter().position(special).unwrap_or(pattern.len());
        match pattern.get(..literal) {
            Some([first, second, ..]) => self.set(*first, *second),
            Some([first]) => (0..=u8::MAX).for_each(|second| self.set(*first, second)),
            _ => self.starts = [u64::MAX; 4],
        }
        self.patterns.push(Route {
            pattern: pattern.into(),
            literal,
            head: head(pattern.get(..literal).unwrap_or_default()),
            mask: head(&vec![0xff; literal]),
            to,
        });
    }

    /// Places the queues of all priorities by the name that they share.
    pub(super) fn join_priorities(&mut self) {
        self.joins_priorities = true;
    }

    /// The part of `key` that decides where it is: kombu calls the queue of priority 3 of `mail`
    /// `mail\x06\x163`, and counts the queues of one name in one transaction.
    #[inline]
    pub(super) fn name<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        match key {
            [name @ .., 0x06, 0x16, b'0'..=b'9'] if self.joins_priorities => name,
            _ => key,
        }
    }

    /// What the first route says that matches `key`, if there is one.
    ///
    /// Costs one look for a key that begins as no pattern does, else a comparison with each.
    #[inline]
    pub(super) fn target(&self, key: &[u8]) -> Option<Target> {
        let may_match = match key {
            [first, second, ..] => {
                let (word, bit) = place(*first, *second);
                self.starts.get(word).is_some_and(|word| word & bit != 0)
            }
            _ => true,
        };
        if may_match { self.search(key) } else { None }
    }

    #[inline(never)]
    fn search(&self, key: &[u8]) -> Option<Target> {
        let begin = head(key);
        let mut routes = self.patterns.iter();
        let found = routes.find(|route| begin & route.mask == route.head && route.matches(key));
        Some(found?.to)
    }

    fn set(&mut self, first: u8, second: u8) {
        let (word, bit) = place(first, second);
        if let Some(word) = self.starts.get_mut(word) {
            *word |= bit;
        }
    }

    /// The node of whatever no route before `*` matches, if that has one.
    pub(super) fn of_rest(&self) -> Option<usize> {
        let mut routes = self.patterns.iter();
        let all = |route: &&Route| route.is_prefix() && route.literal == 0;
        match routes.find(all)?.to {
            Target::Node(node) => Some(node),
            _ => None,
        }
    }

    /// What holds for every key that begins with `start`.
    pub(super) fn of_all(&self, start: &[u8]) -> All {
        for route in &self.patterns {
            let literal = route.literal();
            if route.is_prefix() && start.starts_with(literal) {
                return match route.to {
                    Target::Node(node) => All::Node(node),
                    Target::Ring => All::Ring,
                    Target::Named(_) => All::Differs,
                };
            }
            if literal.starts_with(start) || start.starts_with(literal) {
                return All::Differs;
            }
        }
        All::Ring
    }
}

impl Route {
    fn matches(&self, key: &[u8]) -> bool {
        key.starts_with(self.literal())
            && (self.is_prefix() || glob::matches(&self.pattern, key, Case::Exact))
    }

    fn literal(&self) -> &[u8] {
        self.pattern.get(..self.literal).unwrap_or_default()
    }

    /// Whether the pattern is a literal and a star.
    fn is_prefix(&self) -> bool {
        self.pattern.get(self.literal..) == Some(b"*")
    }
}

/// Where the keys are that begin with the same bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum All {
    /// On one node.
    Node(usize),
    /// Where the ring has them.
    Ring,
    /// Not all on the same node.
    Differs,
}

/// Word and bit of two bytes in a set; several pairs share one.
fn place(first: u8, second: u8) -> (usize, u64) {
    let hash = first.wrapping_mul(31).wrapping_add(second);
    (usize::from(hash >> 6), 1 << (hash & 63))
}

/// The first eight bytes as a number, zeros where there are fewer.
fn head(bytes: &[u8]) -> u64 {
    if let Some(first) = bytes.first_chunk::<8>() {
        return u64::from_le_bytes(*first);
    }
    let bytes = bytes.iter().rev();
    bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(patterns: &[(&str, Option<usize>)]) -> Routes {
        let mut routes = Routes::default();
        for (pattern, node) in patterns {
            routes.push(pattern.as_bytes(), node.map_or(Target::Ring, Target::Node));
        }
        routes
    }

    fn node(routes: &Routes, key: &str) -> Option<usize> {
        match routes.target(key.as_bytes()) {
            Some(Target::Node(node)) => Some(node),
            _ => None,
        }
    }

    #[test]
    fn the_first_pattern_that_matches_decides() {
        let mut routes = routes(&[
            ("a:x:*", None),
            ("a:*", Some(1)),
            ("b", Some(2)),
            (r"\*c", Some(3)),
            ("[de]f", Some(4)),
        ]);
        for (key, expected) in [
            ("a:x:1", None),
            ("a:y", Some(1)),
            ("a", None),
            ("b", Some(2)),
            ("bb", None),
            ("*c", Some(3)),
            ("ac", None),
            ("ef", Some(4)),
            ("", None),
            ("a\0:y", None),
        ] {
            assert_eq!(node(&routes, key), expected, "{key}");
        }
        routes.push(b"long:prefix:*", Target::Node(6));
        for (key, expected) in [
            ("long:prefix:1", Some(6)),
            ("long:pre", None),
            ("long:prefab", None),
        ] {
            assert_eq!(node(&routes, key), expected, "{key}");
        }
        assert_eq!(routes.of_rest(), None);
        routes.push(b"*", Target::Node(5));
        assert_eq!(routes.of_rest(), Some(5));
        for key in ["", "bb", "a"] {
            assert_eq!(node(&routes, key), Some(5), "{key}");
        }
        assert_eq!(node(&Routes::default(), "a"), None);
    }

    #[test]
    fn keys_that_begin_alike_are_known_to_be_together() {
        let routes = routes(&[("a:x:*", None), ("a:*", Some(1)), ("b?", Some(2))]);
        for (start, all) in [
            ("a:x:1", All::Ring),
            ("a:y", All::Node(1)),
            ("a:", All::Differs),
            ("b", All::Differs),
            ("c", All::Ring),
            ("", All::Differs),
        ] {
            assert_eq!(routes.of_all(start.as_bytes()), all, "{start:?}");
        }
    }
}
