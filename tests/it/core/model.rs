//! Any interleaving of increments, barriers, replies, failures and deadlines conserves what was
//! acknowledged. The steps are chosen, and a failing run made as short as can be, by proptest.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::book::argv;
use super::node::Fault;
use super::plan::Plan;
use super::sim::Sim;

/// What may happen next.
#[derive(Clone, Debug)]
enum Happening {
    /// A client's command.
    Asked(usize, String),
    /// The lane's bytes leave.
    Sent,
    /// The node executes so many requests.
    Executed(usize),
    /// So many replies arrive.
    Heard(usize),
    /// A flush begins.
    Flushed,
    /// Milliseconds pass.
    Waited(u64),
    /// The connection breaks.
    Lost,
    /// The next one is there.
    Connected,
    /// What waits too long is told so.
    TimedOut,
    /// The node refuses so many commands.
    Refused(Fault, usize),
    /// It has no script any more.
    Forgot,
}

const CLIENTS: usize = 3;

fn command() -> impl Strategy<Value = String> {
    let key = || select(&["a", "b"][..]);
    let delta = select(
        &[
            "1",
            "3",
            "-2",
            "9223372036854775807",
            "-9223372036854775808",
        ][..],
    );
    prop_oneof![
        6 => (key(), delta).prop_map(|(key, delta)| format!("INCRBY {key} {delta}")),
        20 => key().prop_map(|key| format!("INCRBY {key} 1")),
        2 => key().prop_map(|key| format!("GET {key}")),
        1 => (key(), select(&["7", "007", "text"][..])).prop_map(|(key, value)| format!("SET {key} {value}")),
        1 => key().prop_map(|key| format!("DEL {key}")),
        1 => key().prop_map(|key| format!("APPEND {key} 1")),
        1 => (key(), select(&["20", "90", "1000"][..])).prop_map(|(key, ms)| format!("PEXPIRE {key} {ms}")),
        1 => Just("MSETNX a 1 b 1".to_owned()),
        1 => Just("FLUSHALL".to_owned()),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    let faults = select(&[Fault::Oom, Fault::ReadOnly, Fault::Loading][..]);
    prop_oneof![
        12 => (0..CLIENTS, command()).prop_map(|(client, line)| Happening::Asked(client, line)),
        6 => Just(Happening::Sent),
        6 => (1..12_usize).prop_map(Happening::Executed),
        6 => (1..12_usize).prop_map(Happening::Heard),
        3 => Just(Happening::Flushed),
        2 => select(&[1, 20, 60][..]).prop_map(Happening::Waited),
        1 => Just(Happening::Lost),
        2 => Just(Happening::Connected),
        1 => Just(Happening::TimedOut),
        1 => (faults, 1..6_usize).prop_map(|(fault, times)| Happening::Refused(fault, times)),
        1 => Just(Happening::Forgot),
    ]
}

impl Sim {
    fn happens(&mut self, happening: &Happening) {
        match happening {
            Happening::Asked(client, line) => {
                let words: Vec<_> = line.split(' ').collect();
                // Without room, or without a node, it is not asked.
                self.submit(*client, &argv(&words));
            }
            Happening::Sent => self.send(),
            Happening::Executed(most) => self.execute(*most),
            Happening::Heard(most) => (0..*most).for_each(|_| _ = self.read_one()),
            Happening::Flushed => self.flush(),
            Happening::Waited(ms) => self.advance(*ms),
            Happening::Lost if !self.away => self.disconnect(),
            Happening::Connected if self.away => self.connect(),
            Happening::Lost | Happening::Connected => {}
            Happening::TimedOut => self.expire(),
            Happening::Refused(fault, times) => self.node.fault = Some((*fault, *times)),
            Happening::Forgot => self.node.script = false,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_was_acknowledged_is_somewhere(happenings in vec(happening(), 0..200)) {
        let plan = Plan {
            clients: CLIENTS,
            keys: &["a", "b"],
            quiet: true,
            ..Plan::new(|_, _| argv(&["PING"]))
        };
        let mut sim = Sim::new(plan, 1);
        for happening in &happenings {
            sim.happens(happening);
            // acknowledged = applied + in flight + pending + expired + dead letters
            sim.check();
        }
        sim.rest();
        sim.check_at_rest();
    }
}
