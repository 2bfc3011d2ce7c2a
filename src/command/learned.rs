//! Commands that a node has and the table lacks: of versions after 7.0, and of modules.
//!
//! ```text
//!  a node's COMMAND ──told──> what is unknown here ──learn──> KNOWN ──find──> lookup
//!                             other numbers of arguments ───> ARITIES ┘
//! ```
//!
//! They are known to the whole process and never forgotten: a node that lacks one says so itself.
//! Reading takes no lock, and is done only for names that are not in the table.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use parking_lot::Mutex;

use super::keys::Keys;
use super::lookup::{LONGEST_NAME, named_in_table, spread};
use super::told::{self, Places, Told};
use super::{Class, Command, EveryNode, Flags, Refusal, commands};
use crate::resp::Form;

/// What a node's commands brought.
#[derive(Debug, Default)]
pub struct Learned {
    /// Commands that were not known before.
    pub new: usize,
    /// Those for which there was no room: they stay unknown.
    pub left_out: usize,
}

/// Takes a node's reply to `COMMAND`. What is not as Redis sends it is passed over.
///
/// A command with keys is forwarded; one without, if its tips say so, is sent to every node. Of
/// others only the name is learned, to be refused: no node could be chosen for them.
pub fn learn(reply: &[u8]) -> Learned {
    let mut learned = Learned::default();
    let mut count = COUNT.lock();
    told::each(reply, &mut |told| {
        if let Some(known) = named_in_table(told.name.as_bytes()) {
            widen(known, told.arity);
        } else if find(told.name.as_bytes()).is_none() {
            if *count == MOST || !insert(told) {
                learned.left_out += 1;
            } else {
                *count += 1;
                learned.new += 1;
            }
        }
    });
    learned
}

/// The command of a full name, in any case.
pub(super) fn find(name: &[u8]) -> Option<&'static Command> {
    let mut place = first_place(name);
    loop {
        let command = KNOWN.get(place)?.get()?;
        if name.eq_ignore_ascii_case(command.name.as_bytes()) {
            return Some(command);
        }
        place = (place + 1) % KNOWN.len();
    }
}

/// Whether a node takes so many arguments for a command, where Redis 7.0 does not.
pub(super) fn accepts(command: &'static Command, len: usize) -> bool {
    let arity = ARITIES.get(command.index());
    let arity = arity.map_or(0, |arity| arity.load(Ordering::Relaxed));
    arity < 0 && usize::try_from(arity.unsigned_abs()).is_ok_and(|least| len >= least)
}

/// The place of a command that was learned.
pub(super) fn place(command: &'static Command) -> Option<usize> {
    let distance = std::ptr::from_ref(command)
        .addr()
        .checked_sub(KNOWN.as_ptr().addr())?;
    let place = distance / size_of::<OnceLock<Command>>();
    (place < KNOWN.len()).then_some(place)
}

/// The command at a place, if one was learned.
pub(super) fn at(place: usize) -> Option<&'static Command> {
    KNOWN.get(place)?.get()
}

fn first_place(name: &[u8]) -> usize {
    spread(name) % KNOWN.len()
}

/// Notes that a node takes a command with more numbers of arguments than Redis 7.0 does. Only where
/// it is forwarded as it is.
fn widen(known: &'static Command, arity: i32) {
    let is_forwarded = matches!(known.class, Class::Keyed | Class::Peek | Class::AnyNode);
    let is_wider = arity < 0 && arity.unsigned_abs() <= known.arity.unsigned_abs();
    if let Some(place) = ARITIES.get(known.index())
        && is_forwarded
        && is_wider
        && arity != known.arity
    {
        place.store(arity, Ordering::Relaxed);
    }
}

/// Puts a command into the first free place of its own. There is one.
fn insert(told: Told) -> bool {
    if told.name.is_empty() || told.name.split('|').any(|part| part.len() > LONGEST_NAME) {
        return false;
    }
    let mut place = first_place(told.name.as_bytes());
    while at(place).is_some() {
        place = (place + 1) % KNOWN.len();
    }
    let is_sent = !told.flags.contains(Flags::PUBSUB) && !told.is_container;
    let keys = told.keys.filter(|_| is_sent).map(Places::keep);
    let class = match (keys, told.policy) {
        (Some(_), _) => Class::Keyed,
        // What follows it on a lane would wait as long.
        (None, Some(policy)) if is_sent && !told.flags.contains(Flags::BLOCKING) => {
            Class::EveryNode(EveryNode::Told(policy))
        }
        (None, _) if is_help(&told.name) => Class::AnyNode,
        (None, _) => Class::Refused(Refusal::Never),
    };
    let command = Command {
        name: told.name.leak(),
        arity: told.arity,
        flags: told.flags,
        categories: told.categories,
        keys: keys.unwrap_or(Keys::None),
        uses: told.uses,
        class,
        form: Form::Plain,
    };
    KNOWN
        .get(place)
        .is_some_and(|free| free.set(command).is_ok())
}

/// Whether it is a container's own text about its subcommands.
fn is_help(name: &str) -> bool {
    name.split_once('|').is_some_and(|(_, sub)| sub == "help")
}

/// Open addressing with linear probing; written with [`COUNT`] locked.
static KNOWN: [OnceLock<Command>; ROOM] = [const { OnceLock::new() }; ROOM];

/// How many there are.
static COUNT: Mutex<usize> = Mutex::new(0);

/// Numbers of arguments that nodes take, by the place in the table; 0 where they are Redis 7.0's.
static ARITIES: [AtomicI32; commands().len()] = [const { AtomicI32::new(0) }; commands().len()];

/// Most commands learned: Redis 8 with all its modules has some 200 that 7.0 lacks.
const MOST: usize = 448;

/// Places for them, so that there is always a free one.
pub(super) const ROOM: usize = 512;

const _: () = assert!(MOST < ROOM, "a search would not end");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{LookupError, lookup, named};
    use crate::resp::testing::with_request;

    fn entry(name: &str, arity: i32, first: u8) -> String {
        format!(
            "*10\r\n${}\r\n{name}\r\n:{arity}\r\n~0\r\n:{first}\r\n:{first}\r\n:1\r\n\
             ~0\r\n~0\r\n~0\r\n*0\r\n",
            name.len()
        )
    }

    #[track_caller]
    fn check(line: &str, want: Result<&str, LookupError>) {
        let found = with_request(line, |request| lookup(request).map(|command| command.name));
        assert_eq!(found, want, "{line}");
    }

    /// One test: what is learned is known to the whole process.
    #[test]
    fn what_a_node_has_is_found_and_what_it_takes_is_taken() {
        check("TS.GET k", Err(LookupError::Unknown));
        check("HSTRLEN h f g", Err(LookupError::Arity));
        let long = "x".repeat(LONGEST_NAME + 1);
        let all = [
            entry("TS.GET", -2, 1),
            entry("ts.nowhere", -1, 0),
            entry("hstrlen", -3, 1),
            // Answered here, with the numbers of arguments that are known here.
            entry("incr", -1, 1),
            entry("hget", 2, 1),
            entry(&long, -1, 1),
            entry("", -1, 1),
        ];
        let reply = format!("*{}\r\n{}", all.len(), all.concat());
        let learned = learn(reply.as_bytes());
        assert_eq!((learned.new, learned.left_out), (2, 2));
        check("ts.Get k", Ok("ts.get"));
        check("TS.GET", Err(LookupError::Arity));
        check("HSTRLEN h f g", Ok("hstrlen"));
        check("HSTRLEN h", Err(LookupError::Arity));
        check("INCR", Err(LookupError::Arity));
        check("HGET h", Err(LookupError::Arity));
        check("HGET h f", Ok("hget"));
        let command = named(b"ts.get").unwrap();
        assert_eq!(
            (command.class, command.keys),
            (Class::Keyed, Keys::range(1, 1, 1))
        );
        assert!(std::ptr::eq(
            crate::command::at(command.index()).unwrap(),
            command
        ));
        let keyless = named(b"ts.nowhere").unwrap();
        assert_eq!(keyless.class, Class::Refused(Refusal::Never));
        assert_ne!(command.index(), keyless.index());
        assert_eq!(learn(reply.as_bytes()).new, 0);
        // More than there is room for.
        let many: String = (0..600).map(|n| entry(&format!("ts.{n}"), 2, 1)).collect();
        let learned = learn(format!("*600\r\n{many}").as_bytes());
        assert_eq!(learned.new, MOST - 2);
        assert_eq!(learned.left_out, 600 - learned.new);
        check("TS.0 k", Ok("ts.0"));
        check("TS.599 k", Err(LookupError::Unknown));
    }
}
