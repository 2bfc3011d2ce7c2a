//! The same script of one client to a real Redis and to Tally: the replies are the same bytes.

use std::time::Duration;

use crate::connection::{Connection, Request, words};
use crate::harness::{Settings, Stack, now, pause};
use crate::random::Random;
use crate::reply::Reply;
use crate::script::{
    DATABASES, KEYS, Match, Step, script, script_over_databases, script_over_nodes,
};
use crate::servers::{Redis, is_other_server};

/// A real Redis and the stack under test, with one client each.
struct Twin {
    real: Connection,
    tested: Connection,
    stack: Stack,
    /// The stack's nodes, asked past Tally.
    nodes: Vec<Connection>,
    redis: Redis,
    /// Those whose keys are compared.
    databases: &'static [u32],
}

impl Twin {
    #[track_caller]
    fn start(settings: Settings<'_>) -> Self {
        let redis = Redis::start(&[]);
        let stack = Stack::start(settings);
        Self {
            real: redis.connect(),
            tested: stack.connect(),
            nodes: stack.nodes.iter().map(Redis::connect).collect(),
            stack,
            redis,
            databases: &[0],
        }
    }

    /// New connections that speak RESP version `protocol`, and no keys.
    #[track_caller]
    fn reset(&mut self, protocol: u8) {
        self.real = self.redis.connect();
        self.tested = self.stack.connect();
        for client in [&mut self.real, &mut self.tested] {
            if protocol == 3 {
                let hello = client.run("HELLO 3");
                assert!(!hello.is_error(), "HELLO 3: {hello:?}");
            }
            assert!(client.run("FLUSHALL").is_ok());
        }
    }

    /// Sends the requests to both in one write each; says where the replies differ.
    fn compare(&mut self, batch: &[(Request, Match)]) -> Result<(), String> {
        let requests: Vec<Request> = batch.iter().map(|(request, _)| request.clone()).collect();
        let expected = self.real.pipeline(&requests);
        let actual = self.tested.pipeline(&requests);
        for (index, (request, how)) in batch.iter().enumerate() {
            let (expected, actual) = (&expected[index], &actual[index]);
            if !how.accepts(expected, actual) {
                return Err(format!(
                    "{}\n  Redis: {}\n  Tally: {}",
                    shown(request),
                    expected.escape_ascii(),
                    actual.escape_ascii()
                ));
            }
        }
        Ok(())
    }

    /// Compares what is left of every key, read through the clients.
    fn compare_state(&mut self) -> Result<(), String> {
        for database in self.databases {
            let select = words(&format!("SELECT {database}"));
            self.compare(&[(select, Match::Bytes)])?;
            self.compare_database()?;
        }
        Ok(())
    }

    fn compare_database(&mut self) -> Result<(), String> {
        for key in KEYS {
            let mut batch = vec![(words(&format!("TYPE {key}")), Match::Bytes)];
            let kind = Reply::parse(&self.real.call_raw(&batch[0].0)).text();
            let (read, how) = match kind.as_str() {
                "list" => (format!("LRANGE {key} 0 -1"), Match::Bytes),
                "hash" => (format!("HGETALL {key}"), Match::Sorted),
                "set" => (format!("SMEMBERS {key}"), Match::Sorted),
                "zset" => (format!("ZRANGE {key} 0 -1 WITHSCORES"), Match::Bytes),
                _ => (format!("GET {key}"), Match::Bytes),
            };
            batch.push((words(&read), how));
            batch.push((words(&format!("TTL {key}")), Match::Close));
            batch.push((words(&format!("EXISTS {key}")), Match::Bytes));
            self.compare(&batch)?;
        }
        Ok(())
    }

    /// Whether the nodes themselves hold what the real Redis holds, once everything is applied.
    fn nodes_agree(&mut self) -> Result<(), String> {
        if self.stack.tally.is_some() {
            let flushed = self.tested.run("TALLY FLUSH");
            if !flushed.is_ok() {
                return Err(format!("TALLY FLUSH: {flushed:?}"));
            }
        }
        for database in self.databases {
            let select = words(&format!("SELECT {database}"));
            for client in self.nodes.iter_mut().chain([&mut self.real]) {
                assert!(client.call(&select).is_ok());
            }
            self.database_agrees()
                .map_err(|difference| format!("database {database}, {difference}"))?;
        }
        Ok(())
    }

    /// The same for the database that is selected.
    fn database_agrees(&mut self) -> Result<(), String> {
        let lines = KEYS.map(|key| {
            [
                format!("TYPE {key}"),
                format!("GET {key}"),
                format!("PTTL {key}"),
            ]
        });
        let requests: Vec<Request> = lines.iter().flatten().map(|line| words(line)).collect();
        let ask = |client: &mut Connection| client.pipeline(&requests);
        let real = ask(&mut self.real);
        let nodes: Vec<_> = self.nodes.iter_mut().map(ask).collect();
        for (at, key) in KEYS.iter().enumerate() {
            let held = |replies: &[Vec<u8>]| Held::of(&replies[3 * at..]);
            let mut found: Vec<_> = nodes.iter().map(|replies| held(replies)).collect();
            found.retain(|held| held.kind != "none");
            let mut expected = vec![held(&real)];
            expected.retain(|held| held.kind != "none");
            if found != expected {
                return Err(format!("{key}: Redis {expected:?}, nodes {found:?}"));
            }
        }
        Ok(())
    }
}

/// What is at a key: its type, a string's value, and whether it will end.
#[derive(Debug, Eq, PartialEq)]
struct Held {
    kind: String,
    value: Option<Vec<u8>>,
    ends: bool,
}

impl Held {
    /// From the replies to `TYPE`, `GET` and `PTTL`.
    fn of(replies: &[Vec<u8>]) -> Self {
        let value = match Reply::parse(&replies[1]) {
            Reply::Bulk(value) => Some(value),
            _ => None,
        };
        Self {
            kind: Reply::parse(&replies[0]).text(),
            value,
            ends: Reply::parse(&replies[2]).integer() >= 0,
        }
    }
}

fn shown(request: &Request) -> String {
    let quoted = request.iter().map(|word| match word.as_slice() {
        b"" => "\"\"".to_owned(),
        word => word.escape_ascii().to_string(),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Lines of a corpus file as requests with the way their replies are compared. `7.0` before a line:
/// Tally answers it itself, in the words of Redis 7.0.
fn corpus(text: &str) -> Vec<(Request, Match)> {
    let in_words_of_7_0 = |line: &str| line.starts_with("7.0 ");
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter(|line| !(in_words_of_7_0(line) && is_other_server()))
        .map(|line| line.strip_prefix("7.0 ").unwrap_or(line));
    let entries = lines.map(|line| match line.split_at_checked(2) {
        Some(("~ ", rest)) => (words(rest), Match::Sorted),
        Some(("% ", rest)) => (words(rest), Match::Close),
        _ => (words(line), Match::Bytes),
    });
    entries.collect()
}

#[track_caller]
fn check_corpus(text: &str) {
    let entries = corpus(text);
    for mode in MODES {
        let mut twin = Twin::start(&[("counters.mode", mode)]);
        for protocol in [2, 3] {
            for depth in [1, 7, entries.len()] {
                twin.reset(protocol);
                for (index, batch) in entries.chunks(depth).enumerate() {
                    if let Err(difference) = twin.compare(batch) {
                        let at = index * depth;
                        panic!(
                            "mode {mode}, RESP{protocol}, {depth} per write, in {at}..: {difference}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn strings_answer_as_redis_does() {
    check_corpus(include_str!("corpus/strings.txt"));
}

#[test]
fn counters_answer_as_redis_does() {
    check_corpus(include_str!("corpus/counters.txt"));
}

#[test]
fn collections_answer_as_redis_does() {
    check_corpus(include_str!("corpus/collections.txt"));
}

#[test]
fn geo_streams_and_scripts_answer_as_redis_does() {
    check_corpus(include_str!("corpus/others.txt"));
}

#[test]
fn keyspace_and_errors_answer_as_redis_does() {
    check_corpus(include_str!("corpus/keyspace.txt"));
}

#[test]
fn transactions_answer_as_redis_does() {
    check_corpus(include_str!("corpus/transactions.txt"));
}

#[test]
fn databases_answer_as_redis_does() {
    check_corpus(include_str!("corpus/databases.txt"));
}

#[test]
fn reset_returns_a_connection_to_its_first_state() {
    let mut twin = Twin::start(&[]);
    twin.reset(3);
    for line in [
        "CLIENT SETNAME me",
        "RESET",
        "CLIENT GETNAME",
        "HGETALL nothing",
    ] {
        let outcome = twin.compare(&[(words(line), Match::Bytes)]);
        outcome.unwrap_or_else(|difference| panic!("{difference}"));
    }
}

/// Runs one script on fresh connections; `Err` says what differed and after which steps.
fn run_script(twin: &mut Twin, protocol: u8, steps: &[Step]) -> Result<(), String> {
    twin.reset(protocol);
    let mut done = format!("RESP{protocol}, one paragraph per write:\n");
    let mut batch = Vec::new();
    for step in steps.iter().chain([&Step::Read]) {
        let time = match step {
            Step::Send(request, how) => {
                done.push_str(&shown(request));
                done.push('\n');
                batch.push((request.clone(), *how));
                continue;
            }
            Step::Read => Duration::ZERO,
            Step::Wait(time) => *time,
        };
        let outcome = twin.compare(&batch);
        outcome.map_err(|difference| format!("{done}\ndiffers: {difference}"))?;
        batch.clear();
        done.push('\n');
        pause(time);
    }
    // A shortened script may have lost its EXEC.
    let ended = twin.compare(&[(words("DISCARD"), Match::Bytes)]);
    let state = ended.and_then(|()| twin.compare_state());
    state.map_err(|difference| format!("{done}then {difference}"))?;
    let nodes = twin.nodes_agree();
    nodes.map_err(|difference| format!("{done}then on the nodes {difference}"))
}

/// Leaves out steps while the script still fails; the report of the shortest that did.
fn shrink(twin: &mut Twin, protocol: u8, mut steps: Vec<Step>, mut report: String) -> String {
    let deadline = now() + Duration::from_secs(20);
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < steps.len() && now() < deadline {
            let mut fewer = steps.clone();
            fewer.drain(at..steps.len().min(at + size));
            match run_script(twin, protocol, &fewer) {
                Ok(()) => at += size,
                Err(shorter) => (steps, report) = (fewer, shorter),
            }
        }
        size /= 2;
    }
    report
}

#[track_caller]
fn check_random_scripts(mode: &str) {
    check_random_scripts_with(&[("counters.mode", mode)]);
}

#[track_caller]
fn check_random_scripts_with(settings: Settings<'_>) {
    check_random(settings, &[0], script);
}

/// Without `WATCH` and `MULTI` behind a `MULTI`: a Valkey refuses the transaction for them, which
/// Redis 7.0 goes on with.
fn leave_out_of_multi(steps: &mut Vec<Step>) {
    let mut is_open = false;
    steps.retain(|step| {
        let Step::Send(request, _) = step else {
            return true;
        };
        let is = |word: &str| request[0].eq_ignore_ascii_case(word.as_bytes());
        let stays = !(is_open && (is("WATCH") || is("MULTI")));
        is_open |= is("MULTI");
        is_open &= !(is("EXEC") || is("DISCARD") || is("RESET"));
        stays
    });
}

#[track_caller]
fn check_random(
    settings: Settings<'_>,
    databases: &'static [u32],
    script: fn(&mut Random, usize) -> Vec<Step>,
) {
    let first = Random::seed_or(0x7A11);
    let scripts =
        std::env::var("TALLY_SUITE_SCRIPTS").map_or(2_000, |n| n.parse().expect("a count"));
    let mut twin = Twin::start(settings);
    twin.databases = databases;
    for number in 0..scripts {
        let seed = first + number;
        let mut random = Random::new(seed);
        let protocol = if random.one_in(2) { 3 } else { 2 };
        let mut steps = script(&mut random, COMMANDS_PER_SCRIPT);
        if is_other_server() {
            leave_out_of_multi(&mut steps);
        }
        if let Err(report) = run_script(&mut twin, protocol, &steps) {
            // What does not repeat is shortened to something else, or to nothing.
            let short = shrink(&mut twin, protocol, steps, report.clone());
            panic!(
                "{settings:?}: TALLY_SUITE_SEED={seed} TALLY_SUITE_SCRIPTS=1 repeats it\n\
                 {report}\n\nshortened:\n{short}"
            );
        }
    }
}

#[test]
fn random_scripts_answer_as_redis_does_when_buffered() {
    check_random_scripts(MODES[0]);
}

#[test]
fn random_scripts_answer_as_redis_does_when_exact() {
    check_random_scripts(MODES[1]);
}

#[test]
fn random_scripts_answer_as_redis_does_when_through() {
    check_random_scripts(MODES[2]);
}

fn check_scripts_over_databases(mode: &str) {
    // With it transactions take commands on two databases whatever the nodes of their other keys.
    let split = ("transactions.cross_node", "\"split\"");
    let settings = [split, ("counters.mode", mode)];
    check_random(&settings, &DATABASES, script_over_databases);
}

#[test]
fn random_scripts_over_databases_answer_as_redis_does_when_buffered() {
    check_scripts_over_databases("\"buffered\"");
}

#[test]
fn random_scripts_over_databases_answer_as_redis_does_when_exact() {
    check_scripts_over_databases("\"exact\"");
}

#[test]
fn random_scripts_over_databases_answer_as_redis_does_when_through() {
    check_scripts_over_databases("\"through\"");
}

fn check_scripts_over_nodes(mode: &str) {
    let split = ("transactions.cross_node", "\"split\"");
    check_random(&[split, ("counters.mode", mode)], &[0], script_over_nodes);
}

#[test]
fn random_transactions_over_nodes_answer_as_redis_does_when_buffered() {
    check_scripts_over_nodes(MODES[0]);
}

#[test]
fn random_transactions_over_nodes_answer_as_redis_does_when_exact() {
    check_scripts_over_nodes(MODES[1]);
}

#[test]
fn random_transactions_over_nodes_answer_as_redis_does_when_through() {
    check_scripts_over_nodes(MODES[2]);
}

#[test]
fn random_scripts_answer_as_redis_does_when_every_key_has_a_rule_of_its_own() {
    let rules = r#"[
        { match = "[ae]", mode = "exact" },
        { match = "?t?1", mode = "exact", cache_ttl = "0s" },
        { match = "b", mode = "through" },
        { match = "?t?2", mode = "through" },
        { match = "c", flush_interval = "10ms" },
        { match = "{t}*", flush_interval = "1s", cache_ttl = "1ms" },
    ]"#;
    check_random_scripts_with(&[("rules", rules)]);
}

const MODES: [&str; 3] = ["\"buffered\"", "\"exact\"", "\"through\""];

const COMMANDS_PER_SCRIPT: usize = 50;
