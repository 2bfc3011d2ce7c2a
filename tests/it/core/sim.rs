//! A deterministic world around one table and one lane: clients, a node, and what lies between
//! them, moved on one step at a time by a seeded generator.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tally::counter::{
    Condition, Effect, Expiry, Extent, Fates, KeyTable, Lane, Limits, Losses, Mode, Recovered,
    Rules, Source, Step, TableLimits, Timed, Treatment, When,
};
use tally::flush::{Applier, Commits, Ledger, Series, Slots, Stage, words_of};
use tally::key::Key;
use tally::resp::parse_i64;

use super::aside::{Aside, Late};
use super::book::{Argv, Book, Ticket, delta_of, keys_of, show, show_wire, wire};
use super::node::{Fault, Node, Value, script};
use crate::random::Random;

/// What happens in a run, and how often.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each turns one kind of event on"
)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) clients: usize,
    pub(crate) keys: &'static [&'static str],
    /// Commands submitted before everything is brought to rest.
    pub(crate) commands: usize,
    /// Makes a command on some of the keys.
    pub(crate) command: fn(&mut Random, &[&'static str]) -> Argv,
    /// Connections break.
    pub(crate) losses: bool,
    /// The node refuses commands for a while.
    pub(crate) faults: bool,
    /// The node forgets the flush script.
    pub(crate) forgets: bool,
    /// The node's marker is evicted.
    pub(crate) evicts: bool,
    /// The node comes back as it was a while ago.
    pub(crate) restores: bool,
    /// The process is killed, and another goes on from its journal.
    pub(crate) kills: bool,
    /// The machine loses power: of each slot the journal has the last or an earlier state.
    pub(crate) outages: bool,
    /// Replies and batches wait until what they tell of is on the disk.
    pub(crate) commits: bool,
    /// Commands in flight are told of a timeout.
    pub(crate) timeouts: bool,
    /// Nobody but the test does anything.
    pub(crate) quiet: bool,
    /// The node takes scripts; else batches are applied by transactions.
    pub(crate) scripts: bool,
    /// Another program writes to the node.
    pub(crate) foreign: bool,
    pub(crate) table: TableLimits,
    /// Keys that are treated otherwise; then the times in `table` are not used.
    pub(crate) rules: &'static [(&'static str, Treatment)],
    pub(crate) lane: Limits,
}

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
    words: Option<&'static [AtomicU64]>,
    slots: Option<&'static Slots>,
    /// How often the process was killed.
    killed: u64,
    /// What the disk has of the journal.
    disk: Vec<u64>,
    pub(super) commits: Option<&'static Commits>,
    /// The disk is being written, up to this note.
    syncing: Option<u64>,
    /// Bytes with batches that wait for the disk, and for which note.
    held: Option<(u64, Vec<u8>)>,
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

impl Plan {
    /// One client, three keys, nothing goes wrong.
    pub(crate) fn new(command: fn(&mut Random, &[&'static str]) -> Argv) -> Self {
        Self {
            clients: 1,
            keys: &["a", "b", "c"],
            commands: 60,
            command,
            losses: false,
            faults: false,
            forgets: false,
            evicts: false,
            restores: false,
            kills: false,
            outages: false,
            commits: false,
            timeouts: false,
            quiet: false,
            scripts: true,
            foreign: false,
            table: TableLimits {
                max_keys: 100,
                max_cached_bytes: 1 << 20,
                crowd: 100,
                lease: Duration::from_millis(50),
                counter_lease: Duration::from_millis(50),
                guard: Duration::from_millis(30),
            },
            rules: &[],
            lane: Limits {
                max_in_flight: 40,
                max_unsent_bytes: 1 << 16,
                warm: true,
            },
        }
    }
}

/// Slots of a journal: few enough that they run out.
const JOURNAL_SLOTS: usize = 12;

/// A process that finds in `words` what the one before had acknowledged.
fn process(
    plan: &Plan,
    seed: u64,
    words: Option<&'static [AtomicU64]>,
    now: Instant,
    (commits, outage): (Option<&'static Commits>, bool),
) -> (KeyTable, Lane<Ticket>, Option<&'static Slots>) {
    let table = table(plan, seed);
    let Some(words) = words else {
        return (table, Lane::new(plan.lane, Series::new("sim", 0, 1)), None);
    };
    // The last word stands for the series' own.
    let Some((last, words)) = words.split_last() else {
        panic!("a journal has words");
    };
    let slots: &'static Slots = Box::leak(Box::new(Slots::new(words).with_commits(commits)));
    let table = table.with_ledger(Some(Ledger::new(slots, 0, last)));
    let mut recovered = Recovered {
        after_outage: outage,
        ..Recovered::default()
    };
    for found in slots.read().map(Result::unwrap) {
        match found.stage {
            Stage::InDoubt => recovered.in_doubt.push(found.increment),
            Stage::Sealed(number) => {
                let batch = recovered.batches.entry(number).or_default();
                batch.push(found.increment);
            }
            Stage::Pending if outage && commits.is_none() => {
                let suspect = (found.taken_after, found.increment);
                recovered.suspects.push(suspect);
            }
            Stage::Pending => recovered.pending.push(found.increment),
        }
    }
    let lane = Lane::recover(plan.lane, ("sim", 0, 1), recovered, &table, now);
    (table, lane, Some(slots))
}

/// The keys, treated as the plan says.
fn table(plan: &Plan, seed: u64) -> KeyTable {
    if plan.rules.is_empty() {
        return KeyTable::new(plan.table, seed);
    }
    let patterns = plan.rules.iter();
    let patterns = patterns.map(|(pattern, treatment)| (pattern.as_bytes(), *treatment));
    KeyTable::with_rules(plan.table, Rules::new(BUFFERED, patterns), seed)
}

/// Of keys without a rule, where there are rules.
pub(crate) const BUFFERED: Treatment = Treatment {
    mode: Mode::Buffered,
    flush_interval: Duration::from_millis(10),
    cache_ttl: Duration::from_millis(50),
    window: Duration::ZERO,
    local_grants: false,
};

impl Sim {
    pub(crate) fn new(plan: Plan, seed: u64) -> Self {
        let last = (0..JOURNAL_SLOTS).flat_map(words_of).max();
        // And one that stands for the series' own.
        let words = (0..last.unwrap_or_default() + 2).map(|_| AtomicU64::new(0));
        let words: Option<&[_]> =
            (plan.kills || plan.outages).then(|| &*Box::leak(words.collect::<Box<_>>()));
        let now = tokio::time::Instant::now().into_std();
        let commits = plan.commits.then(|| &*Box::leak(Box::default()));
        let (table, lane, slots) = process(&plan, seed, words, now, (commits, false));
        let mut sim = Self {
            table,
            lane,
            slots,
            words,
            killed: 0,
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
    fn let_go(&mut self) {
        let Some((note, bytes)) = self.held.take() else {
            return;
        };
        match self.commits {
            Some(commits) if !commits.is_kept(note) => self.held = Some((note, bytes)),
            _ => self.inbox.extend(bytes),
        }
    }

    /// The system writes some of the journal, of its own accord or because it was asked for all.
    fn turn_disk(&mut self) {
        let some = |random: &mut Random| random.one_in(3);
        match (self.syncing.take(), self.commits) {
            (None, Some(commits)) if self.book.random.one_in(2) => {
                self.syncing = Some(commits.noted());
                self.write_back(some);
            }
            (None, _) => self.write_back(some),
            (Some(note), Some(commits)) => {
                self.write_back(|_| true);
                commits.keep(note);
                self.let_go();
            }
            (Some(_), None) => {}
        }
    }

    /// Some slots are written to the disk as they are.
    fn write_back(&mut self, chosen: impl Fn(&mut Random) -> bool) {
        let Some(words) = self.words else {
            return;
        };
        // The last word stands for the series' own.
        let series = vec![words.len() - 1];
        let slots = (0..JOURNAL_SLOTS).map(|slot| words_of(slot).collect());
        for unit in slots.chain([series]) {
            if chosen(&mut self.book.random) {
                for at in unit {
                    self.disk[at] = words[at].load(Ordering::Relaxed);
                }
            }
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

    /// Pages of the journal are as the disk has them.
    fn lose_power(&mut self) {
        let Some(words) = self.words else {
            return;
        };
        self.write_back(|random| random.one_in(3));
        self.part();
        for (word, disk) in words.iter().zip(&self.disk) {
            word.store(*disk, Ordering::Relaxed);
        }
        self.book.note(|| "power lost".into());
        self.start_anew(true);
    }

    /// The process is killed, and another goes on. To its clients it is a lost connection.
    pub(crate) fn kill(&mut self) {
        self.part();
        self.book.note(|| "killed".into());
        self.start_anew(false);
    }

    /// Clients lose their connections.
    fn part(&mut self) {
        if self.away {
            self.step(|lane, step| lane.disconnected(step, UNKNOWN, UNSENT));
        } else {
            self.disconnect();
        }
    }

    fn start_anew(&mut self, outage: bool) {
        self.killed += 1;
        self.book.keep_back(UNKNOWN);
        self.commits = self.commits.map(|_| &*Box::leak(Box::default()));
        self.book.commits = self.commits;
        self.syncing = None;
        // A process begins with that.
        self.write_back(|_| true);
        let seed = self.book.random.next();
        (self.table, self.lane, self.slots) = process(
            &self.book.plan,
            seed,
            self.words,
            self.now,
            (self.commits, outage),
        );
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
        self.step(|lane, step| lane.expire(step, Duration::from_millis(15), UNKNOWN));
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
