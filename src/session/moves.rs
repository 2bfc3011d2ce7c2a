//! Commands that move something from one key to another, or set keys together, when the keys live
//! on several nodes: `RENAME`, `LMOVE`, `SMOVE`, `MSETNX`, `MSETEX` and their kin.
//!
//! ```text
//!  keys locked on all nodes ──> read at the source ──> written at the other key ──> removed at the source ──> unlocked
//! ```
//!
//! Clients of this Tally see all of it or nothing. Nothing is removed before it stands at its new
//! place: a fault between the two (of a node, or the end of Tally) leaves it at both.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::aside::{Answer, on_lane};
use super::crossing::no_database;
use super::dispatch::{Dispatch, Flow};
use super::locked::{Dumped, Located, Locked, answer};
use super::rounds::{LONGEST, SHORTEST, is_wrong_type, seconds};
use super::spread::grouped;
use crate::command::Command;
use crate::counter::Effect;
use crate::node::{Pooled, error_frame};
use crate::resp::{Protocol, Request, encode, parse_i64, reply};

/// What is moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Move {
    /// A key with its value and its time to live.
    Rename {
        /// Only where there is no such key yet.
        if_new: bool,
    },
    /// Nothing is moved: another key gets the value and the time to live of this one.
    Copy {
        /// Even where there is such a key already.
        replace: bool,
        /// Where it is; `None`: in the same database.
        database: Option<i64>,
    },
    /// An element from one end of a list to an end of another; the command may wait for one.
    Element { from: End, to: End, waits: bool },
    /// A member of a set.
    Member,
    /// Nothing is moved: keys are set together.
    Set {
        /// Only if none of them exists, or only if all do.
        only: Option<Existing>,
        /// By `MSETEX`, with the time to live that it tells.
        timed: bool,
    },
}

/// Which of the keys have to exist.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Existing {
    None,
    All,
}

/// An end of a list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Left,
    Right,
}

/// A command on its way.
struct Moving {
    what: Move,
    order: Arc<Mutex<()>>,
    /// Every argument that is a key, with its node.
    places: Vec<Located>,
    /// The element of `SMOVE`; the values of `MSETNX` and `MSETEX`.
    rest: Vec<Vec<u8>>,
    /// What `MSETEX` says of the times to live.
    options: Vec<Vec<u8>>,
    /// How long it waits; zero: not at all, `None`: for ever.
    timeout: Option<Duration>,
    /// Most bytes of a value.
    limit: usize,
    /// For each answer on a connection of its own.
    patience: Duration,
}

impl Move {
    /// `None` for any other command; an error where the request is malformed.
    pub(super) fn of(
        command: &Command,
        request: &Request<'_>,
    ) -> Option<Result<Self, &'static str>> {
        let element = |from, to, waits| match (End::of(from), End::of(to)) {
            (Some(from), Some(to)) => Ok(Self::Element { from, to, waits }),
            _ => Err("ERR syntax error"),
        };
        Some(match command.name {
            "rename" => Ok(Self::Rename { if_new: false }),
            "renamenx" => Ok(Self::Rename { if_new: true }),
            "lmove" => element(request.arg(3), request.arg(4), false),
            "blmove" => element(request.arg(3), request.arg(4), true),
            "rpoplpush" => element(b"right", b"left", false),
            "brpoplpush" => element(b"right", b"left", true),
            "copy" => Self::copy(request),
            "smove" => Ok(Self::Member),
            "msetnx" => Ok(Self::Set {
                only: Some(Existing::None),
                timed: false,
            }),
            "msetex" => Self::set_timed(request),
            _ => return None,
        })
    }

    /// `MSETEX numkeys key value [key value ...] [NX | XX] [EX n | KEEPTTL | ...]`, a command of
    /// Valkey 9.1 and of Redis 8.4. What else it says, the nodes read.
    fn set_timed(request: &Request<'_>) -> Result<Self, &'static str> {
        let mut only = None;
        for option in timed_options(request).ok_or("ERR syntax error")? {
            let existing = Existing::of(option);
            if existing.is_some() && only.is_some_and(|only| existing != Some(only)) {
                return Err("ERR syntax error");
            }
            only = only.or(existing);
        }
        Ok(Self::Set { only, timed: true })
    }

    /// `COPY source destination [DB n] [REPLACE]`
    fn copy(request: &Request<'_>) -> Result<Self, &'static str> {
        let (mut replace, mut database) = (false, None);
        let mut options = request.args().skip(3);
        while let Some(option) = options.next() {
            if option.eq_ignore_ascii_case(b"replace") {
                replace = true;
            } else if option.eq_ignore_ascii_case(b"db") {
                let number = options.next().ok_or("ERR syntax error")?;
                let number = parse_i64(number);
                database = Some(number.ok_or("ERR value is not an integer or out of range")?);
            } else {
                return Err("ERR syntax error");
            }
        }
        Ok(Self::Copy { replace, database })
    }
}

impl Existing {
    fn of(option: &[u8]) -> Option<Self> {
        if option.eq_ignore_ascii_case(b"nx") {
            Some(Self::None)
        } else if option.eq_ignore_ascii_case(b"xx") {
            Some(Self::All)
        } else {
            None
        }
    }
}

/// What stands behind the keys and values of `MSETEX`; `None` where these are fewer than it says.
fn timed_options<'r>(request: &Request<'r>) -> Option<impl Iterator<Item = &'r [u8]>> {
    let pairs = usize::try_from(parse_i64(request.arg(1))?).ok()?;
    let options = pairs.checked_mul(2)?.checked_add(2)?;
    (options <= request.len()).then(|| request.args().skip(options))
}

impl End {
    fn of(word: &[u8]) -> Option<Self> {
        if word.eq_ignore_ascii_case(b"left") {
            Some(Self::Left)
        } else if word.eq_ignore_ascii_case(b"right") {
            Some(Self::Right)
        } else {
            None
        }
    }

    /// Its place in a list.
    fn index(self) -> &'static str {
        match self {
            Self::Left => "0",
            Self::Right => "-1",
        }
    }

    /// The count by which `LREM` takes the first of equal elements from there.
    fn count(self) -> &'static [u8] {
        match self {
            Self::Left => b"1",
            Self::Right => b"-1",
        }
    }

    /// The command that puts an element there.
    fn push(self) -> &'static str {
        match self {
            Self::Left => "LPUSH",
            Self::Right => "RPUSH",
        }
    }
}

impl Dispatch<'_> {
    /// Executes a command whose keys, at these positions, are of several nodes.
    pub(super) fn move_over(
        &mut self,
        what: Result<Move, &'static str>,
        command: &Command,
        request: &Request<'_>,
        positions: &[usize],
    ) -> Flow {
        if self.state.aside.is_none() {
            let moving = what.and_then(|what| self.moving(what, request, positions));
            let moving = match moving {
                Ok(moving) => moving,
                Err(text) => {
                    self.error(text);
                    return Flow::Continue;
                }
            };
            let own = moving.places.iter().map(|place| place.index);
            let refused = own.into_iter().find_map(|index| self.admit_aside(index));
            if let Some(flow) = refused {
                return flow;
            }
            let cancel = CancellationToken::new();
            let guard = moving.waits().then(|| cancel.clone().drop_guard());
            self.begin_aside(moving.run(cancel), guard);
        }
        self.pass_aside(command.form_of(request))
    }

    fn moving(
        &self,
        what: Move,
        request: &Request<'_>,
        positions: &[usize],
    ) -> Result<Moving, &'static str> {
        let mut places: Vec<Located> = positions
            .iter()
            .map(|at| self.locate(request.arg(*at)))
            .collect();
        if let (Move::Copy { database, .. }, [_, target]) = (what, places.as_mut_slice()) {
            let own = i64::from(self.client.database());
            let wanted = database.unwrap_or(own);
            let number = self.database_here(wanted);
            let number = number.ok_or_else(|| no_database(wanted))?;
            self.shared.router.open(number);
            target.node = Arc::clone(self.shared.router.node(number, target.index));
        }
        let timeout = match what {
            Move::Element { waits: true, .. } => seconds(request.arg(request.len() - 1))?,
            _ => Some(Duration::ZERO),
        };
        let rest: Vec<Vec<u8>> = match what {
            Move::Member => vec![request.arg(3).to_vec()],
            Move::Set { .. } => positions
                .iter()
                .map(|at| request.arg(at + 1).to_vec())
                .collect(),
            _ => Vec::new(),
        };
        let options: Vec<Vec<u8>> = match what {
            Move::Set { timed: true, .. } => timed_options(request)
                .into_iter()
                .flatten()
                .filter(|option| Existing::of(option).is_none())
                .map(<[u8]>::to_vec)
                .collect(),
            _ => Vec::new(),
        };
        Ok(Moving {
            what,
            order: Arc::clone(&self.shared.crossings),
            places,
            rest,
            options,
            timeout,
            limit: self.shared.live().server.output_buffer_bytes,
            patience: self.shared.live().upstream.hard_timeout,
        })
    }
}

impl Moving {
    fn waits(&self) -> bool {
        self.timeout != Some(Duration::ZERO)
    }

    async fn run(self, cancel: CancellationToken) -> Answer {
        let begun = tokio::time::Instant::now();
        let mut pause = SHORTEST;
        loop {
            let frame = match self.attempt().await {
                Ok(frame) | Err(frame) => frame,
            };
            if !self.waits() || !reply::is_null(&frame) {
                return Answer::of(frame);
            }
            let left = self.timeout.map(|all| all.saturating_sub(begun.elapsed()));
            if left == Some(Duration::ZERO) {
                return Answer::of(frame);
            }
            // As long as there is nothing to move, the keys need not be locked.
            loop {
                let left = self.timeout.map(|all| all.saturating_sub(begun.elapsed()));
                if left == Some(Duration::ZERO) {
                    return Answer::of(frame);
                }
                tokio::select! {
                    () = tokio::time::sleep(left.map_or(pause, |left| left.min(pause))) => {}
                    () = cancel.cancelled() => return Answer::of(Vec::new()),
                }
                pause = (pause * 2).min(LONGEST);
                if self.is_something_there().await {
                    break;
                }
            }
        }
    }

    /// Whether another attempt may succeed.
    async fn is_something_there(&self) -> bool {
        let [source, ..] = self.places.as_slice() else {
            return true;
        };
        let key = source.key.as_bytes();
        let mut wire = Vec::new();
        encode::request(&mut wire, &[b"LLEN".as_slice(), key]);
        let frame = on_lane(&source.node, |lane, step, ticket| {
            lane.forward(step, &[key], &wire, Effect::Barrier, ticket);
        });
        let frame = frame.await;
        reply::integer(&frame) != Some(0) && !is_wrong_type(&frame)
    }

    async fn attempt(&self) -> Result<Vec<u8>, Vec<u8>> {
        let locked = Locked::new(&self.order, self.places.clone()).await?;
        match (self.what, self.places.as_slice()) {
            (Move::Set { only, timed }, _) => self.set(&locked, only, timed).await,
            (what, [source, target]) => match what {
                Move::Rename { if_new } => self.rename(&locked, source, target, if_new).await,
                Move::Copy { replace, .. } => self.copy(&locked, source, target, replace).await,
                Move::Element { from, to, .. } => {
                    element(&locked, (source, from), (target, to)).await
                }
                _ => self.member(&locked, source, target).await,
            },
            _ => Err(error_frame("syntax error")),
        }
    }

    async fn rename(
        &self,
        locked: &Locked,
        source: &Located,
        target: &Located,
        if_new: bool,
    ) -> Result<Vec<u8>, Vec<u8>> {
        let exists = target.ask(locked, "EXISTS", &[])?;
        let mut remover = Remover::new(locked, source, self.patience).await?;
        let exists = reply::integer(&answer(exists).await?) != Some(0);
        for attempt in 0..ATTEMPTS {
            remover.watch().await?;
            let Some(read) = self.read(locked, source).await? else {
                return Err(error_frame("no such key"));
            };
            let left = read.left.to_string();
            let mut args: Vec<&[u8]> = vec![left.as_bytes(), &read.value];
            if !if_new || attempt > 0 {
                args.push(b"REPLACE");
            } else if exists {
                return Ok(b":0\r\n".to_vec());
            }
            answer(target.ask(locked, "RESTORE", &args)?).await?;
            if remover.remove().await? {
                let done: &[u8] = if if_new { b":1\r\n" } else { b"+OK\r\n" };
                return Ok(done.to_vec());
            }
        }
        Err(error_frame(
            "others change the key on its node all the time; it is at both names",
        ))
    }

    async fn copy(
        &self,
        locked: &Locked,
        source: &Located,
        target: &Located,
        replace: bool,
    ) -> Result<Vec<u8>, Vec<u8>> {
        let exists = target.ask(locked, "EXISTS", &[])?;
        let read = self.read(locked, source).await?;
        let exists = reply::integer(&answer(exists).await?) != Some(0);
        let Some(read) = read.filter(|_| replace || !exists) else {
            return Ok(b":0\r\n".to_vec());
        };
        let left = read.left.to_string();
        let args: &[&[u8]] = &[left.as_bytes(), &read.value, b"REPLACE"];
        answer(target.ask(locked, "RESTORE", args)?).await?;
        Ok(b":1\r\n".to_vec())
    }

    async fn read(&self, locked: &Locked, place: &Located) -> Result<Option<Dumped>, Vec<u8>> {
        let read = place.read(locked).await?;
        if read
            .as_ref()
            .is_some_and(|read| read.value.len() > self.limit)
        {
            let text = "the key is too large to be moved to another node";
            return Err(error_frame(text));
        }
        Ok(read)
    }

    /// Redis's order (`smoveCommand` in `t_set.c`): no source, then the types, then the member.
    async fn member(
        &self,
        locked: &Locked,
        source: &Located,
        target: &Located,
    ) -> Result<Vec<u8>, Vec<u8>> {
        let member: Vec<&[u8]> = self.rest.iter().map(Vec::as_slice).collect();
        let exists = source.ask(locked, "EXISTS", &[])?;
        let has = source.ask(locked, "SISMEMBER", &member)?;
        let type_there = target.ask(locked, "SISMEMBER", &member)?;
        let exists = reply::integer(&answer(exists).await?) != Some(0);
        let has = answer(has).await;
        let type_there = answer(type_there).await;
        if !exists {
            return Ok(b":0\r\n".to_vec());
        }
        let has = has?;
        type_there?;
        if reply::integer(&has) == Some(0) {
            return Ok(has);
        }
        let added = answer(target.ask(locked, "SADD", &member)?).await?;
        let removed = answer(source.ask(locked, "SREM", &member)?).await?;
        if reply::integer(&removed) == Some(0) && reply::integer(&added) != Some(0) {
            // Others have taken it on the node itself: it is theirs.
            answer(target.ask(locked, "SREM", &member)?).await?;
        }
        Ok(removed)
    }

    async fn set(
        &self,
        locked: &Locked,
        only: Option<Existing>,
        timed: bool,
    ) -> Result<Vec<u8>, Vec<u8>> {
        if let Some(only) = only {
            let mut asked = Vec::new();
            for place in &self.places {
                asked.push(place.ask(locked, "EXISTS", &[])?);
            }
            let mut is_so = true;
            for told in asked {
                let exists = reply::integer(&answer(told).await?) != Some(0);
                is_so &= exists == (only == Existing::All);
            }
            if !is_so {
                return Ok(b":0\r\n".to_vec());
            }
        }
        let all: Vec<usize> = (0..self.places.len()).collect();
        let index = |at: usize| self.places.get(at).map_or(0, |place| place.index);
        let mut asked = Vec::new();
        for (_, part) in grouped(&all, index) {
            let pairs: Vec<(&Located, &Vec<u8>)> = part
                .iter()
                .filter_map(|at| self.places.get(*at).zip(self.rest.get(*at)))
                .collect();
            let Some((place, _)) = pairs.first() else {
                continue;
            };
            let count = pairs.len().to_string();
            let mut args: Vec<&[u8]> = if timed {
                vec![b"MSETEX", count.as_bytes()]
            } else {
                vec![b"MSET"]
            };
            for (place, value) in &pairs {
                args.extend([place.key.as_bytes(), value]);
            }
            args.extend(self.options.iter().map(Vec::as_slice));
            let mut wire = Vec::new();
            encode::request(&mut wire, &args);
            asked.push(locked.send(&place.node, &wire, Effect::Barrier)?);
        }
        for told in asked {
            answer(told).await?;
        }
        Ok(b":1\r\n".to_vec())
    }
}

/// Moves an element of a list; none where the source has none.
async fn element(
    locked: &Locked,
    (source, from): (&Located, End),
    (target, to): (&Located, End),
) -> Result<Vec<u8>, Vec<u8>> {
    for _ in 0..ATTEMPTS {
        let frame = answer(source.ask(locked, "LINDEX", &[from.index().as_bytes()])?).await?;
        let Some(found) = reply::text(&frame).filter(|_| !reply::is_null(&frame)) else {
            let mut nothing = Vec::new();
            encode::null(&mut nothing, Protocol::Resp3);
            return Ok(nothing);
        };
        answer(target.ask(locked, to.push(), &[found])?).await?;
        // Only this element, not whatever stands there now.
        let removed = answer(source.ask(locked, "LREM", &[from.count(), found])?).await?;
        if reply::integer(&removed) != Some(0) {
            return Ok(frame);
        }
        // Others have taken it, on the node itself or by a command that waited for one: it is
        // theirs.
        answer(target.ask(locked, "LREM", &[to.count(), found])?).await?;
    }
    Err(error_frame(
        "others take the elements on the list's node all the time; nothing was moved",
    ))
}

/// Removes a key if nobody has changed it on its node since it was read. Otherwise increments by
/// another Tally would be lost with it.
struct Remover<'a> {
    locked: &'a Locked,
    place: &'a Located,
    /// `None` when it is lost.
    connection: Option<Pooled>,
    patience: Duration,
}

impl<'a> Remover<'a> {
    async fn new(
        locked: &'a Locked,
        place: &'a Located,
        patience: Duration,
    ) -> Result<Self, Vec<u8>> {
        let connection = place.node.borrow().await.map_err(error_frame)?;
        Ok(Self {
            locked,
            place,
            connection: Some(connection),
            patience,
        })
    }

    /// From now on changes count.
    async fn watch(&mut self) -> Result<(), Vec<u8>> {
        let mut wire = Vec::new();
        encode::request(&mut wire, &[b"WATCH".as_slice(), self.place.key.as_bytes()]);
        self.transact(&wire, 1).await.map(drop)
    }

    /// Removes the key, and returns whether that was possible.
    async fn remove(&mut self) -> Result<bool, Vec<u8>> {
        let mut wire = Vec::new();
        encode::request(&mut wire, &[b"MULTI"]);
        encode::request(&mut wire, &[b"DEL".as_slice(), self.place.key.as_bytes()]);
        encode::request(&mut wire, &[b"EXEC"]);
        let frame = self.transact(&wire, 3).await?;
        let removed = !reply::is_null(&frame);
        if let Some(connection) = self.connection.take_if(|_| removed) {
            self.place.node.take_back(connection);
        }
        Ok(removed)
    }

    async fn transact(&mut self, wire: &[u8], replies: usize) -> Result<Vec<u8>, Vec<u8>> {
        let Some(mut connection) = self.connection.take() else {
            return Err(error_frame("the connection was lost"));
        };
        match connection.transact(wire, replies, self.patience).await {
            Ok(frame) if reply::is_error(&frame) => Err(frame),
            Ok(frame) => {
                self.connection = Some(connection);
                Ok(frame)
            }
            Err(lost) => {
                let error = format!("node {}: {lost}", self.place.node.name());
                self.locked.fence(&self.place.node, connection).await;
                Err(error_frame(error))
            }
        }
    }
}

/// How often a key is read that others keep changing.
const ATTEMPTS: usize = 8;
