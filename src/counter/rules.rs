//! How each key is treated: what is configured for all, and for those that match a pattern.

use std::time::{Duration, Instant};

use crate::glob::{self, Case};

/// What happens to increments of a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// Hot keys are answered here and flushed at an interval.
    Buffered,
    /// Nothing is acknowledged before Redis applied it; concurrent increments are combined.
    Exact,
    /// Everything is forwarded as it is, and nothing is kept.
    Through,
}

/// How one key is treated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// What happens to increments.
    pub mode: Mode,
    /// How long an answer of Redis may be repeated here; zero: not at all.
    pub lease: Duration,
    /// The same for a counter without pending increments.
    pub counter_lease: Duration,
    /// Within how long of the last increment the next one makes the key warm.
    pub touch: Duration,
    /// Where there are many keys: how many increments make the key warm, by a count that is halved
    /// every second.
    pub touches: u32,
    /// How long before its deadline the key stops being answered here.
    pub guard: Duration,
    /// How long the first increment of a key at rest waits for others, in the mode exact.
    pub window: Duration,
    /// Whether calls of limit scripts may be granted here.
    pub local_grants: bool,
    /// Where there are many keys, a warm key goes cold again after a batch that was the sum of
    /// fewer increments. 0: none does.
    pub worth: u32,
    /// Which of [`Rules::intervals`] its pending increments are flushed at.
    pub class: u8,
}

/// What is configured for a key, or for all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Treatment {
    /// What happens to increments.
    pub mode: Mode,
    /// How often pending increments are flushed.
    pub flush_interval: Duration,
    /// How long a value may be answered from here; zero: not at all.
    pub cache_ttl: Duration,
    /// How long the first increment of a key at rest waits for others, in the mode exact.
    pub window: Duration,
    /// Whether calls of limit scripts may be granted here, in the mode buffered.
    pub local_grants: bool,
}

/// The policies of all keys: of those that match a pattern, the first one first, and of all others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    patterns: Box<[(Box<[u8]>, Policy)]>,
    default: Policy,
    intervals: Box<[Duration]>,
    /// By class, as in [`Policy::guard`].
    guards: Box<[Duration]>,
}

impl Rules {
    /// Most patterns. Each may have a class of flushes of its own and the default has one, which
    /// makes 256.
    pub const MAX: usize = 255;

    /// `default` for every key that matches none of `patterns`; those beyond [`Rules::MAX`] are
    /// left out.
    pub fn new<'a>(
        default: Treatment,
        patterns: impl IntoIterator<Item = (&'a [u8], Treatment)>,
    ) -> Self {
        let mut intervals = Vec::new();
        let default = Policy::of(default, &mut intervals);
        let patterns = patterns
            .into_iter()
            .take(Self::MAX)
            .map(|(pattern, treatment)| (pattern.into(), Policy::of(treatment, &mut intervals)))
            .collect();
        Self {
            patterns,
            default,
            guards: intervals.iter().copied().map(guard).collect(),
            intervals: intervals.into(),
        }
    }

    /// One policy for all keys, flushed whenever the caller likes.
    pub(super) fn uniform(policy: Policy) -> Self {
        Self {
            patterns: Box::default(),
            default: Policy { class: 0, ..policy },
            intervals: Box::new([Duration::ZERO]),
            guards: Box::new([policy.guard]),
        }
    }

    /// How `key` is treated. Cost: a match with each pattern up to the one that holds; so it is
    /// asked only where a node will be asked too.
    #[inline]
    pub fn policy(&self, key: &[u8]) -> &Policy {
        if self.patterns.is_empty() {
            return &self.default;
        }
        self.patterns
            .iter()
            .find(|(pattern, _)| glob::matches(pattern, key, Case::Exact))
            .map_or(&self.default, |(_, policy)| policy)
    }

    /// How keys without a rule are treated.
    pub fn default_policy(&self) -> &Policy {
        &self.default
    }

    /// The distinct flush intervals, by class; the first is that of keys without a rule.
    pub fn intervals(&self) -> &[Duration] {
        &self.intervals
    }

    /// Over how long a flush of a class is spread: half its interval, so that what is acknowledged
    /// is sent within one and a half intervals.
    pub fn spread(&self, class: u8) -> Duration {
        self.intervals
            .get(usize::from(class))
            .map_or(Duration::ZERO, |interval| *interval / 2)
    }

    /// [`Policy::guard`] of the keys of a class, without looking for their rule.
    pub(super) fn guard(&self, class: u8) -> Duration {
        self.guards
            .get(usize::from(class))
            .map_or(self.default.guard, |guard| *guard)
    }

    /// Whether every key is forwarded as it is.
    pub fn forwards_all(&self) -> bool {
        self.policies().all(|policy| policy.mode == Mode::Through)
    }

    fn policies(&self) -> impl Iterator<Item = &Policy> {
        let patterns = self.patterns.iter().map(|(_, policy)| policy);
        std::iter::once(&self.default).chain(patterns)
    }
}

impl Policy {
    fn of(treatment: Treatment, intervals: &mut Vec<Duration>) -> Self {
        let Treatment {
            mode,
            flush_interval,
            cache_ttl,
            window,
            local_grants,
        } = treatment;
        let known = intervals.iter().position(|known| *known == flush_interval);
        let class = known.unwrap_or_else(|| {
            intervals.push(flush_interval);
            intervals.len() - 1
        });
        Self {
            mode,
            // What is only forwarded is not known here.
            lease: match mode {
                Mode::Through => Duration::ZERO,
                Mode::Buffered | Mode::Exact => cache_ttl,
            },
            // Even without a cache a counter is answered from one flush to the next.
            counter_lease: cache_ttl.max(flush_interval),
            touch: flush_interval.max(SHORTEST_TOUCH).max(cache_ttl),
            touches: touches(flush_interval),
            guard: guard(flush_interval),
            window,
            local_grants,
            worth: WORTH_BEING_WARM,
            class: u8::try_from(class).unwrap_or_default(),
        }
    }

    /// When an answer given by Redis to a request sent at `sent` stops being repeated here.
    pub(super) fn fresh_until(&self, sent: Instant) -> Instant {
        sent + self.lease
    }

    /// The same for a counter.
    pub(super) fn counter_fresh_until(&self, sent: Instant) -> Instant {
        sent + self.counter_lease
    }

    /// How long an increment that was sent at `sent` is remembered.
    pub(super) fn touched_until(&self, sent: Instant) -> Instant {
        sent + self.touch
    }

    /// When answering has to end for a key with so much time left, told in an answer to a request
    /// sent at `sent`. `None` when that moment is beyond all clocks.
    pub(super) fn closes(&self, sent: Instant, left: Duration) -> Option<Instant> {
        sent.checked_add(left.saturating_sub(self.guard))
    }

    /// When the window ends that an increment opens now, if it opens one.
    pub(super) fn window_end(&self, now: Instant) -> Option<Instant> {
        let opens = self.mode == Mode::Exact && !self.window.is_zero();
        opens.then(|| now + self.window)
    }

    /// Whether a client that asks now may be given the reply to a request that was sent before. Not
    /// where every answer has to be current, because another Tally may have changed the key
    /// meanwhile.
    pub(super) fn shares(&self) -> bool {
        self.mode != Mode::Exact || self.caches()
    }

    /// Whether values are kept at all.
    pub(super) fn caches(&self) -> bool {
        !self.lease.is_zero()
    }
}

/// Which classes of flushes are under way: a set of numbers up to 255.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Classes([u64; 4]);

impl Classes {
    pub(super) const ALL: Self = Self([u64::MAX; 4]);

    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }

    pub(super) fn insert(&mut self, class: u8) {
        let (word, bit) = Self::place(class);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    pub(super) fn holds(self, class: usize) -> bool {
        let (word, bit) = u8::try_from(class).map_or((self.0.len(), 0), Self::place);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    fn place(class: u8) -> (usize, u64) {
        (usize::from(class / 64), 1 << (class % 64))
    }
}

/// How many increments a second, by a count that is halved every second, make a key worth becoming
/// warm. That costs as much as some six forwarded increments, so the rate is twice the one that is
/// worth staying warm: else a key at that rate would become warm and cold in turn.
fn touches(flush_interval: Duration) -> u32 {
    let a_second = 2000 * u128::from(WORTH_BEING_WARM) / flush_interval.as_millis().max(1);
    u32::try_from(a_second).unwrap_or(u32::MAX).clamp(2, 15)
}

/// How many increments between two flushes make a key worth being warm. A batch costs Tally and
/// the node 5 to 6 microseconds a key; forwarded, an increment costs both of them 2, against 0.4
/// when it is answered here (measured with Redis 7.0 on one machine).
const WORTH_BEING_WARM: u32 = 3;

/// An increment is remembered for at least this long.
const SHORTEST_TOUCH: Duration = Duration::from_secs(1);

/// What is acknowledged before the guard is in Redis before the deadline: it waits for the next
/// flush, which may meet the one before it still under way, or may have to be sent again.
fn guard(flush_interval: Duration) -> Duration {
    flush_interval * 2 + SENDING_AGAIN
}

/// How long a batch may take that has to be sent again: a reconnect on a network that works.
const SENDING_AGAIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Treatment = Treatment {
        mode: Mode::Buffered,
        flush_interval: Duration::from_secs(1),
        cache_ttl: Duration::from_secs(5),
        window: Duration::ZERO,
        local_grants: false,
    };

    #[test]
    fn the_first_pattern_that_matches_decides() {
        let exact = Treatment {
            mode: Mode::Exact,
            ..DEFAULT
        };
        let through = Treatment {
            mode: Mode::Through,
            ..DEFAULT
        };
        let patterns = [(&b"a:b:*"[..], through), (b"a:*", exact), (b"a:z", through)];
        let rules = Rules::new(DEFAULT, patterns);
        for (key, mode) in [
            ("a:b:1", Mode::Through),
            ("a:z", Mode::Exact),
            ("A:z", Mode::Buffered),
            ("b", Mode::Buffered),
        ] {
            assert_eq!(rules.policy(key.as_bytes()).mode, mode, "{key}");
        }
        assert!(!rules.forwards_all());
    }

    #[test]
    fn equal_intervals_are_one_class() {
        let every = |ms| Treatment {
            flush_interval: Duration::from_millis(ms),
            ..DEFAULT
        };
        let patterns = [
            (&b"a"[..], every(50)),
            (b"b", every(1000)),
            (b"c", every(50)),
        ];
        let rules = Rules::new(DEFAULT, patterns);
        let class = |key: &[u8]| rules.policy(key).class;
        assert_eq!(
            [class(b"a"), class(b"b"), class(b"c"), class(b"d")],
            [1, 0, 1, 0]
        );
        let want = [1000, 50].map(Duration::from_millis);
        assert_eq!(rules.intervals(), want);
        assert_eq!(rules.policy(b"a").guard, Duration::from_millis(600));
    }

    #[test]
    fn what_is_forwarded_is_not_cached() {
        let rules = Rules::new(
            Treatment {
                mode: Mode::Through,
                ..DEFAULT
            },
            [],
        );
        assert!(!rules.policy(b"k").caches());
        assert!(rules.forwards_all());
    }

    #[test]
    fn a_set_of_classes_holds_what_was_put_in() {
        let mut classes = Classes::default();
        assert!(classes.is_empty());
        for class in [0, 63, 64, 255] {
            classes.insert(class);
        }
        let held: Vec<_> = (0..=300).filter(|class| classes.holds(*class)).collect();
        assert_eq!(held, [0, 63, 64, 255]);
        assert!((0..=255).all(|class| Classes::ALL.holds(class)));
    }
}
