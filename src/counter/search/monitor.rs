//! Is what clients were told explained by some order of their commands? Followed reply by reply:
//! the monitor holds every state that the keys may be in, each with the commands that have taken
//! effect in it and were not answered yet.

use std::collections::BTreeSet;

use super::limits::DENIED;

/// What a key holds.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Value {
    Nothing,
    Integer(i64),
    /// An integer with a deadline, which is [`LEFT`] away: time does not pass.
    Timed(i64),
    List,
}

/// Milliseconds that clients give a key.
pub(super) const LEFT: i64 = 100_000;

/// A client's command; keys by their place in [`super::world::KEYS`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Command {
    Add(usize, i64),
    Get(usize),
    Set(usize, i64),
    Del(usize),
    DelBoth,
    FlushAll,
    /// `PEXPIRE key LEFT`
    Expire(usize),
    /// `PTTL`
    Ttl(usize),
    /// A script that adds one unless the value has reached so much.
    Limit(usize, i64),
}

/// What a client is told.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Said {
    Integer(i64),
    Text(i64),
    Nil,
    Ok,
    Overflow,
    WrongType,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Said(Said),
    /// An error that says that it had no effect.
    Failed,
    /// It may take effect or not, once, at any later time.
    Unknown,
}

pub(super) type Values = [Value; 2];

impl Command {
    pub(super) fn concerns(self, key: usize) -> bool {
        match self {
            Self::Add(own, _)
            | Self::Get(own)
            | Self::Set(own, _)
            | Self::Del(own)
            | Self::Expire(own)
            | Self::Ttl(own)
            | Self::Limit(own, _) => own == key,
            Self::DelBoth | Self::FlushAll => true,
        }
    }

    fn meets(self, other: Self) -> bool {
        (0..2).any(|key| self.concerns(key) && other.concerns(key))
    }

    /// What one Redis would do.
    fn run(self, values: &mut Values) -> Said {
        match self {
            Self::Add(key, delta) => {
                let (value, timed) = match values[key] {
                    Value::Nothing => (0, false),
                    Value::Integer(value) => (value, false),
                    Value::Timed(value) => (value, true),
                    Value::List => return Said::WrongType,
                };
                match value.checked_add(delta) {
                    None => Said::Overflow,
                    Some(sum) => {
                        let new = if timed { Value::Timed } else { Value::Integer };
                        values[key] = new(sum);
                        Said::Integer(sum)
                    }
                }
            }
            Self::Limit(key, limit) => match values[key] {
                Value::Integer(value) | Value::Timed(value) if value >= limit => {
                    Said::Integer(DENIED)
                }
                _ => Self::Add(key, 1).run(values),
            },
            Self::Get(key) => match values[key] {
                Value::Nothing => Said::Nil,
                Value::Integer(value) | Value::Timed(value) => Said::Text(value),
                Value::List => Said::WrongType,
            },
            Self::Set(key, value) => {
                values[key] = Value::Integer(value);
                Said::Ok
            }
            Self::Del(key) => {
                let there = values[key] != Value::Nothing;
                values[key] = Value::Nothing;
                Said::Integer(there.into())
            }
            Self::DelBoth => {
                let there = values.iter().filter(|value| **value != Value::Nothing);
                let there = there.count();
                *values = [Value::Nothing; 2];
                Said::Integer(i64::try_from(there).unwrap_or_default())
            }
            Self::FlushAll => {
                *values = [Value::Nothing; 2];
                Said::Ok
            }
            Self::Expire(key) => match values[key] {
                Value::Nothing => Said::Integer(0),
                Value::Integer(value) | Value::Timed(value) => {
                    values[key] = Value::Timed(value);
                    Said::Integer(1)
                }
                // No scenario asks for it.
                Value::List => Said::Integer(1),
            },
            Self::Ttl(key) => Said::Integer(match values[key] {
                Value::Nothing => -2,
                Value::Integer(_) | Value::List => -1,
                Value::Timed(_) => LEFT,
            }),
        }
    }
}

/// One way in which things may stand.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Case {
    values: Values,
    /// Commands that have taken effect and are not answered: each with what it will be told.
    done: Vec<(usize, Said)>,
}

/// A command that was asked and not answered.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Open {
    id: usize,
    client: usize,
    command: Command,
    unknown: bool,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Monitor {
    cases: BTreeSet<Case>,
    open: Vec<Open>,
}

impl Monitor {
    pub(super) fn new(values: Values) -> Self {
        let done = Vec::new();
        Self {
            cases: BTreeSet::from([Case { values, done }]),
            open: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self, id: usize, client: usize, command: Command) {
        self.open.push(Open {
            id,
            client,
            command,
            unknown: false,
        });
    }

    /// Takes the end of a command; an error when no order explains it.
    pub(super) fn end(&mut self, id: usize, end: End) -> Result<(), String> {
        let place = self.open.iter().position(|open| open.id == id);
        let place = place.ok_or("answered twice")?;
        match end {
            End::Unknown => {
                self.open[place].unknown = true;
                return Ok(());
            }
            End::Said(said) => {
                let cases = self.closure();
                let answered = cases.into_iter().filter_map(|mut case| {
                    let at = case.done.iter().position(|done| *done == (id, said))?;
                    case.done.remove(at);
                    Some(case)
                });
                self.cases = answered.collect();
            }
            End::Failed => self
                .cases
                .retain(|case| case.done.iter().all(|done| done.0 != id)),
        }
        let open = self.open.remove(place);
        if self.cases.is_empty() {
            return Err(format!("no order explains {end:?} to {:?}", open.command));
        }
        Ok(())
    }

    /// A command ended, and how is not looked at.
    pub(super) fn forget(&mut self, id: usize) {
        self.open.retain(|open| open.id != id);
    }

    /// Whether every command that will be answered has been.
    pub(super) fn is_answered(&self) -> bool {
        self.open.iter().all(|open| open.unknown)
    }

    /// Whether the keys may hold this at rest.
    pub(super) fn allows(&self, values: Values) -> bool {
        self.closure().iter().any(|case| case.values == values)
    }

    /// Every case that some of the open commands may have led to by now.
    fn closure(&self) -> BTreeSet<Case> {
        let mut seen = self.cases.clone();
        let mut left: Vec<Case> = seen.iter().cloned().collect();
        while let Some(case) = left.pop() {
            let is_done = |id: usize| case.done.iter().any(|done| done.0 == id);
            for (at, next) in self.open.iter().enumerate() {
                // A client's commands on a key take effect in its order.
                let first = self.open[..at].iter().all(|before| {
                    before.client != next.client
                        || before.unknown
                        || is_done(before.id)
                        || !before.command.meets(next.command)
                });
                if is_done(next.id) || !first {
                    continue;
                }
                let mut after = case.clone();
                let said = next.command.run(&mut after.values);
                after.done.push((next.id, said));
                after.done.sort_unstable();
                if seen.insert(after.clone()) {
                    left.push(after);
                }
            }
        }
        seen
    }
}

#[test]
fn an_answer_that_no_order_gives_is_told() {
    let mut monitor = Monitor::new([Value::Integer(1), Value::Nothing]);
    monitor.begin(0, 0, Command::Add(0, 1));
    monitor.begin(1, 1, Command::Get(0));
    let mut other = monitor.clone();
    assert_eq!(monitor.end(1, End::Said(Said::Text(2))), Ok(()));
    assert_eq!(monitor.end(0, End::Said(Said::Integer(2))), Ok(()));
    assert!(monitor.allows([Value::Integer(2), Value::Nothing]));
    assert!(!monitor.allows([Value::Integer(1), Value::Nothing]));
    assert!(other.end(1, End::Said(Said::Text(3))).is_err());
}

#[test]
fn a_command_of_unknown_outcome_may_take_effect_later() {
    let mut monitor = Monitor::new([Value::Nothing; 2]);
    monitor.begin(0, 0, Command::Set(0, 5));
    assert_eq!(monitor.end(0, End::Unknown), Ok(()));
    for (id, said) in [(1, Said::Nil), (2, Said::Text(5))] {
        monitor.begin(id, 0, Command::Get(0));
        assert_eq!(monitor.end(id, End::Said(said)), Ok(()));
    }
    monitor.begin(3, 0, Command::Get(0));
    assert!(monitor.end(3, End::Said(Said::Nil)).is_err());
}
