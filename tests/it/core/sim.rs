//! A deterministic world around one table and one lane: clients, a node, and what lies between
//! them, moved on one step at a time by a seeded generator.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use tally::counter::{
    Condition, Effect, Expiry, Extent, Fates, KeyTable, Lane, Losses, Mode, Source, Step, Timed,
    When,
};
use tally::flush::{Applier, Commits, Slots};
use tally::key::Key;
use tally::resp::parse_i64;

use super::aside::{Aside, Late};
use super::book::{Book, Ticket, delta_of, keys_of, show, show_wire, wire};
use super::crash::process;
use super::node::{Fault, Node, Value, script};
use super::plan::Plan;

pub(crate) struct Sim {
    pub(crate) table: KeyTable,
    pub(crate) lane: Lane<Ticket>,
    pub(crate) node: Node,
    pub(crate) now: Instant,
    pub(crate) book: Book,
    pub(crate) losses: HashMap<Vec<u8>, Lost>,
    /// Sent, and not executed.
    inbox: Vec<u8>,
    /// Answered, and not read.
    outbox: VecDeque<Vec<u8>>,
    swept: usize,
    pub(super) words: Option<&'static [AtomicU64]>,
    pub(super) slots: Option<&'static Slots>,
    /// What the disk has of the journal.
    pub(super) disk: Vec<u64>,
    pub(super) commits: Option<&'static Commits>,
    /// The disk is being written, up to this note.
    pub(super) syncing: Option<u64>,
    /// Bytes with batches that wait for the disk, and for which note.
    pub(super) held: Option<(u64, Vec<u8>)>,
    /// What is under way on the connection for batches of a node without scripts.
    pub(super) aside: Option<Aside>,
    /// What was, on one that is lost, and may be executed yet.
    pub(super) late: Option<Late>,
    /// There is no connection.
    pub(crate) away: bool,
    snapshot: Option<Node>,
    /// Batches that the node forgot.
    pub(crate) forgotten: u64,
    /// The node once refused to create the marker.
    pub(crate) unmarked: bool,
    /// Requests that the node has executed.
    pub(crate) executed: usize,
}

/// Acknowledged increments of one key that did not arrive, or perhaps not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lost {
    pub(crate) refused: i64,
    /// Each may have arrived or not.
    pub(crate) in_doubt: Vec<i64>,
}

pub(crate) const UNKNOWN: &[u8] = b"-ERR unknown\r\n";
pub(crate) const UNSENT: &[u8] = b"-ERR unsent\r\n";

impl Sim {
    pub(crate) fn new(plan: Plan, seed: u64) -> Self {
        let words = Self::journal(&plan);
        let now = tokio::time::Instant::now().into_std();
        let commits = plan.commits.then(|| &*Box::leak(Box::default()));
        let (table, lane, slots) = process(&plan, seed, words, now, (commits, false));
        let mut sim = Self {
            table,
            lane,
            slots,
            words,
            disk: vec![0; words.map_or(0, <[_]>::len)],
            commits,
            syncing: None,
            held: None,
            node: Node::default(),
            now,
            losses: HashMap::new(),
            inbox: Vec::new(),
            outbox: VecDeque::new(),
            swept: 0,
            aside: None,
            late: None,
            away: true,
            snapshot: None,
            forgotten: 0,
            unmarked: false,
            executed: 0,
            book: Book::new(plan, seed),
        };
        sim.book.commits = commits;
        sim.connect();
        sim
    }

    /// A whole run, brought to rest.
    pub(crate) fn run(&mut self) {
        let mut left = self.book.plan.commands;
        while left > 0 {
            if self.book.random.one_in(2) {
                let client = self.book.random.below(self.book.plan.clients);
                let argv = (self.book.plan.command)(&mut self.book.random, self.book.plan.keys);
                left -= usize::from(self.submit(client, &argv));
            } else {
                self.happen();
            }
            self.check();
        }
        self.rest();
    }

    /// Something other than a client's command.
    fn happen(&mut self) {
        let plan = self.book.plan;
        if plan.outages && self.book.random.one_in(4) {
            self.turn_disk();
        }
        if self.away && self.book.random.one_in(6) {
            self.connect();
        }
        match self.book.random.below(27) {
            0..=4 => self.send(),
            5..=10 if !plan.scripts && self.book.random.one_in(3) => _ = self.turn_aside(),
            5..=10 => self.execute(1),
            11..=17 => _ = self.read_one(),
            18 => self.flush_some(),
            19 => self.swept = self.table.sweep(self.swept, 16, self.now),
            20 => {
                let ms = [1, 7, 20, 60][self.book.random.below(4)];
                self.advance(ms);
            }
            21 if plan.losses && !self.away && self.book.random.one_in(4) => self.disconnect(),
            22 if plan.timeouts => self.expire(),
            21 if plan.faults && self.book.random.one_in(4) => {
                let faults = [Fault::Oom, Fault::ReadOnly, Fault::Loading];
                let fault = faults[self.book.random.below(3)];
                self.node.fault = Some((fault, 1 + self.book.random.below(8)));
                self.book.note(|| format!("fault {fault:?}"));
            }
            23 if plan.foreign && self.book.random.one_in(2) => {
                let argv = (plan.command)(&mut self.book.random, plan.keys);
                if self.node.fault.is_none() {
                    self.book.note(|| format!("foreign {}", show(&argv)));
                    // An own connection: no transaction is open there.
                    let mut other = self.node.clone();
                    other.hang_up();
                    other.command(&argv);
                    self.node.adopt(other);
                }
            }
            24 if !plan.scripts => self.execute_late(),
            24 if plan.forgets && self.book.random.one_in(2) => {
                self.book.note(|| "the node forgets the script".into());
                self.node.script = false;
            }
            26 if plan.outages && self.book.random.one_in(3) => self.lose_power(),
            26 if plan.kills && self.book.random.one_in(2) => self.kill(),
            25 if plan.evicts && self.book.random.one_in(2) => self.evict(),
            26 if plan.restores && self.book.random.one_in(2) => match self.snapshot.take() {
                Some(before) if !self.away => {
                    self.disconnect();
                    self.book.note(|| "the node is as it was".into());
                    self.node.adopt(before);
                }
                _ if self.node.value(self.lane.marker()).is_none() => {}
                _ => self.snapshot = Some(self.node.clone()),
            },
            _ => {}
        }
    }

    /// The marker vanishes.
    pub(crate) fn evict(&mut self) {
        self.book.note(|| "the marker is evicted".into());
        self.node.evict(self.lane.marker());
    }

    /// As `session::dispatch` does it; false when there is no room.
    pub(crate) fn submit(&mut self, client: usize, argv: &[Vec<u8>]) -> bool {
        let name = argv[0].as_slice();
        let key = argv.get(1).map_or(b"".as_slice(), Vec::as_slice);
        if matches!(name, b"INCRBY" | b"GET")
            && self.book.locally(client, argv, &self.table, self.now)
        {
            return true;
        }
        if self.away || !self.lane.has_room() {
            return false;
        }
        let keys = keys_of(argv);
        let wire = wire(argv);
        let parts = if name == b"MGET" { keys.len() } else { 1 };
        let id = self.book.begin(client, argv, parts);
        let mut missing = Vec::new();
        if name == b"MGET" {
            for (at, key) in keys.iter().enumerate() {
                let mut frame = Vec::new();
                if self.table.get(key, self.now, &mut frame) {
                    self.book.deliver((id, at), &frame);
                } else {
                    missing.push((Key::new(key), (id, at)));
                }
            }
            if missing.is_empty() {
                return true;
            }
        }
        self.book.busy = Some(client);
        let through = self.table.policy(key).mode == Mode::Through;
        self.step(|lane, step| match name {
            b"INCRBY" | b"GET" if through => {
                lane.forward(step, &keys, &wire, Effect::Barrier, (id, 0));
            }
            b"INCRBY" => lane.increment(step, key, delta_of(argv), (id, 0)),
            b"GET" => lane.get(step, key, (id, 0)),
            b"MGET" => lane.get_many(step, missing),
            b"PING" | b"DBSIZE" => lane.keyless(step, &wire, (id, 0)),
            b"FLUSHALL" => lane.whole_node(step, &wire, Extent::Wipe, (id, 0)),
            b"DEBUG" => lane.whole_node(step, &wire, Extent::AnyKey, (id, 0)),
            b"EXISTS" | b"TYPE" => lane.forward(step, &keys, &wire, Effect::Peek, (id, 0)),
            b"EXPIRE" | b"PEXPIRE" => {
                let time = u64::try_from(parse_i64(&argv[2]).unwrap()).unwrap();
                let ms = if name == b"EXPIRE" { time * 1000 } else { time };
                let expiry = Expiry {
                    when: When::In(ms),
                    condition: Condition::Always,
                };
                lane.timed(step, key, Timed::Expire(expiry), &wire, (id, 0));
            }
            _ => lane.forward(step, &keys, &wire, Effect::Barrier, (id, 0)),
        });
        self.book.busy = None;
        true
    }

    pub(super) fn step<R>(
        &mut self,
        run: impl FnOnce(&mut Lane<Ticket>, &mut Step<'_, Ticket>) -> R,
    ) -> R {
        let (book, table, now) = (&mut self.book, &self.table, self.now);
        // No shard is locked while a reply is delivered, so others go on meanwhile.
        let mut deliver = |ticket, frame: &[u8]| {
            book.butt_in(table, now);
            book.deliver(ticket, frame);
            book.butt_in(table, now);
        };
        let mut step = Step {
            table,
            now,
            deliver: &mut deliver,
        };
        run(&mut self.lane, &mut step)
    }

    /// The lane's bytes leave.
    pub(crate) fn send(&mut self) {
        if !self.away {
            if self.held.is_some() {
                return;
            }
            let bytes = self.lane.take_wire(&self.table, self.now, Vec::new());
            self.held = Some((self.lane.sealed_at(), bytes));
            self.let_go();
        }
    }

    /// What was held leaves, if what it waits for is on the disk.
    pub(super) fn let_go(&mut self) {
        let Some((note, bytes)) = self.held.take() else {
            return;
        };
        match self.commits {
            Some(commits) if !commits.is_kept(note) => self.held = Some((note, bytes)),
            _ => self.inbox.extend(bytes),
        }
    }

    /// The node executes so many requests at most.
    pub(crate) fn execute(&mut self, most: usize) {
        for _ in 0..most {
            if self.inbox.is_empty() {
                return;
            }
            let (length, reply) = self.node.execute(&self.inbox);
            self.executed += 1;
            let request: Vec<u8> = self.inbox.drain(..length).collect();
            self.unmarked |= request.starts_with(b"*6\r\n$3\r\nSET") && reply.starts_with(b"-");
            self.book.note(|| {
                format!(
                    "  node: {} -> {}",
                    show_wire(&request),
                    reply.escape_ascii()
                )
            });
            self.outbox.push_back(reply);
        }
    }

    /// One reply arrives; false when there is none.
    pub(crate) fn read_one(&mut self) -> bool {
        let Some(reply) = self.outbox.pop_front() else {
            return false;
        };
        self.step(|lane, step| lane.on_reply(step, &reply)).unwrap();
        self.losses_are_told();
        true
    }

    pub(super) fn losses_are_told(&mut self) {
        let losses = self.lane.take_losses();
        let is_told = losses.in_doubt.is_empty() || !self.book.plan.kills;
        if !is_told && self.book.random.one_in(2) {
            // Before anybody was told of what is given up.
            return self.kill();
        }
        self.keep(losses);
    }

    pub(crate) fn flush(&mut self) {
        if !self.away {
            self.lane.begin_flush(&self.table);
        }
    }

    /// A flush of one class of keys.
    fn flush_some(&mut self) {
        let classes = self.table.rules().intervals().len();
        if !self.away {
            let class = u8::try_from(self.book.random.below(classes)).unwrap();
            let spread = Duration::from_millis([0, 50][self.book.random.below(2)]);
            self.lane
                .begin_flush_of(&self.table, class, self.now, spread);
        }
    }

    pub(crate) fn advance(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.node.now += ms;
        self.step(Lane::end_windows);
    }

    /// The connection breaks. What was sent is executed up to some request, then never.
    pub(crate) fn disconnect(&mut self) {
        let most = self.book.random.below(12);
        self.execute(most);
        self.lose_aside();
        self.node.hang_up();
        self.inbox.clear();
        self.outbox.clear();
        self.held = None;
        self.book.note(|| "connection lost".into());
        self.step(|lane, step| lane.disconnected(step, UNKNOWN, UNSENT));
        self.keep_losses();
        self.away = true;
        assert_eq!(self.lane.in_flight(), 0, "{:?}", self.lane);
    }

    /// A new connection, on which the script was loaded.
    pub(crate) fn connect(&mut self) {
        self.book.note(|| "connected".into());
        self.away = false;
        self.node.script = true;
        let marker = match self.node.value(self.lane.marker()) {
            Some(Value::Text(marker)) => Some(marker),
            _ => None,
        };
        let marker = marker.as_deref();
        let applier = if self.book.plan.scripts {
            script()
        } else {
            Applier::Transaction
        };
        // What others do is not told here.
        let tells = !self.book.plan.foreign;
        self.lane
            .connected(&self.table, self.now, Some(applier), marker, tells);
    }

    /// The node tells that somebody else changed a key.
    pub(crate) fn told(&mut self, key: &str) {
        self.step(|lane, step| lane.invalidate(step, key.as_bytes()));
    }

    pub(crate) fn expire(&mut self) {
        self.step(|lane, step| lane.expire(step, Duration::from_millis(15), (UNKNOWN, UNSENT)));
    }

    fn keep_losses(&mut self) {
        let losses = self.lane.take_losses();
        self.keep(losses);
    }

    fn keep(&mut self, losses: Losses) {
        self.table.named(&losses);
        let Losses {
            refused,
            in_doubt,
            forgotten_count,
            ..
        } = losses;
        self.forgotten += forgotten_count;
        for (increment, _) in refused {
            let lost = self.losses.entry(increment.key.as_bytes().to_vec());
            let lost = lost.or_default();
            lost.refused = lost.refused.wrapping_add(increment.delta);
        }
        for increment in in_doubt {
            let lost = self.losses.entry(increment.key.as_bytes().to_vec());
            lost.or_default().in_doubt.push(increment.delta);
        }
    }

    /// What holds at every moment.
    pub(crate) fn check(&self) {
        let (open, most) = (self.book.open, self.book.plan.lane.max_in_flight);
        assert!(open <= most, "{open} commands at once: {:?}", self.lane);
        let fates = self.fates();
        let places = [
            fates.applied,
            fates.in_flight,
            fates.pending,
            fates.expired,
            fates.refused,
            fates.in_doubt,
        ];
        assert_eq!(fates.acknowledged, places.iter().sum::<u64>(), "{fates:?}");
        for key in self.book.plan.keys {
            let source = self.table.source(key.as_bytes(), self.now);
            match self.table.policy(key.as_bytes()).mode {
                Mode::Buffered => {}
                Mode::Exact => assert_ne!(source, Source::Memory, "key {key}"),
                Mode::Through => assert_eq!(source, Source::Node, "key {key}"),
            }
        }
    }

    /// Where the acknowledged increments are.
    pub(crate) fn fates(&self) -> Fates {
        self.lane.fates(&self.table)
    }

    /// Nothing more is submitted: everything is sent, executed and answered.
    pub(crate) fn rest(&mut self) {
        self.node.fault = None;
        self.rest_with_faults();
    }

    /// The same, with the faults that are left.
    pub(crate) fn rest_with_faults(&mut self) {
        for _ in 0..2000 {
            if self.away {
                self.connect();
            }
            if self.lane.next_due().is_some() {
                self.advance(5);
            }
            self.send();
            self.syncing = self.commits.map(Commits::noted);
            self.turn_disk();
            self.execute(usize::MAX);
            while self.read_one() || self.turn_aside() {}
            if self.lane.unsent_bytes() > 0 {
                continue;
            }
            if self.lane.is_idle() && self.table.dirty() == 0 {
                self.keep_losses();
                return;
            }
            self.flush();
        }
        panic!("never at rest: {:?}", self.lane);
    }

    /// Asserts what holds once everything is at rest.
    pub(crate) fn check_at_rest(&mut self) {
        for operation in &self.book.operations {
            let heard = operation.parts.iter().all(Option::is_some);
            assert!(heard, "no reply: {operation:?}");
        }
        let lane = format!("{:?}", self.lane);
        for nothing in [
            "in_flight: 0",
            "waiting: 0",
            "queues: 0",
            "parked: 0",
            "fetches: 0",
            "joined: 0",
        ] {
            assert!(lane.contains(nothing), "{lane}");
        }
        self.check();
        let fates = self.fates();
        assert_eq!((fates.pending, fates.in_flight), (0, 0), "{fates:?}");
        let taken = self.slots.map_or(0, Slots::taken);
        assert_eq!(taken, 0, "slots of what is settled");
        if !self.book.plan.foreign {
            self.check_fresh();
        }
    }

    /// Asserts that the table answers as the node would.
    pub(crate) fn check_fresh(&mut self) {
        for key in self.book.plan.keys {
            let mut told = Vec::new();
            if self.table.get(key.as_bytes(), self.now, &mut told) {
                let get = vec![b"GET".to_vec(), key.as_bytes().to_vec()];
                let true_value = self.node.command(&get);
                let (told, truth) = (told.escape_ascii(), true_value.escape_ascii());
                assert_eq!(told.to_string(), truth.to_string(), "key {key}");
            }
        }
    }

    /// The integer that the node holds.
    pub(crate) fn held(&mut self, key: &str) -> i64 {
        match self.node.value(key.as_bytes()) {
            Some(Value::Text(text)) => String::from_utf8(text).unwrap().parse().unwrap(),
            _ => 0,
        }
    }
}
