//! The world of the search: clients, table, lane, connection and node, and every step that any of
//! them can take next.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher as _};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Hashed;
use super::beside::Beside;
use super::clients::{ButtIn, Clients, timed};
use super::limits;
use super::moments;
use super::monitor::{Command, LEFT, Monitor};
use super::node::script;
use super::scenarios::{Grants, Scenario};
use super::server::{self, Argv, Promise, Server, Unit, Watch, argv};
use crate::counter::{
    Effect, Extent, KeyTable, Lane, Limits, Remaining, Rules, Step, TableLimits, Timed, Treatment,
};
use crate::flush::{Applier, Apply, Series};
use crate::resp::{encode, parse_i64, reply};

pub(super) const KEYS: [&str; 2] = ["a", "b"];

/// One step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Action {
    /// A client's next command.
    Ask(usize),
    /// The lane's bytes leave.
    Send,
    /// The node executes what is next.
    Execute,
    /// It refuses the batch that is next: it has forgotten the script, or has no memory.
    Refuse {
        forgotten: bool,
    },
    /// What the node answered, or told, arrives.
    Hear,
    /// The time of a flush has come.
    Flush,
    Lose,
    Connect,
    /// The next step of a batch on the connection beside: it looks, is applied, is told of.
    Beside,
    /// Its transaction is refused.
    RefuseBeside,
    /// The transaction of a lost connection is executed, if nothing was changed.
    LateBeside,
    /// Bytes of the lost connection are executed, or the rest of them never.
    Late,
    NoLater,
    Foreign,
    Timeout,
    /// The windows end.
    Window,
}

pub(super) struct World {
    pub(super) lane: Lane<usize>,
    table: Rc<KeyTable>,
    pub(super) server: Server,
    clients: Clients,
    pub(super) now: Instant,
    pub(super) up: bool,
    inbox: VecDeque<Unit>,
    pub(super) outbox: VecDeque<Vec<Vec<u8>>>,
    late: VecDeque<Unit>,
    pub(super) beside: Option<Beside>,
    late_beside: Option<(Apply, Watch)>,
    losses: u8,
    refusals: u8,
    timeouts: u8,
    foreign: usize,
    fence: bool,
}

pub(super) const UNKNOWN: &[u8] = b"-ERR unknown\r\n";
const UNSENT: &[u8] = b"-ERR unsent\r\n";
const LEASE: Duration = Duration::from_millis(50);

impl World {
    pub(super) fn new(scenario: &'static Scenario, broken: Option<Promise>) -> Self {
        let limits = TableLimits {
            max_keys: 10,
            max_cached_bytes: 1000,
            crowd: 10,
            lease: LEASE,
            counter_lease: LEASE,
            guard: Duration::ZERO,
        };
        let treatment = Treatment {
            mode: scenario.mode,
            flush_interval: LEASE,
            cache_ttl: LEASE,
            window: scenario.window,
            local_grants: scenario.grants == Grants::Here,
        };
        let lane = Lane::new(
            Limits {
                max_in_flight: 100,
                max_unsent_bytes: 1 << 16,
                warm: true,
            },
            Series::new("search", 0, 1),
        );
        let mut world = Self {
            server: Server::new(scenario.values, lane.marker(), scenario.tells, broken),
            lane,
            table: Rc::new(KeyTable::with_rules(limits, Rules::new(treatment, []), 1)),
            clients: Clients::new(scenario),
            now: super::now(),
            up: false,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            late: VecDeque::new(),
            beside: None,
            late_beside: None,
            losses: scenario.losses,
            refusals: scenario.refusals,
            timeouts: scenario.timeouts,
            foreign: 0,
            fence: broken != Some(Promise::Fence),
        };
        world.connect();
        world.settle();
        if scenario.warm {
            world.warm_up();
        }
        world
    }

    /// The same once more.
    pub(super) fn copy(&self) -> Self {
        Self {
            lane: self.lane.clone(),
            table: Rc::new(self.table.copy()),
            server: self.server.clone(),
            clients: self.clients.clone(),
            inbox: self.inbox.clone(),
            outbox: self.outbox.clone(),
            late: self.late.clone(),
            beside: self.beside.clone(),
            late_beside: self.late_beside.clone(),
            ..*self
        }
    }

    /// All that the future depends on, as one number.
    pub(super) fn hash(&mut self) -> u64 {
        let mut hasher = Hashed::default();
        self.table.hash(&KEYS, &mut hasher);
        self.server.hash(&mut hasher);
        self.lane.hash(&mut hasher);
        let clients = &self.clients;
        (&clients.monitor, &clients.asked, &clients.waits).hash(&mut hasher);
        (self.up, &self.inbox, &self.outbox, &self.late).hash(&mut hasher);
        let beside = (&self.beside, &self.late_beside);
        write!(hasher, "{beside:?}").unwrap_or_default();
        let budgets = (self.losses, self.refusals, self.timeouts, self.foreign);
        budgets.hash(&mut hasher);
        hasher.finish()
    }

    /// What may happen next.
    pub(super) fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let scenario = self.clients.scenario;
        let clients = 0..scenario.programs.len();
        actions.extend(
            clients
                .filter(|client| self.clients.may_ask(*client))
                .map(Action::Ask),
        );
        if self.up {
            actions.push(Action::Send);
            if self.table.dirty() > 0 || !self.lane.is_applied() {
                actions.push(Action::Flush);
            }
            let busy = self.lane.oldest().is_some() || self.beside.is_some();
            if self.losses > 0 && (busy || !scenario.foreign.is_empty()) {
                actions.push(Action::Lose);
            }
            if self.timeouts > 0 && busy {
                actions.push(Action::Timeout);
            }
        } else {
            actions.push(Action::Connect);
        }
        if let Some(unit) = self.inbox.front() {
            actions.push(Action::Execute);
            if self.refusals > 0 && unit.is_batch() {
                actions.push(Action::Refuse { forgotten: true });
                actions.push(Action::Refuse { forgotten: false });
            }
        }
        if !self.outbox.is_empty() {
            actions.push(Action::Hear);
        }
        if !self.late.is_empty() {
            actions.extend([Action::Late, Action::NoLater]);
        }
        if self.up && (self.beside.is_some() || self.lane.has_call()) {
            actions.push(Action::Beside);
        }
        if self.refusals > 0 && matches!(self.beside, Some(Beside::Looked { .. })) {
            actions.push(Action::RefuseBeside);
        }
        if self.late_beside.is_some() {
            actions.extend([Action::LateBeside, Action::NoLater]);
        }
        if self.lane.next_window().is_some() {
            actions.push(Action::Window);
        }
        if self.foreign < scenario.foreign.len() {
            actions.push(Action::Foreign);
        }
        actions
    }

    /// Takes a step. False when it can not be taken in this way after all; an error when it shows
    /// a fault.
    pub(super) fn take(&mut self, action: Action, butts_in: ButtIn) -> Result<bool, String> {
        self.clients.butts_in = butts_in;
        self.clients.moments = 0;
        let taken = self.act(action);
        if let Some(fault) = self.clients.fault.take() {
            return Err(fault);
        }
        Ok(taken && self.clients.butts_in.is_none())
    }

    /// Clients whose next command the table may answer.
    pub(super) fn may_butt_in(&self) -> impl Iterator<Item = usize> {
        let clients = &self.clients;
        let next = |(client, program): &(usize, &&'static [Command])| {
            let next = program.get(clients.asked[*client]);
            let by_table = |next: &Command| {
                let value = matches!(
                    next,
                    Command::Add(..) | Command::Get(_) | Command::Limit(..)
                );
                value || timed(*next).is_some()
            };
            next.is_some_and(by_table)
        };
        clients.programs().filter(next).map(|(client, _)| client)
    }

    /// In how many moments of the last step others could act.
    pub(super) fn moments(&self) -> usize {
        self.clients.moments
    }

    /// Whether everything asked for is done, and what must be true then.
    pub(super) fn rest(&mut self) -> Result<bool, String> {
        let fates = self.lane.fates(&self.table);
        let sum = fates.applied
            + fates.in_flight
            + fates.pending
            + fates.expired
            + fates.refused
            + fates.in_doubt;
        if fates.acknowledged != sum {
            return Err(format!("not conserved: {fates:?}"));
        }
        let done = self
            .clients
            .programs()
            .all(|(client, program)| self.clients.asked[client] == program.len());
        let silent = self.inbox.is_empty() && self.outbox.is_empty() && self.late.is_empty();
        let silent = silent && self.beside.is_none() && self.late_beside.is_none();
        let still = self.lane.is_idle() && self.lane.unsent_bytes() == 0 && self.table.dirty() == 0;
        if !(done && silent && still && self.up) {
            return Ok(false);
        }
        if !self.clients.monitor.is_answered() {
            return Err("a command was never answered".to_owned());
        }
        let values = self.server.values();
        if self.clients.ordered() && !self.clients.monitor.allows(values) {
            return Err(format!("no order leaves {values:?} on the node"));
        }
        let now = if self.clients.scenario.tells {
            self.now
        } else {
            self.now + LEASE
        };
        for key in KEYS {
            let mut told = Vec::new();
            let truth = self.server.get(key);
            if self.table.get(key.as_bytes(), now, &mut told) && told != truth {
                let (told, truth) = (told.escape_ascii(), truth.escape_ascii());
                return Err(format!("at rest {key} is {truth}, and {told} is told"));
            }
            if let Some(limit) = self.repeats_denial(key, now) {
                return Err(format!(
                    "at rest {key} is not {limit}, and calls are denied"
                ));
            }
            let left = Timed::Remaining(Remaining::Milliseconds);
            let truth = self.server.left(key);
            if let Some(told) = self.table.timed(key.as_bytes(), left, now)
                && told != truth
            {
                return Err(format!("at rest {key} has {truth} ms, and {told} is told"));
            }
        }
        Ok(true)
    }

    /// A limit whose calls are denied here, though the node would not deny them.
    fn repeats_denial(&mut self, key: &str, now: Instant) -> Option<i64> {
        let scenario = self.clients.scenario;
        let is_call = |command: &Command| matches!(command, Command::Limit(..));
        let mut commands = scenario.programs.iter().copied().flatten();
        // A call that is not denied would count, where it is granted here.
        if scenario.grants == Grants::Here || !commands.any(is_call) {
            return None;
        }
        let at = KEYS.iter().position(|name| *name == key)?;
        let truth = reply::text(&self.server.get(key)).and_then(parse_i64);
        let limit = truth.unwrap_or(0).checked_add(1)?;
        let (call, _) = limits::call(at, limit);
        self.table.limit(&call, now).map(|_| limit)
    }

    /// The step in words.
    pub(super) fn shown(&self, action: Action) -> String {
        let unit = |unit: Option<&Unit>| unit.map(Unit::shown).unwrap_or_default();
        match action {
            Action::Ask(client) => {
                let program = self.clients.scenario.programs[client];
                format!("client {client}: {:?}", program[self.clients.asked[client]])
            }
            Action::Execute | Action::Refuse { .. } => {
                format!("{action:?} {}", unit(self.inbox.front()))
            }
            Action::Late => format!("{action:?} {}", unit(self.late.front())),
            Action::Hear => {
                let frames = self.outbox.front().map(|frames| frames.concat());
                format!("{action:?} {}", frames.unwrap_or_default().escape_ascii())
            }
            _ => format!("{action:?}"),
        }
    }

    fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Ask(client) => return self.ask(client),
            Action::Send => self.send(),
            Action::Execute => self.server.execute(&mut self.inbox, &mut self.outbox),
            Action::Refuse { forgotten } => {
                self.refusals -= 1;
                self.inbox.pop_front();
                self.server.refuse(forgotten, &mut self.outbox);
            }
            Action::Hear => self.hear(),
            Action::Flush => self.step(|lane, step| lane.begin_flush(step.table)),
            Action::Lose => {
                self.losses -= 1;
                let late = std::mem::take(&mut self.inbox);
                if !self.fence {
                    self.late = late;
                }
                self.outbox.clear();
                if let Some(Beside::Looked { apply, watch, .. }) = self.beside.take() {
                    self.late_beside = Some((apply, watch));
                }
                self.up = false;
                self.step(|lane, step| lane.disconnected(step, UNKNOWN, UNSENT));
            }
            Action::Connect => self.connect(),
            Action::Late => {
                if let Some(unit) = self.late.pop_front() {
                    for argv in unit.into_argvs() {
                        self.foreign(&argv);
                    }
                }
            }
            Action::NoLater => {
                self.late.clear();
                self.late_beside = None;
            }
            Action::Beside => return self.turn_beside(),
            Action::RefuseBeside => {
                self.refusals -= 1;
                if let Some(Beside::Looked { call, apply, .. }) = self.beside.take() {
                    let outcome = call.applied(apply, &[server::OOM.to_vec()]);
                    self.beside = outcome.map(|outcome| Beside::Told { call, outcome });
                }
            }
            Action::LateBeside => {
                if let Some((apply, watch)) = self.late_beside.take() {
                    self.apply(&apply, &watch);
                }
            }
            Action::Foreign => {
                let command = argv(self.clients.scenario.foreign[self.foreign]);
                self.foreign += 1;
                self.foreign(&command);
            }
            Action::Window => {
                // No other wait ends with it: time goes back.
                let now = self.now;
                self.now += self.clients.scenario.window;
                self.step(Lane::end_windows);
                self.now = now;
            }
            Action::Timeout => {
                self.timeouts -= 1;
                self.step(|lane, step| {
                    lane.expire(step, Duration::ZERO, (UNKNOWN, UNSENT));
                });
            }
        }
        true
    }

    fn foreign(&mut self, argv: &Argv) {
        let told = self.server.foreign(argv);
        if self.up {
            self.outbox.extend(told);
        }
    }

    fn connect(&mut self) {
        self.up = true;
        self.server.reconnected();
        let applier = if self.clients.scenario.scripts {
            script()
        } else {
            Applier::Transaction
        };
        let tells = self.server.tells;
        self.step(|lane, step| {
            lane.connected(step.table, step.now, Some(applier), None, tells);
            lane.set_takes_down_reads(tells);
        });
    }

    fn send(&mut self) {
        let bytes = self.step(|lane, step| lane.take_wire(step.table, step.now, Vec::new()));
        Unit::read(&bytes, &mut self.inbox);
    }

    fn hear(&mut self) {
        let frames = self.outbox.pop_front().unwrap_or_default();
        self.step(|lane, step| {
            for frame in frames {
                if !reply::is_push(&frame) {
                    lane.on_reply(step, &frame).unwrap();
                    continue;
                }
                let mut parts = reply::elements(&frame).into_iter().flatten().skip(1);
                match parts.next().and_then(reply::elements) {
                    None => lane.invalidate_all(step),
                    Some(keys) => keys
                        .filter_map(reply::text)
                        .for_each(|key| lane.invalidate(step, key)),
                }
            }
        });
    }

    /// As a session does it. Without a connection only the table is asked.
    fn ask(&mut self, client: usize) -> bool {
        if self.clients.ask_table(client, &self.table, self.now) {
            return true;
        }
        if !self.up {
            return false;
        }
        let (id, command) = self.clients.begin(client);
        let key = |key: usize| KEYS[key].as_bytes();
        let deadline = |command| timed(command).expect("it is about a deadline");
        self.clients.busy = Some(client);
        self.step(|lane, step| match command {
            Command::Add(at, delta) => lane.increment(step, key(at), delta, id),
            Command::Get(at) => lane.get(step, key(at), id),
            Command::FlushAll => {
                let wire = wire(&["FLUSHALL"]);
                lane.whole_node(step, &wire, Extent::Wipe, id);
            }
            Command::Set(at, value) => {
                let wire = wire(&["SET", KEYS[at], &value.to_string()]);
                lane.forward(step, &[key(at)], &wire, Effect::Barrier, id);
            }
            Command::Del(at) => {
                let wire = wire(&["DEL", KEYS[at]]);
                lane.forward(step, &[key(at)], &wire, Effect::Barrier, id);
            }
            Command::Expire(at) => {
                let wire = wire(&["PEXPIRE", KEYS[at], &LEFT.to_string()]);
                lane.timed(step, key(at), deadline(command), &wire, id);
            }
            Command::Ttl(at) => {
                let wire = wire(&["PTTL", KEYS[at]]);
                lane.timed(step, key(at), deadline(command), &wire, id);
            }
            Command::Limit(at, limit) => {
                let (call, wire) = limits::call(at, limit);
                lane.limit(step, call, &wire, id);
            }
            Command::DelBoth => {
                let wire = wire(&["DEL", KEYS[0], KEYS[1]]);
                lane.forward(step, &[key(0), key(1)], &wire, Effect::Barrier, id);
            }
        });
        self.clients.busy = None;
        true
    }

    pub(super) fn step<R>(
        &mut self,
        run: impl FnOnce(&mut Lane<usize>, &mut Step<'_, usize>) -> R,
    ) -> R {
        let others = Clients::new(self.clients.scenario);
        let clients = std::mem::replace(&mut self.clients, others);
        let clients = Rc::new(RefCell::new(clients));
        let mut deliver = |id, frame: &[u8]| {
            moments::pass();
            clients.borrow_mut().told(id, frame);
        };
        let mut step = Step {
            table: &self.table,
            now: self.now,
            deliver: &mut deliver,
        };
        let (others, table, now) = (Rc::clone(&clients), Rc::clone(&self.table), self.now);
        let butt_in = move || others.borrow_mut().butt_in(&table, now);
        let result = moments::with(butt_in, || run(&mut self.lane, &mut step));
        self.clients = Rc::into_inner(clients)
            .expect("the hook is gone")
            .into_inner();
        result
    }

    /// Without anything going wrong until nothing is left to do.
    fn settle(&mut self) {
        loop {
            self.send();
            while !self.inbox.is_empty() {
                self.server.execute(&mut self.inbox, &mut self.outbox);
            }
            let turned = (self.beside.is_some() || self.lane.has_call()) && self.turn_beside();
            if self.outbox.is_empty() && !turned {
                return;
            }
            while !self.outbox.is_empty() {
                self.hear();
            }
        }
    }

    /// Makes the keys that clients name warm, by increments of nothing.
    fn warm_up(&mut self) {
        for (key, name) in KEYS.iter().enumerate() {
            let named = |command: &Command| command.concerns(key);
            if !self
                .clients
                .scenario
                .programs
                .iter()
                .any(|program| program.iter().any(named))
            {
                continue;
            }
            for _ in 0..2 {
                self.step(|lane, step| lane.increment(step, name.as_bytes(), 0, usize::MAX));
                self.settle();
            }
        }
        self.clients.monitor = Monitor::new(self.server.values());
        self.clients.fault = None;
    }
}

impl Lane<usize> {
    /// Takes in all that the future depends on: what waits for what, not how much was done before.
    fn hash(&self, hasher: &mut Hashed) {
        self.wire.hash(hasher);
        for slot in &self.fifo {
            (slot.start < self.taken).hash(hasher);
            write!(hasher, "{:?}", slot.what).unwrap_or_default();
        }
        let queues = (&self.queues, &self.parked, &self.fetches, &self.hold);
        write!(hasher, "{:?}{}", self.bundles, self.brought.len()).unwrap_or_default();
        let flushes = (&self.series, &self.urgent, &self.dirty, self.flushing);
        self.calling.is_some().hash(hasher);
        let rest = (self.told, self.next_shard, self.shards_left, &self.windows);
        write!(hasher, "{queues:?}{flushes:?}{rest:?}").unwrap_or_default();
    }
}

fn wire(words: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::request(&mut out, words);
    out
}
