//! `SORT` with patterns that name keys of several nodes, or with a result on another node than its
//! source: looked up, sorted and stored from here.
//!
//! ```text
//!  node of the key ──elements──> weights by BY ──> sorted, cut ──> values by GET ──> reply
//!                                (all nodes)                       (all nodes)   └─> STORE
//! ```
//!
//! Each step is a command of its own, in order with the others on its lane; the whole is not atomic.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::aside::{Answer, on_lane, submitted};
use super::dispatch::{Dispatch, Flow};
use super::replies::Ticket;
use super::rounds::is_wrong_type;
use crate::counter::Effect;
use crate::node::{Node, error_frame};
use crate::resp::{Form, Protocol, Request, encode, parse_double, parse_i64, reply};
use crate::router::Router;

/// A `SORT`, as `sortCommandGeneric` in Redis's `sort.c` reads it.
#[derive(Debug, Default)]
struct Sort {
    key: Vec<u8>,
    by: Option<Vec<u8>>,
    gets: Vec<Vec<u8>>,
    limit: Option<(i64, i64)>,
    descending: bool,
    alpha: bool,
    store: Option<Vec<u8>>,
}

/// One element, and what it is sorted by.
struct Weighed {
    element: Vec<u8>,
    weight: Option<Vec<u8>>,
    score: f64,
}

/// Where keys live, for one database.
struct Keys {
    router: Arc<Router<Ticket>>,
    database: u32,
}

impl Dispatch<'_> {
    /// Executes a `SORT` step by step. `None`: its options are malformed, and the node is to say
    /// so.
    pub(super) fn sort_across(&mut self, request: &Request<'_>) -> Option<Flow> {
        if self.state.aside.is_none() {
            let sort = Sort::parse(request)?;
            if self.replies.backlog().outstanding > 0 {
                return Some(Flow::Await);
            }
            let keys = Keys {
                router: Arc::clone(&self.shared.router),
                database: self.client.database(),
            };
            let run = async move {
                let answer = sort.run(&keys).await;
                Answer::of(answer.unwrap_or_else(|error| error))
            };
            self.begin_aside(run, None);
        }
        Some(self.pass_aside(Form::Plain))
    }
}

impl Sort {
    fn parse(request: &Request<'_>) -> Option<Self> {
        let mut sort = Self {
            key: request.arg(1).into(),
            ..Self::default()
        };
        let may_store = request.arg(0).eq_ignore_ascii_case(b"sort");
        let mut args = request.args().skip(2);
        while let Some(option) = args.next() {
            match option.to_ascii_lowercase().as_slice() {
                b"asc" => sort.descending = false,
                b"desc" => sort.descending = true,
                b"alpha" => sort.alpha = true,
                b"limit" => {
                    let offset = parse_i64(args.next()?)?;
                    sort.limit = Some((offset, parse_i64(args.next()?)?));
                }
                b"by" => sort.by = Some(args.next()?.into()),
                b"get" => sort.gets.push(args.next()?.into()),
                b"store" if may_store => sort.store = Some(args.next()?.into()),
                _ => return None,
            }
        }
        Some(sort)
    }

    /// The reply, or the frame of an error.
    async fn run(self, keys: &Keys) -> Result<Vec<u8>, Vec<u8>> {
        let pattern = self.by.as_ref().filter(|by| by.contains(&b'*'));
        let mut elements = self.elements(keys, pattern.is_some()).await?;
        if let Some(pattern) = pattern {
            let names = elements.iter().map(|element| Name::new(pattern, element));
            let weights = keys.look_up(names.collect()).await?;
            elements = self.sorted(elements, weights)?;
        }
        let mut values: Vec<Option<Vec<u8>>> = Vec::new();
        if self.gets.is_empty() {
            values.extend(elements.into_iter().map(Some));
        } else {
            let each = elements.iter().flat_map(|element| {
                let names = self.gets.iter();
                names.map(move |pattern| Name::new(pattern, element))
            });
            values = keys.look_up(each.collect()).await?;
        }
        match &self.store {
            Some(key) => store(keys, key, &values).await,
            None => Ok(array(&values)),
        }
    }

    /// What is to be sorted. Unless it `is_unsorted`, it comes sorted and cut already.
    async fn elements(&self, keys: &Keys, is_unsorted: bool) -> Result<Vec<Vec<u8>>, Vec<u8>> {
        let mut request: Vec<&[u8]> = vec![b"SORT", &self.key];
        let limit = self.limit.map(|(a, b)| (a.to_string(), b.to_string()));
        if is_unsorted {
            request.extend([b"BY".as_slice(), b"nosort"]);
        } else {
            if let Some(by) = &self.by {
                request.extend([b"BY".as_slice(), by]);
            }
            if let Some((offset, count)) = &limit {
                request.extend([b"LIMIT".as_slice(), offset.as_bytes(), count.as_bytes()]);
            }
            request.extend(self.descending.then_some(b"DESC".as_slice()));
            request.extend(self.alpha.then_some(b"ALPHA".as_slice()));
        }
        let frame = keys.ask(&self.key, &[&self.key], &request).await;
        let Some(elements) = reply::elements(&frame) else {
            return Err(frame);
        };
        let elements: Vec<Vec<u8>> = elements
            .map(|element| reply::text(element).unwrap_or_default().to_vec())
            .collect();
        if elements.len() > MAX_ELEMENTS {
            return Err(error_frame(
                "too many elements to be sorted over several nodes",
            ));
        }
        Ok(elements)
    }

    /// The elements in order, as many as the limit allows (`sortCompare`).
    fn sorted(
        &self,
        elements: Vec<Vec<u8>>,
        weights: Vec<Option<Vec<u8>>>,
    ) -> Result<Vec<Vec<u8>>, Vec<u8>> {
        let mut weighed = Vec::with_capacity(elements.len());
        for (element, weight) in elements.into_iter().zip(weights) {
            let score = match &weight {
                Some(weight) if !self.alpha => score(weight).ok_or_else(|| {
                    error_frame("One or more scores can't be converted into double")
                })?,
                _ => 0.0,
            };
            weighed.push(Weighed {
                element,
                weight,
                score,
            });
        }
        weighed.sort_by(|a, b| {
            let order = if self.alpha {
                a.weight.cmp(&b.weight)
            } else {
                let order = a.score.partial_cmp(&b.score).unwrap_or(Ordering::Equal);
                order.then_with(|| a.element.cmp(&b.element))
            };
            if self.descending {
                order.reverse()
            } else {
                order
            }
        });
        let range = self.range(weighed.len());
        let kept = weighed.into_iter().skip(range.start).take(range.len());
        Ok(kept.map(|weighed| weighed.element).collect())
    }

    fn range(&self, len: usize) -> Range<usize> {
        let Some((offset, count)) = self.limit else {
            return 0..len;
        };
        let start = usize::try_from(offset).unwrap_or(0).min(len);
        let count = usize::try_from(count).unwrap_or(len);
        start..start.saturating_add(count).min(len)
    }
}

/// What a pattern names for an element (`lookupKeyByPattern`).
enum Name {
    /// The element itself: `#`.
    Itself(Vec<u8>),
    /// Nothing: there is no `*`.
    Nothing,
    Key(Vec<u8>),
    /// A field of a hash: `key->field`.
    Field(Vec<u8>, Vec<u8>),
}

impl Name {
    fn new(pattern: &[u8], element: &[u8]) -> Self {
        if pattern == b"#" {
            return Self::Itself(element.to_vec());
        }
        let Some(star) = memchr::memchr(b'*', pattern) else {
            return Self::Nothing;
        };
        let (before, behind) = pattern.split_at(star);
        let behind = behind.get(1..).unwrap_or_default();
        let arrow = memchr::memmem::find(behind, b"->");
        let arrow = arrow.filter(|at| at + 2 < behind.len());
        let (behind, field) = match arrow {
            Some(at) => (behind.get(..at).unwrap_or_default(), behind.get(at + 2..)),
            None => (behind, None),
        };
        let key = [before, element, behind].concat();
        match field {
            Some(field) => Self::Field(key, field.to_vec()),
            None => Self::Key(key),
        }
    }
}

impl Keys {
    fn node(&self, key: &[u8]) -> &Arc<Node<Ticket>> {
        self.router.node(self.database, self.router.index(key))
    }

    /// Asks the node of the key `of` something about `keys`, and waits for the answer.
    async fn ask(&self, of: &[u8], keys: &[&[u8]], request: &[&[u8]]) -> Vec<u8> {
        let mut wire = Vec::new();
        encode::request(&mut wire, request);
        on_lane(self.node(of), |lane, step, ticket| {
            lane.forward(step, keys, &wire, Effect::Barrier, ticket);
        })
        .await
    }

    /// The values of names. A key of another type has none.
    async fn look_up(&self, names: Vec<Name>) -> Result<Vec<Option<Vec<u8>>>, Vec<u8>> {
        let mut values = Vec::with_capacity(names.len());
        for some in names.chunks(AT_ONCE) {
            let mut asked = Vec::with_capacity(some.len());
            for name in some {
                asked.push(match name {
                    Name::Itself(element) => Asked::Known(Some(element.clone())),
                    Name::Nothing => Asked::Known(None),
                    Name::Key(key) => self.begin(&[b"GET", key]).await?,
                    Name::Field(key, field) => self.begin(&[b"HGET", key, field]).await?,
                });
            }
            for one in asked {
                values.push(one.value().await?);
            }
        }
        Ok(values)
    }

    /// Gives a request about its second argument to the lane of that key, when there is room.
    async fn begin(&self, request: &[&[u8]]) -> Result<Asked, Vec<u8>> {
        let key = request.get(1).copied().unwrap_or_default();
        let mut wire = Vec::new();
        encode::request(&mut wire, request);
        let asked = submitted(self.node(key), |lane, step, ticket| {
            lane.forward(step, &[key], &wire, Effect::Barrier, ticket);
        });
        Ok(Asked::Waits(asked.await?))
    }
}

/// A value, or the answer that will bring it.
enum Asked {
    Known(Option<Vec<u8>>),
    Waits(oneshot::Receiver<Vec<u8>>),
}

impl Asked {
    async fn value(self) -> Result<Option<Vec<u8>>, Vec<u8>> {
        let answer = match self {
            Self::Known(value) => return Ok(value),
            Self::Waits(answer) => answer.await,
        };
        let frame = answer.map_err(|_| error_frame("the node's lane is gone"))?;
        if is_wrong_type(&frame) || reply::is_null(&frame) {
            return Ok(None);
        }
        match reply::text(&frame) {
            Some(text) if !reply::is_error(&frame) => Ok(Some(text.to_vec())),
            _ => Err(frame),
        }
    }
}

/// A weight as a number (`strtod`, with nothing behind it).
fn score(weight: &[u8]) -> Option<f64> {
    match weight.trim_ascii_start() {
        // Nothing was read, and nothing is left.
        _ if weight.is_empty() => Some(0.0),
        weight => parse_double(weight),
    }
}

/// Puts the values into a list, in place of whatever is there.
async fn store(keys: &Keys, key: &[u8], values: &[Option<Vec<u8>>]) -> Result<Vec<u8>, Vec<u8>> {
    let mut wire = Vec::new();
    encode::request(&mut wire, &[b"MULTI"]);
    encode::request(&mut wire, &[b"DEL".as_slice(), key]);
    let mut commands = 1;
    if !values.is_empty() {
        let values = values
            .iter()
            .map(|value| value.as_deref().unwrap_or_default());
        let push: Vec<&[u8]> = [b"RPUSH".as_slice(), key]
            .into_iter()
            .chain(values)
            .collect();
        encode::request(&mut wire, &push);
        commands = 2;
    }
    encode::request(&mut wire, &[b"EXEC"]);
    let frame = on_lane(keys.node(key), |lane, step, ticket| {
        let effect = Effect::Transaction(commands);
        lane.forward(step, &[key], &wire, effect, ticket);
    })
    .await;
    let Some(elements) = reply::elements(&frame) else {
        return Err(frame);
    };
    match elements.last() {
        Some(error) if reply::is_error(error) => Err(error.to_vec()),
        _ => {
            let mut out = Vec::new();
            encode::integer(&mut out, i64::try_from(values.len()).unwrap_or(i64::MAX));
            Ok(out)
        }
    }
}

fn array(values: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::array(&mut out, values.len());
    for value in values {
        match value {
            Some(value) => encode::bulk(&mut out, value),
            None => encode::null(&mut out, Protocol::Resp3),
        }
    }
    out
}

/// Most elements of a key that is sorted in this way: they and their weights are held here
/// meanwhile. Redis has no such bound.
const MAX_ELEMENTS: usize = 1 << 20;

/// Values asked for before the first of them is waited for.
const AT_ONCE: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_numbers_as_strtod_reads_them() {
        assert_eq!(score(b"12.5"), Some(12.5));
        assert_eq!(score(b" -3"), Some(-3.0));
        assert_eq!(score(b""), Some(0.0));
        assert_eq!(score(b"inf"), Some(f64::INFINITY));
        assert_eq!(score(b"0x1p3"), Some(8.0));
        for wrong in [&b"x"[..], b"1x", b"nan", b"1 ", b" ", b"1e400"] {
            assert_eq!(score(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_limit_is_cut_to_what_there_is() {
        let range = |offset, count| {
            let sort = Sort {
                limit: Some((offset, count)),
                ..Sort::default()
            };
            sort.range(5)
        };
        assert_eq!(range(1, 2), 1..3);
        assert_eq!(range(4, 10), 4..5);
        assert_eq!(range(9, 1), 5..5);
        assert_eq!(range(-3, 2), 0..2);
        assert_eq!(range(1, -1), 1..5);
        assert_eq!(range(0, 0), 0..0);
    }
}
