//! Every interleaving of small scenarios, over the real table, lane and series: breadth first,
//! each state once. Replies fit one order of the commands, no increment is lost or doubled, every
//! command is answered, and what is known here at rest is true. With one rule of the core, or one
//! promise of the node, switched off, a fault is found each time.
//!
//! Bounds: two keys, one node, up to three clients of up to four commands. A step is a client's
//! command, bytes leaving, one request or transaction executed, its replies arriving, the time of a
//! flush; and, as often as the scenario says, a lost connection, a batch refused, a timeout, another
//! program's write. Within a step of the lane, before it locks a shard or delivers a reply, a session
//! on another thread may count or read in the table.

mod beside;
mod clients;
mod deadlines;
mod limits;
pub(super) mod moments;
mod monitor;
#[expect(dead_code, reason = "the tests in `tests/it` use all of it")]
#[path = "../../../tests/it/core/node.rs"]
mod node;
mod scenarios;
#[path = "../../../tests/it/core/script.rs"]
mod script;
mod server;
mod world;

use std::collections::HashMap;
use std::fmt;
use std::hash::Hasher;
use std::sync::OnceLock;
use std::time::Instant;

use twox_hash::XxHash3_64;

use crate::rule::{Rule, without};
use clients::ButtIn;
use scenarios::Scenario;
use server::Promise;
use world::{Action, World};

/// What a state is hashed from.
#[derive(Default)]
pub(super) struct Hashed(Vec<u8>);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        XxHash3_64::oneshot(&self.0)
    }
}

impl fmt::Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// The present of every world: none of them lets time pass.
fn now() -> Instant {
    static NOW: OnceLock<Instant> = OnceLock::new();
    *NOW.get_or_init(|| tokio::time::Instant::now().into_std())
}

/// What a search came to.
enum Outcome {
    /// Every state was seen, so many.
    Exhausted(usize),
    /// A shortest way to a fault.
    Fault(String),
}

/// One way to take a step.
#[derive(Clone, Copy)]
struct Way {
    action: Action,
    butts_in: ButtIn,
}

struct Search {
    scenario: &'static Scenario,
    broken: Option<Promise>,
    /// How each state was reached first; the state's number is its place.
    arrivals: Vec<(usize, Option<Way>)>,
    /// The states' numbers, by their hashes.
    seen: HashMap<u64, usize>,
    /// From which state to which a step leads.
    steps: Vec<(usize, usize)>,
    /// States in which everything is done.
    rests: Vec<usize>,
}

impl Search {
    /// Looks at every state of the scenario, or at those up to the first fault.
    fn run(scenario: &'static Scenario, broken: Option<Promise>) -> Outcome {
        let mut search = Self {
            scenario,
            broken,
            arrivals: vec![(0, None)],
            seen: HashMap::new(),
            steps: Vec::new(),
            rests: Vec::new(),
        };
        let mut first = World::new(scenario, broken);
        search.seen.insert(first.hash(), 0);
        let mut level = vec![(0, first)];
        while !level.is_empty() {
            let mut next = Vec::new();
            for (at, world) in level {
                if let Err((way, reason)) = search.expand(at, world, &mut next) {
                    return Outcome::Fault(search.story(at, way, &reason));
                }
            }
            level = next;
        }
        match search.trap() {
            Some(at) => Outcome::Fault(search.story(at, None, "from here it never comes to rest")),
            None => Outcome::Exhausted(search.seen.len()),
        }
    }

    /// Takes every step that a state allows.
    fn expand(
        &mut self,
        at: usize,
        mut world: World,
        next: &mut Vec<(usize, World)>,
    ) -> Result<(), (Option<Way>, String)> {
        if world.rest().map_err(|reason| (None, reason))? {
            self.rests.push(at);
        }
        let others: Vec<usize> = world.may_butt_in().collect();
        for action in world.actions() {
            let mut ways = vec![None];
            while let Some(butts_in) = ways.pop() {
                let way = Way { action, butts_in };
                let mut after = world.copy();
                let taken = after.take(action, butts_in);
                if !taken.map_err(|reason| (Some(way), reason))? {
                    continue;
                }
                if butts_in.is_none() {
                    let places = 0..after.moments();
                    let each = |place| others.iter().map(move |client| Some((place, *client)));
                    ways.extend(places.flat_map(each));
                }
                let number = self.arrivals.len();
                let known = *self.seen.entry(after.hash()).or_insert(number);
                if known == number {
                    self.arrivals.push((at, Some(way)));
                    next.push((number, after));
                }
                self.steps.push((at, known));
            }
        }
        Ok(())
    }

    /// A state from which no rest can be reached.
    fn trap(&self) -> Option<usize> {
        let mut before = vec![Vec::new(); self.arrivals.len()];
        for (from, to) in &self.steps {
            before[*to].push(*from);
        }
        let mut ends = vec![false; self.arrivals.len()];
        let mut left = self.rests.clone();
        while let Some(at) = left.pop() {
            if !std::mem::replace(&mut ends[at], true) {
                left.extend(&before[at]);
            }
        }
        ends.iter().position(|ends| !ends)
    }

    /// The way to a state, and the step there that showed the fault.
    fn story(&self, at: usize, last: Option<Way>, reason: &str) -> String {
        let mut ways: Vec<Way> = last.into_iter().collect();
        let mut state = at;
        while let (from, Some(way)) = self.arrivals[state] {
            ways.push(way);
            state = from;
        }
        let mut world = World::new(self.scenario, self.broken);
        let mut story = vec![format!("{}: {reason}", self.scenario.name)];
        for Way { action, butts_in } in ways.into_iter().rev() {
            story.push(format!("  {}", world.shown(action)));
            if let Some((place, client)) = butts_in {
                story.push(format!(
                    "    client {client} asks the table in moment {place}"
                ));
            }
            // The last step fails: that is what is told.
            world.take(action, butts_in).unwrap_or_default();
        }
        story.join("\n")
    }
}

/// Asserts that the scenario has no fault.
#[track_caller]
fn check(scenario: &'static Scenario) {
    match Search::run(scenario, None) {
        Outcome::Exhausted(states) => {
            assert!(states > 50, "{}: only {states} states", scenario.name);
            note(&format!("{}: {states} states", scenario.name));
        }
        Outcome::Fault(story) => panic!("{story}"),
    }
}

/// Asserts that without the rule, or the promise, the scenario has a fault.
#[track_caller]
fn check_needed(rule: Option<Rule>, promise: Option<Promise>, scenario: &'static Scenario) {
    match without(rule, || Search::run(scenario, promise)) {
        Outcome::Exhausted(states) => panic!(
            "{}: no fault in {states} states without {rule:?} {promise:?}",
            scenario.name
        ),
        Outcome::Fault(story) => note(&format!("without {rule:?} {promise:?}: {story}")),
    }
}

#[expect(clippy::print_stderr, reason = "a test's notes go to its output")]
fn note(line: &str) {
    eprintln!("{line}");
}
