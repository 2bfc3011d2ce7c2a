//! The clients of a world: what each asks next, and what they are told.

use std::time::Instant;

use super::limits;
use super::monitor::{Command, End, LEFT, Monitor, Said};
use super::scenarios::Scenario;
use super::world::{KEYS, UNKNOWN};
use crate::counter::lane::OVERFLOW;
use crate::counter::{Answer, Condition, Decision, Expiry, KeyTable, Remaining, Timed, When};
use crate::resp::{Protocol, encode, parse_i64, reply};

/// While a lane works, a session on another thread finds what it asks in the table: in which
/// moment, and which client's.
pub(super) type ButtIn = Option<(usize, usize)>;

#[derive(Clone)]
pub(super) struct Clients {
    pub(super) scenario: &'static Scenario,
    pub(super) monitor: Monitor,
    /// How many commands of each were asked, and how many of them wait.
    pub(super) asked: Vec<usize>,
    pub(super) waits: Vec<usize>,
    /// The client whose command the lane takes.
    pub(super) busy: Option<usize>,
    /// What is still to happen of it in this step.
    pub(super) butts_in: ButtIn,
    /// How many moments for it the step has had.
    pub(super) moments: usize,
    /// The first reply that no order of the commands explains.
    pub(super) fault: Option<String>,
}

impl Clients {
    pub(super) fn new(scenario: &'static Scenario) -> Self {
        let clients = scenario.programs.len();
        Self {
            scenario,
            monitor: Monitor::new(scenario.values),
            asked: vec![0; clients],
            waits: vec![0; clients],
            busy: None,
            butts_in: None,
            moments: 0,
            fault: None,
        }
    }

    pub(super) fn programs(&self) -> impl Iterator<Item = (usize, &'static &'static [Command])> {
        self.scenario.programs.iter().enumerate()
    }

    /// Whether replies are held to one order.
    pub(super) fn ordered(&self) -> bool {
        self.scenario.foreign.is_empty()
    }

    pub(super) fn may_ask(&self, client: usize) -> bool {
        self.asked[client] < self.scenario.programs[client].len()
            && self.waits[client] < self.scenario.pipe
            && self.busy != Some(client)
    }

    /// A client's next command; its number is unique.
    pub(super) fn begin(&mut self, client: usize) -> (usize, Command) {
        let place = self.asked[client];
        let command = self.scenario.programs[client][place];
        let id = client * 16 + place;
        self.asked[client] += 1;
        self.waits[client] += 1;
        self.monitor.begin(id, client, command);
        (id, command)
    }

    /// The next command, if the table answers it.
    pub(super) fn ask_table(&mut self, client: usize, table: &KeyTable, now: Instant) -> bool {
        let command = self.scenario.programs[client][self.asked[client]];
        let mut frame = Vec::new();
        match command {
            Command::Add(key, delta) => match table.increment(KEYS[key].as_bytes(), delta, now) {
                Answer::Value(value) => encode::integer(&mut frame, value),
                Answer::Overflow => frame.extend_from_slice(OVERFLOW),
                Answer::Elsewhere => return false,
            },
            Command::Get(key) if table.get(KEYS[key].as_bytes(), now, &mut frame) => {}
            Command::Limit(key, limit) => {
                let (call, _) = limits::call(key, limit);
                match table.limit(&call, now) {
                    Some(Decision::Denied) => call.deny(Protocol::Resp3, &mut frame),
                    Some(Decision::Granted(value)) => call.grant(value, &mut frame),
                    None => return false,
                }
            }
            Command::Expire(key) | Command::Ttl(key) => {
                let name = KEYS[key].as_bytes();
                let reply = timed(command).and_then(|timed| table.timed(name, timed, now));
                match reply {
                    Some(reply) => encode::integer(&mut frame, reply),
                    None => return false,
                }
            }
            _ => return false,
        }
        let (id, _) = self.begin(client);
        self.told(id, &frame);
        true
    }

    /// A moment in which a session on another thread may use the table.
    pub(super) fn butt_in(&mut self, table: &KeyTable, now: Instant) {
        self.moments += 1;
        match &mut self.butts_in {
            // When it can not be done it stays, and the step is not taken in this way.
            Some((0, client)) => {
                let client = *client;
                if self.may_ask(client) && self.ask_table(client, table, now) {
                    self.butts_in = None;
                }
            }
            Some((before, _)) => *before -= 1,
            None => {}
        }
    }

    /// Takes the reply to command `id`; `usize::MAX` stands for no client's.
    pub(super) fn told(&mut self, id: usize, frame: &[u8]) {
        if id == usize::MAX {
            return;
        }
        self.waits[id / 16] -= 1;
        let end = match frame[0] {
            _ if frame == UNKNOWN => End::Unknown,
            b'-' if frame == OVERFLOW => End::Said(Said::Overflow),
            b'-' if frame.starts_with(b"-WRONGTYPE") => End::Said(Said::WrongType),
            b'-' => End::Failed,
            b'+' => End::Said(Said::Ok),
            b':' => End::Said(Said::Integer(reply::integer(frame).unwrap())),
            b'_' => End::Said(Said::Nil),
            _ => End::Said(Said::Text(parse_i64(reply::text(frame).unwrap()).unwrap())),
        };
        if !self.ordered() {
            self.monitor.forget(id);
        } else if let Err(fault) = self.monitor.end(id, end)
            && self.fault.is_none()
        {
            self.fault = Some(fault);
        }
    }
}

/// A command about a deadline, as a session asks for it.
pub(super) fn timed(command: Command) -> Option<Timed> {
    match command {
        Command::Expire(_) => Some(Timed::Expire(Expiry {
            when: When::In(LEFT.unsigned_abs()),
            condition: Condition::Always,
        })),
        Command::Ttl(_) => Some(Timed::Remaining(Remaining::Milliseconds)),
        _ => None,
    }
}
