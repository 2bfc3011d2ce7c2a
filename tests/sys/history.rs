//! A checker for one key's history: is there one order of the operations that explains every
//! reply, keeps each client's own order, and never puts an operation before one that had ended
//! when it began? (Wing and Gong's search, with the memo of Lowe's: a pair of progress and value
//! that failed once is not tried again.)

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;

use crate::reply::Reply;

/// What a client may ask, and what it means.
pub(crate) trait Model: Clone + fmt::Debug {
    /// What is there; the default is nothing.
    type State: Clone + Default + Eq + Hash + fmt::Debug;

    /// The state behind it, and the reply that it gives.
    fn after(&self, state: &Self::State) -> (Self::State, Expected);

    /// Whether this reply says that it changed nothing.
    fn is_harmless(&self, reply: &Reply) -> bool;
}

/// What a client asked of one key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    IncrBy(i64),
    Get,
    Set(Vec<u8>),
    Del,
    /// With a time to live far beyond the test.
    Expire,
    Append(Vec<u8>),
}

/// One operation; times are of one clock for all clients, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Operation<A = Action> {
    pub(crate) client: usize,
    pub(crate) began: u64,
    /// `u64::MAX` when no reply came.
    pub(crate) ended: u64,
    pub(crate) action: A,
    /// `None`: it may have taken effect or not, once, at any later time.
    pub(crate) reply: Option<Reply>,
}

impl<A: Model> Operation<A> {
    /// Whether its reply says that it changed nothing.
    fn is_harmless(&self) -> bool {
        let reply = self.reply.as_ref();
        reply.is_some_and(|reply| self.action.is_harmless(reply))
    }
}

/// Why a history has no explanation.
pub(crate) struct Unexplained<A: Model> {
    explained: Vec<Operation<A>>,
    stuck: Vec<Operation<A>>,
    state: A::State,
    /// Whether the search was given up: there may be an order.
    pub(crate) is_open: bool,
}

/// Looks for an order, starting from nothing; each client's operations come in its order.
pub(crate) fn explain<A: Model>(history: &[Operation<A>]) -> Result<(), Box<Unexplained<A>>> {
    let clients = history
        .iter()
        .map(|operation| operation.client + 1)
        .max()
        .unwrap_or(0);
    let mut queues: Vec<Vec<&Operation<A>>> = vec![Vec::new(); clients];
    for operation in history {
        queues[operation.client].push(operation);
    }
    queues.retain(|queue| !queue.is_empty());
    let mut search = Search {
        done: vec![0; queues.len()],
        queues,
        seen: HashSet::new(),
        order: Vec::new(),
        best: (Vec::new(), A::State::default(), Vec::new()),
    };
    if search.run() {
        return Ok(());
    }
    let (explained, state, done) = search.best;
    let rest = search.queues.iter().zip(done);
    Err(Box::new(Unexplained {
        explained: explained.into_iter().cloned().collect(),
        stuck: rest
            .filter_map(|(queue, at)| queue.get(at).map(|&next| next.clone()))
            .collect(),
        state,
        is_open: search.seen.len() >= MAX_STATES,
    }))
}

struct Search<'a, A: Model> {
    queues: Vec<Vec<&'a Operation<A>>>,
    /// How many operations of each queue are in the order.
    done: Vec<usize>,
    seen: HashSet<(Vec<usize>, A::State)>,
    order: Vec<&'a Operation<A>>,
    /// The longest order found, its state and progress, for the report.
    best: (Vec<&'a Operation<A>>, A::State, Vec<usize>),
}

/// A choice that the search can come back to.
struct Branch<S> {
    state: S,
    /// Queues not tried yet.
    rest: Vec<usize>,
    /// Length of the order before the choice.
    length: usize,
    done: Vec<usize>,
}

impl<A: Model> Search<'_, A> {
    fn run(&mut self) -> bool {
        let mut state = A::State::default();
        let mut branches: Vec<Branch<A::State>> = Vec::new();
        loop {
            self.take_harmless(&state);
            if self.order.len() > self.best.0.len() {
                self.best = (self.order.clone(), state.clone(), self.done.clone());
            }
            if self.is_complete() {
                return true;
            }
            if self.seen.len() >= MAX_STATES {
                return false;
            }
            if self.seen.insert((self.done.clone(), state.clone())) {
                let mut rest = self.candidates(&state);
                // The last is tried first: what was never answered comes behind what was.
                rest.reverse();
                branches.push(Branch {
                    state,
                    rest,
                    length: self.order.len(),
                    done: self.done.clone(),
                });
            }
            // Back to the last choice that has something left to try.
            loop {
                let Some(branch) = branches.last_mut() else {
                    return false;
                };
                self.order.truncate(branch.length);
                self.done.clone_from(&branch.done);
                let Some(queue) = branch.rest.pop() else {
                    branches.pop();
                    continue;
                };
                let operation = self.queues[queue][self.done[queue]];
                state = operation.action.after(&branch.state).0;
                self.done[queue] += 1;
                self.order.push(operation);
                break;
            }
        }
    }

    fn is_complete(&self) -> bool {
        let mut queues = self.queues.iter().zip(&self.done);
        queues.all(|(queue, done)| queue[*done..].iter().all(|next| next.reply.is_none()))
    }

    /// An operation that fits now and can not change anything, whatever its place, may as well be
    /// next. (A SET of the value that is there does not qualify: it may be needed later.)
    fn take_harmless(&mut self, state: &A::State) {
        loop {
            let candidates = self.candidates(state);
            let harmless = |queue: &usize| self.queues[*queue][self.done[*queue]].is_harmless();
            let Some(queue) = candidates.into_iter().find(harmless) else {
                return;
            };
            self.order.push(self.queues[queue][self.done[queue]]);
            self.done[queue] += 1;
        }
    }

    /// Queues whose next operation may come next and gives its reply on `state`.
    fn candidates(&self, state: &A::State) -> Vec<usize> {
        let next = |queue: usize| self.queues[queue].get(self.done[queue]).copied();
        let all = 0..self.queues.len();
        // A client's replies come in order, so its first open operation ends before its others.
        let first_end = all.clone().filter_map(next).map(|next| next.ended).min();
        let fits = |queue: &usize| {
            next(*queue).is_some_and(|operation| {
                operation.began <= first_end.unwrap_or(u64::MAX)
                    && operation
                        .reply
                        .as_ref()
                        .is_none_or(|reply| operation.action.after(state).1.accepts(reply))
            })
        };
        all.filter(fits).collect()
    }
}

/// Most states that a search remembers.
const MAX_STATES: usize = 1_000_000;

/// What the model expects of a reply.
#[derive(Debug)]
pub(crate) enum Expected {
    Reply(Reply),
    /// Any error that starts so.
    Error(&'static str),
    /// This many seconds, or fewer by what a test may take.
    Seconds(i64),
    /// One or the other.
    Either([Reply; 2]),
    /// An array of these.
    Each(Vec<Self>),
}

impl Expected {
    pub(crate) fn accepts(&self, reply: &Reply) -> bool {
        match (self, reply) {
            (Self::Reply(expected), reply) => expected == reply,
            (Self::Error(start), Reply::Error(text)) => text.starts_with(start.as_bytes()),
            (Self::Seconds(most), Reply::Integer(got)) => (most - 400..=*most).contains(got),
            (Self::Either(replies), reply) => replies.contains(reply),
            (Self::Each(expected), Reply::Array(got)) => {
                let mut pairs = expected.iter().zip(got);
                expected.len() == got.len() && pairs.all(|(one, got)| one.accepts(got))
            }
            (Self::Error(_) | Self::Seconds(_) | Self::Each(_), _) => false,
        }
    }
}

impl Model for Action {
    /// The key's value.
    type State = Option<Vec<u8>>;

    fn after(&self, state: &Self::State) -> (Self::State, Expected) {
        after(self, state.as_deref())
    }

    fn is_harmless(&self, reply: &Reply) -> bool {
        match (self, reply) {
            (Self::Get | Self::Expire, _) | (_, Reply::Error(_)) => true,
            (Self::Del, reply) => *reply == Reply::Integer(0),
            _ => false,
        }
    }
}

/// Redis's strings, as far as the actions go.
fn after(action: &Action, value: Option<&[u8]>) -> (Option<Vec<u8>>, Expected) {
    let kept = value.map(<[u8]>::to_vec);
    match action {
        Action::Get => {
            let reply = value.map_or(Reply::Nil, |bytes| Reply::Bulk(bytes.to_vec()));
            (kept, Expected::Reply(reply))
        }
        Action::Set(new) => (
            Some(new.clone()),
            Expected::Reply(Reply::Simple(b"OK".to_vec())),
        ),
        Action::Del => (
            None,
            Expected::Reply(Reply::Integer(value.is_some().into())),
        ),
        Action::Expire => (
            kept,
            Expected::Reply(Reply::Integer(value.is_some().into())),
        ),
        Action::Append(tail) => {
            let mut bytes = kept.unwrap_or_default();
            bytes.extend_from_slice(tail);
            let length = i64::try_from(bytes.len()).unwrap();
            (Some(bytes), Expected::Reply(Reply::Integer(length)))
        }
        Action::IncrBy(amount) => {
            let Some(current) = value.map_or(Some(0), integer) else {
                return (kept, Expected::Error("ERR value is not an integer"));
            };
            let Some(sum) = current.checked_add(*amount) else {
                return (
                    kept,
                    Expected::Error("ERR increment or decrement would overflow"),
                );
            };
            let text = sum.to_string().into_bytes();
            (Some(text), Expected::Reply(Reply::Integer(sum)))
        }
    }
}

/// The integer whose canonical form `bytes` is (no `+`, no leading zero, no `-0`).
pub(crate) fn integer(bytes: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == bytes).then_some(number)
}

impl<A: Model> fmt::Debug for Unexplained<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "explained, in order:")?;
        for operation in &self.explained {
            writeln!(f, "  {operation:?}")?;
        }
        let state = &self.state;
        writeln!(f, "then there is {state:?} and none of these fits:")?;
        for operation in &self.stuck {
            writeln!(f, "  {operation:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "+OK";

    /// `(client, began, ended, action, reply)`, the reply as `:1`, `+OK`, `-ERR ...`, `$text`, `nil`.
    fn operation(client: usize, time: (u64, u64), action: Action, reply: &str) -> Operation {
        let bytes = reply.get(1..).unwrap_or_default().as_bytes().to_vec();
        let reply = match reply.as_bytes()[0] {
            b':' => Reply::Integer(reply[1..].parse().unwrap()),
            b'+' => Reply::Simple(bytes),
            b'-' => Reply::Error(bytes),
            b'$' => Reply::Bulk(bytes),
            _ => Reply::Nil,
        };
        Operation {
            client,
            began: time.0,
            ended: time.1,
            action,
            reply: Some(reply),
        }
    }

    fn incr(client: usize, began: u64, ended: u64, reply: &str) -> Operation {
        operation(client, (began, ended), Action::IncrBy(1), reply)
    }

    fn get(client: usize, began: u64, ended: u64, reply: &str) -> Operation {
        operation(client, (began, ended), Action::Get, reply)
    }

    fn set(client: usize, began: u64, ended: u64, text: &str) -> Operation {
        operation(client, (began, ended), Action::Set(text.into()), OK)
    }

    #[track_caller]
    fn check(history: &[Operation], explainable: bool) {
        let outcome = explain(history);
        assert_eq!(outcome.is_ok(), explainable, "{outcome:?}");
    }

    #[test]
    fn overlapping_increments_may_come_in_any_order() {
        check(
            &[incr(0, 0, 9, ":2"), incr(1, 0, 9, ":1"), get(2, 0, 9, "$1")],
            true,
        );
    }

    #[test]
    fn a_number_given_twice_is_refused() {
        check(&[incr(0, 0, 9, ":1"), incr(1, 0, 9, ":1")], false);
    }

    #[test]
    fn a_skipped_number_is_refused() {
        check(&[incr(0, 0, 9, ":1"), incr(1, 0, 9, ":3")], false);
    }

    #[test]
    fn a_read_that_began_after_an_increment_ended_sees_it() {
        check(&[incr(0, 0, 1, ":1"), get(1, 2, 3, "$1")], true);
        check(&[incr(0, 0, 1, ":1"), get(1, 2, 3, "nil")], false);
        check(&[incr(0, 0, 2, ":1"), get(1, 1, 3, "nil")], true);
    }

    #[test]
    fn two_reads_never_go_back_in_time() {
        let writes = [set(0, 0, 10, "1"), set(0, 0, 20, "2")];
        let forward = [get(1, 0, 11, "$1"), get(1, 12, 30, "$2")];
        let backward = [get(1, 0, 11, "$2"), get(1, 12, 30, "$1")];
        check(&[&writes[..], &forward].concat(), true);
        check(&[&writes[..], &backward].concat(), false);
    }

    #[test]
    fn a_client_keeps_its_own_order_within_a_pipeline() {
        check(&[set(0, 0, 9, "5"), get(0, 0, 9, "$5")], true);
        check(&[get(0, 0, 9, "$5"), set(0, 0, 9, "5")], false);
    }

    #[test]
    fn a_write_of_the_value_that_is_there_may_be_needed_later() {
        let history = [
            set(0, 0, 1, "0"),
            set(1, 0, 99, "0"),
            incr(2, 2, 3, ":1"),
            incr(3, 4, 5, ":2"),
            incr(4, 6, 7, ":1"),
        ];
        check(&history, true);
    }

    #[test]
    fn a_lost_update_is_refused() {
        let lost = [
            set(0, 0, 1, "10"),
            incr(1, 2, 3, ":11"),
            get(0, 4, 5, "$10"),
        ];
        check(&lost, false);
    }

    #[test]
    fn a_deleted_key_that_comes_back_is_refused() {
        let del = operation(0, (2, 3), Action::Del, ":1");
        check(
            &[incr(0, 0, 1, ":1"), del.clone(), incr(1, 4, 5, ":1")],
            true,
        );
        check(&[incr(0, 0, 1, ":1"), del, incr(1, 4, 5, ":2")], false);
    }

    #[test]
    fn errors_need_a_value_that_gives_them() {
        let error = "-ERR value is not an integer or out of range";
        check(&[set(0, 0, 1, "007"), incr(1, 2, 3, error)], true);
        check(&[set(0, 0, 1, "7"), incr(1, 2, 3, error)], false);
        check(&[set(0, 0, 1, "7"), incr(1, 2, 3, "-ERR other")], false);
        let overflow = "-ERR increment or decrement would overflow";
        check(
            &[set(0, 0, 1, "9223372036854775807"), incr(1, 2, 3, overflow)],
            true,
        );
    }

    #[test]
    fn append_and_expire_see_the_value_of_their_place() {
        let append = |reply| operation(1, (0, 9), Action::Append(b"1".to_vec()), reply);
        let expire = |reply| operation(2, (0, 9), Action::Expire, reply);
        check(&[incr(0, 0, 9, ":11"), append(":1"), expire(":0")], false);
        check(&[set(0, 0, 9, "1"), append(":2"), expire(":0")], true);
        check(&[set(0, 0, 9, "1"), append(":1"), expire(":0")], true);
        check(&[set(0, 0, 9, "1"), append(":3"), expire(":1")], false);
    }

    #[test]
    fn an_unanswered_operation_may_count_or_not() {
        let unanswered = Operation {
            ended: u64::MAX,
            reply: None,
            ..incr(0, 0, 1, ":0")
        };
        check(&[unanswered.clone(), get(1, 5, 6, "nil")], true);
        check(&[unanswered.clone(), get(1, 5, 6, "$1")], true);
        check(&[unanswered, get(1, 5, 6, "$2")], false);
    }
}
