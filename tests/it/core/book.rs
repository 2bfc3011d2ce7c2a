//! What clients asked and heard in a simulated run.

use std::time::Instant;

use tally::counter::{Answer, KeyTable};
use tally::flush::Commits;
use tally::resp::encode;

use super::plan::Plan;
use crate::random::Random;

pub(crate) type Argv = Vec<Vec<u8>>;

/// Which part of which operation a reply is for.
pub(crate) type Ticket = (usize, usize);

/// One command of a client.
#[derive(Clone)]
pub(crate) struct Operation {
    pub(crate) client: usize,
    pub(crate) argv: Argv,
    pub(crate) began: u64,
    pub(crate) ended: u64,
    /// What was noted in the journal by then.
    pub(crate) told_at: u64,
    /// One frame, or one for each key of an `MGET`.
    pub(crate) parts: Vec<Option<Vec<u8>>>,
}

/// What clients did and heard.
pub(crate) struct Book {
    pub(crate) operations: Vec<Operation>,
    pub(crate) random: Random,
    clock: u64,
    pub(crate) plan: Plan,
    /// Commands not answered.
    pub(crate) open: usize,
    /// The client whose command is being submitted.
    pub(crate) busy: Option<usize>,
    /// What has to be on the disk before a reply leaves.
    pub(crate) commits: Option<&'static Commits>,
    /// The story of the run, if it is told.
    pub(crate) log: Option<Vec<String>>,
}

impl Book {
    pub(crate) fn new(plan: Plan, seed: u64) -> Self {
        Self {
            operations: Vec::new(),
            random: Random::new(seed),
            clock: 0,
            plan,
            open: 0,
            busy: None,
            commits: None,
            log: None,
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(line());
        }
    }

    pub(crate) fn begin(&mut self, client: usize, argv: &[Vec<u8>], parts: usize) -> usize {
        let began = self.tick();
        let id = self.operations.len();
        self.open += 1;
        self.note(|| format!("#{id} client {client}: {}", show(argv)));
        self.operations.push(Operation {
            client,
            argv: argv.to_vec(),
            began,
            ended: u64::MAX,
            told_at: 0,
            parts: vec![None; parts],
        });
        id
    }

    pub(crate) fn deliver(&mut self, (id, part): Ticket, frame: &[u8]) {
        let ended = self.tick();
        self.note(|| format!("#{id}.{part} <- {}", frame.escape_ascii()));
        let operation = &mut self.operations[id];
        operation.ended = ended;
        operation.told_at = self.commits.map_or(0, Commits::noted);
        let before = operation.parts[part].replace(frame.to_vec());
        assert!(before.is_none(), "answered twice: {operation:?}");
        self.open -= usize::from(operation.parts.iter().all(Option::is_some));
    }

    /// The process ends: replies that waited for the disk have not left.
    pub(crate) fn keep_back(&mut self, instead: &[u8]) {
        let Some(commits) = self.commits else {
            return;
        };
        let told = |part: &Option<_>| part.is_some();
        for operation in &mut self.operations {
            if operation.parts.iter().any(told) && !commits.is_kept(operation.told_at) {
                operation.parts.fill(Some(instead.to_vec()));
            }
        }
    }

    /// `INCRBY` or `GET` without the lane, if the table answers it.
    pub(crate) fn locally(
        &mut self,
        client: usize,
        argv: &[Vec<u8>],
        table: &KeyTable,
        now: Instant,
    ) -> bool {
        let mut frame = Vec::new();
        let answered = if argv[0] == b"GET" {
            table.get(&argv[1], now, &mut frame)
        } else {
            match table.increment(&argv[1], delta_of(argv), now) {
                Answer::Value(value) => encode::integer(&mut frame, value),
                Answer::Overflow => {
                    encode::error(&mut frame, "ERR increment or decrement would overflow");
                }
                Answer::Elsewhere => {}
            }
            !frame.is_empty()
        };
        if answered {
            let id = self.begin(client, argv, 1);
            self.deliver((id, 0), &frame);
        }
        answered
    }

    /// A session on another thread finds what it asks in the table. (When it does not, it waits
    /// for the lane, as if it had not come yet.)
    pub(crate) fn butt_in(&mut self, table: &KeyTable, now: Instant) {
        if self.plan.quiet || !self.random.one_in(4) {
            return;
        }
        let client = self.random.below(self.plan.clients);
        if self.busy == Some(client) {
            return;
        }
        let key = self.plan.keys[self.random.below(self.plan.keys.len())];
        let argv = if self.random.one_in(2) {
            argv(&["GET", key])
        } else {
            argv(&["INCRBY", key, "1"])
        };
        self.locally(client, &argv, table, now);
    }
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (client, began, ended) = (self.client, self.began, self.ended);
        write!(
            f,
            "client {client} {began}..{ended}: {} ->",
            show(&self.argv)
        )?;
        for part in &self.parts {
            match part {
                Some(frame) => write!(f, " {}", frame.escape_ascii())?,
                None => write!(f, " (nothing)")?,
            }
        }
        Ok(())
    }
}

impl Operation {
    /// The reply as one frame.
    pub(crate) fn reply(&self) -> Vec<u8> {
        let parts: Vec<_> = self.parts.iter().flatten().map(Vec::as_slice).collect();
        if self.argv[0] != b"MGET" {
            return parts.concat();
        }
        let mut frame = Vec::new();
        encode::array(&mut frame, parts.len());
        [frame, parts.concat()].concat()
    }
}

pub(crate) fn argv(args: &[&str]) -> Argv {
    args.iter().map(|arg| arg.as_bytes().to_vec()).collect()
}

pub(crate) fn delta_of(argv: &[Vec<u8>]) -> i64 {
    String::from_utf8_lossy(&argv[2]).parse().unwrap()
}

/// The keys of a command.
pub(crate) fn keys_of(argv: &[Vec<u8>]) -> Vec<&[u8]> {
    let rest = || argv[1..].iter().map(Vec::as_slice);
    match argv[0].as_slice() {
        b"PING" | b"DBSIZE" | b"DEBUG" | b"FLUSHALL" => Vec::new(),
        b"MGET" | b"DEL" | b"EXISTS" | b"RENAME" => rest().collect(),
        b"MSET" | b"MSETNX" => rest().step_by(2).collect(),
        _ => rest().take(1).collect(),
    }
}

pub(crate) fn wire(argv: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::request(&mut out, argv);
    out
}

pub(crate) fn show(argv: &[Vec<u8>]) -> String {
    let words: Vec<_> = argv
        .iter()
        .map(|arg| arg.escape_ascii().to_string())
        .collect();
    words.join(" ")
}

pub(crate) fn show_wire(request: &[u8]) -> String {
    let text = String::from_utf8_lossy(request);
    let words: Vec<_> = text.split("\r\n").skip(2).step_by(2).collect();
    words.join(" ")
}
