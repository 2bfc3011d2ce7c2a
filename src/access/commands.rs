//! Which commands a selector allows, as bits of the command table, and the words for them. What is
//! learned from a node later ([`command::learn`]) is allowed by the rules for its categories.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::command::{self, Categories, Command, Flags};
use crate::resp::Request;

/// A set of commands and subcommands.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Commands {
    bits: Bits,
    /// All, and none taken away since.
    is_all: bool,
    /// All were allowed at first: the words begin with `+@all`.
    from_all: bool,
    /// First arguments with which a command is allowed that is not otherwise, by its place.
    first_args: BTreeMap<usize, Vec<Box<[u8]>>>,
    learned: Learned,
}

/// What the rules say of commands that the table lacks.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Learned {
    /// Categories since `+@all` or `-@all`, each once, the latest last.
    categories: Vec<(Categories, bool)>,
    /// Commands since then and since their categories, by their places.
    single: BTreeMap<usize, bool>,
}

impl Learned {
    fn set_category(&mut self, category: Categories, on: bool) {
        self.categories.retain(|(known, _)| *known != category);
        self.categories.push((category, on));
        self.single
            .retain(|at, _| command::at(*at).is_some_and(|command| !is_of(command, category)));
    }

    /// Whether a rule for one of its categories allows or forbids it.
    fn by_category(&self, command: &Command) -> Option<bool> {
        let mut latest = self.categories.iter().rev();
        let found = latest.find(|(category, _)| is_of(command, *category));
        found.map(|(_, on)| *on)
    }

    /// Whether some rule does. One for a container is for its subcommands too.
    fn allows(&self, command: &'static Command) -> Option<bool> {
        let outer = command.name.split_once('|');
        let outer = outer.and_then(|(outer, _)| command::named(outer.as_bytes()));
        [Some(command), outer]
            .into_iter()
            .flatten()
            .find_map(|command| self.single.get(&command.index()).copied())
            .or_else(|| self.by_category(command))
    }
}

/// A rule for commands.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// `+get`
    pub(super) word: Vec<u8>,
    /// Whether every Redis 7.0 takes it.
    pub(super) is_known: bool,
}

impl Rule {
    fn known(on: bool, name: &[u8]) -> Self {
        let sign: &[u8] = if on { b"+" } else { b"-" };
        Self {
            word: [sign, name].concat(),
            is_known: true,
        }
    }

    fn of(on: bool, command: &'static Command) -> Self {
        Self {
            is_known: !is_learned(command.index()) && !command.flags.contains(Flags::NEWER),
            ..Self::known(on, command.name.as_bytes())
        }
    }
}

fn is_of(command: &Command, category: Categories) -> bool {
    command.categories.contains(category)
}

fn is_learned(at: usize) -> bool {
    at >= command::commands().len()
}

type Bits = [u64; WORDS];

impl Commands {
    /// `+@all` or `-@all`.
    pub(super) fn set_all(&mut self, on: bool) {
        *self = Self {
            bits: [if on { u64::MAX } else { 0 }; WORDS],
            is_all: on,
            from_all: on,
            first_args: BTreeMap::new(),
            learned: Learned::default(),
        };
    }

    /// Allows or forbids a command and its subcommands.
    pub(super) fn set(&mut self, command: &'static Command, on: bool) {
        let at = command.index();
        self.first_args.remove(&at);
        if is_learned(at) {
            self.learned.single.insert(at, on);
            self.is_all &= on;
            return;
        }
        self.set_bits(&with_subcommands(command), on);
    }

    /// The same for all commands of a category.
    pub(super) fn set_category(&mut self, category: Categories, on: bool) {
        let kind = Kind::of(category);
        self.first_args.retain(|at, _| !is_in(&kind.direct, *at));
        self.learned.set_category(category, on);
        self.set_bits(&kind.whole, on);
    }

    fn set_bits(&mut self, bits: &Bits, on: bool) {
        for (word, bits) in self.bits.iter_mut().zip(bits) {
            *word = if on { *word | bits } else { *word & !bits };
        }
        self.is_all &= on;
    }

    /// Allows a command with this first argument.
    pub(super) fn add_first_arg(&mut self, command: &'static Command, arg: &[u8]) {
        let args = self.first_args.entry(command.index()).or_default();
        if !args.iter().any(|known| known.eq_ignore_ascii_case(arg)) {
            args.push(arg.into());
        }
    }

    /// Whether everything is allowed, what Redis may add later too.
    pub(super) fn is_all(&self) -> bool {
        self.is_all
    }

    /// How many first arguments there are.
    pub(super) fn first_args(&self) -> usize {
        self.first_args.values().map(Vec::len).sum()
    }

    /// Whether a request may be executed. What comes before a password always may.
    pub(super) fn allows(&self, command: &'static Command, request: &Request<'_>) -> bool {
        self.is_all
            || command.flags.contains(Flags::NO_AUTH)
            || self.has(command)
            || self.allows_first_arg(command, request)
    }

    fn allows_first_arg(&self, command: &'static Command, request: &Request<'_>) -> bool {
        let args = self.first_args.get(&command.index());
        let mut args = args.into_iter().flatten();
        request.len() > 1 && args.any(|arg| arg.eq_ignore_ascii_case(request.arg(1)))
    }

    /// Whether it is allowed with any arguments.
    pub(super) fn has(&self, command: &'static Command) -> bool {
        let at = command.index();
        if is_learned(at) {
            self.learned.allows(command).unwrap_or(self.from_all)
        } else {
            is_in(&self.bits, at)
        }
    }

    /// The rules that make it (`ACLDescribeSelectorCommandRules` in `acl.c`): the categories that
    /// fit best, then what differs from them. Where Redis has no order of its own, it is that of the
    /// command table.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let adds = !self.from_all;
        let mut rules = vec![Rule::known(!adds, b"@all")];
        let mut told = Self::default();
        told.set_all(!adds);
        let mut left = self.clone();
        let mut kinds: Vec<&Kind> = KINDS.iter().collect();
        while let Some(at) = left.best(&kinds, adds) {
            let kind = kinds.remove(at);
            told.set_bits(&kind.whole, adds);
            left.set_bits(&kind.whole, !adds);
            rules.push(Rule::known(adds, format!("@{}", kind.name).as_bytes()));
        }
        for (at, command) in command::commands().iter().enumerate() {
            let is_on = is_in(&self.bits, at);
            if is_on != is_in(&told.bits, at) {
                rules.push(Rule::of(is_on, command));
                told.set(command, is_on);
            }
            let args = self.first_args.get(&at).filter(|_| !is_on);
            for arg in args.into_iter().flatten() {
                let name = [command.name.as_bytes(), b"|", arg].concat();
                rules.push(Rule::known(true, &name));
            }
        }
        for (at, on) in &self.learned.single {
            let Some(command) = command::at(*at) else {
                continue;
            };
            if self.learned.by_category(command).unwrap_or(self.from_all) != *on {
                rules.push(Rule::of(*on, command));
            }
        }
        rules
    }

    /// The kind that says most of what is left: it has more commands that are to be told than
    /// others; of such the one with the fewest others, then with the most.
    fn best(&self, kinds: &[&Kind], adds: bool) -> Option<usize> {
        let fit = |kind: &Kind| {
            let on = count(&self.bits, &kind.counted);
            let off = kind
                .counted
                .iter()
                .map(|word| word.count_ones())
                .sum::<u32>()
                - on;
            if adds { (off, on) } else { (on, off) }
        };
        let fits = kinds.iter().enumerate().map(|(at, kind)| (at, fit(kind)));
        let fits = fits.filter(|(_, (others, told))| told > others);
        // The first of equals, as in Redis.
        fits.min_by_key(|(_, (others, told))| (*others, u32::MAX - told))
            .map(|(at, _)| at)
    }
}

/// The commands of a category.
struct Kind {
    category: Categories,
    name: &'static str,
    /// Those that are in it.
    direct: Bits,
    /// The same with the subcommands of containers in it.
    whole: Bits,
    /// Those that are in it and that Redis 7.0 has.
    counted: Bits,
}

impl Kind {
    fn of(category: Categories) -> &'static Self {
        let is_it = |kind: &&Self| kind.category == category;
        #[expect(clippy::expect_used, reason = "there is one of each")]
        KINDS.iter().find(is_it).expect("a category")
    }
}

static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let kind = |&(category, name): &(Categories, &'static str)| {
        let (mut direct, mut whole, mut counted) = (NONE, NONE, NONE);
        let in_table = |command: &&'static Command| !is_learned(command.index());
        for command in of_category(category).filter(in_table) {
            insert(&mut direct, command.index());
            if !command.flags.contains(Flags::NEWER) {
                insert(&mut counted, command.index());
            }
            for (word, bits) in whole.iter_mut().zip(with_subcommands(command)) {
                *word |= bits;
            }
        }
        Kind {
            category,
            name,
            direct,
            whole,
            counted,
        }
    };
    Categories::ALL.iter().map(kind).collect()
});

/// All commands and subcommands of a category.
pub fn of_category(category: Categories) -> impl Iterator<Item = &'static Command> {
    let learned = (command::commands().len()..command::PLACES).filter_map(command::at);
    let all = command::commands().iter().chain(learned);
    all.filter(move |command| is_of(command, category))
}

/// The command, and its subcommands if it is a container.
fn with_subcommands(command: &'static Command) -> Bits {
    let mut bits = NONE;
    let first = command.index();
    insert(&mut bits, first);
    let is_sub = |other: &Command| {
        let outer = other.name.split_once('|');
        outer.is_some_and(|(outer, _)| outer == command.name)
    };
    // They stand behind it.
    let following = command::commands().iter().enumerate().skip(first + 1);
    for (at, _) in following.take_while(|(_, other)| is_sub(other)) {
        insert(&mut bits, at);
    }
    bits
}

fn insert(bits: &mut Bits, at: usize) {
    if let Some(word) = bits.get_mut(at / 64) {
        *word |= 1 << (at % 64);
    }
}

fn is_in(bits: &Bits, at: usize) -> bool {
    bits.get(at / 64)
        .is_some_and(|word| word & (1 << (at % 64)) != 0)
}

fn count(bits: &Bits, of: &Bits) -> u32 {
    let both = bits.iter().zip(of).map(|(word, of)| word & of);
    both.map(u64::count_ones).sum()
}

const NONE: Bits = [0; WORDS];

/// Words of 64 commands; more than there are commands, as a test checks.
const WORDS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_bit() {
        assert!(command::commands().len() <= 64 * WORDS);
    }
}
