//! What a server's reply to `COMMAND` says of each command (`addReplyCommandInfo` in Redis's
//! `server.c`): ten elements from 7.0 on, fewer before.

use super::categories::{Categories, KeyAccess, Uses};
use super::keys::Keys;
use super::specs::{Begin, Find, KeySpec};
use super::{Flags, Policy};
use crate::resp::reply;

/// One command or subcommand.
#[derive(Debug)]
pub(super) struct Told {
    /// Lower case; subcommands as `config|get`.
    pub(super) name: String,
    pub(super) arity: i32,
    pub(super) flags: Flags,
    pub(super) categories: Categories,
    /// Where its keys are; `None` where it has none, or that is not said completely.
    pub(super) keys: Option<Places>,
    /// How the replies of all nodes become one, where it is for all nodes and that can be done.
    pub(super) policy: Option<Policy>,
    pub(super) uses: Uses,
    /// Its first argument names a subcommand.
    pub(super) is_container: bool,
}

/// Where keys are.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Places {
    /// At the same places in every request.
    Fixed(Keys),
    /// Where these say.
    Specified(Vec<KeySpec>),
}

impl Places {
    /// The same for a command that is never forgotten.
    pub(super) fn keep(self) -> Keys {
        match self {
            Self::Fixed(keys) => keys,
            Self::Specified(specs) => Keys::Specified(specs.leak()),
        }
    }
}

/// Calls `take` with every command, containers before their subcommands.
pub(super) fn each(reply: &[u8], take: &mut impl FnMut(Told)) {
    for entry in reply::elements(reply).into_iter().flatten() {
        let entry: Vec<&[u8]> = reply::elements(entry).into_iter().flatten().collect();
        let subcommands = entry.get(9).copied().unwrap_or(NOTHING);
        let is_container = reply::elements(subcommands).is_some_and(|all| all.len() > 0);
        if let Some(told) = read(&entry, is_container) {
            take(told);
            if is_container {
                each(subcommands, take);
            }
        }
    }
}

/// An empty array.
const NOTHING: &[u8] = b"*0\r\n";

fn read(entry: &[&[u8]], is_container: bool) -> Option<Told> {
    let [name, arity, flags, first, last, step, rest @ ..] = entry else {
        return None;
    };
    let name = std::str::from_utf8(reply::text(name)?).ok()?;
    if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let words: Vec<&str> = words(flags).collect();
    let mut flags = Flags::NEWER;
    for flag in words.iter().filter_map(|word| Flags::named(word)) {
        // Nothing of it is known here, so nothing is left out for it.
        if flag != Flags::NO_AUTH {
            flags = flags | flag;
        }
    }
    if is_container {
        flags = flags | Flags::CONTAINER;
    }
    let mut categories = Categories::NONE;
    for category in rest.first().copied().into_iter().flat_map(self::words) {
        let category = category.strip_prefix('@').unwrap_or(category);
        categories = categories.with(Categories::named(category.as_bytes()).unwrap_or_default());
    }
    let tips: Vec<&str> = rest
        .get(1)
        .copied()
        .into_iter()
        .flat_map(self::words)
        .collect();
    let specs: Vec<&[u8]> = rest
        .get(2)
        .and_then(|specs| reply::elements(specs))
        .into_iter()
        .flatten()
        .collect();
    let range = [first, last, step].map(|number| reply::integer(number));
    let keys = if words.contains(&"movablekeys") {
        specified(&specs)
    } else {
        fixed(range)
    };
    Some(Told {
        name: name.to_ascii_lowercase(),
        arity: i32::try_from(reply::integer(arity)?).ok()?,
        flags,
        categories: categories.implied(flags),
        keys,
        policy: policy(&tips),
        uses: uses(&specs, flags),
        is_container,
    })
}

/// What the tips say of a command for all nodes.
fn policy(tips: &[&str]) -> Option<Policy> {
    let tip = |name: &str| tips.iter().find_map(|tip| tip.strip_prefix(name));
    if !matches!(tip("request_policy:")?, "all_nodes" | "all_shards") {
        return None;
    }
    match tip("response_policy:") {
        None => Some(Policy::Joined),
        Some("all_succeeded") => Some(Policy::Succeeded),
        Some("agg_sum") => Some(Policy::Sum),
        Some("agg_min" | "agg_logical_and") => Some(Policy::Least),
        Some("agg_max" | "agg_logical_or") => Some(Policy::Greatest),
        Some(_) => None,
    }
}

/// Keys that are at the same places in every request.
fn fixed([first, last, step]: [Option<i64>; 3]) -> Option<Places> {
    let first = u8::try_from(first?).ok().filter(|first| *first > 0)?;
    let step = u8::try_from(step?).ok().filter(|step| *step > 0)?;
    let keys = Keys::range(first, i8::try_from(last?).ok()?, step);
    Some(Places::Fixed(keys))
}

/// Keys that depend on the request, where the server's specifications tell all of them.
fn specified(specs: &[&[u8]]) -> Option<Places> {
    let specs: Option<Vec<KeySpec>> = specs.iter().map(|spec| specification(spec)).collect();
    specs
        .filter(|specs| !specs.is_empty())
        .map(Places::Specified)
}

fn specification(spec: &[u8]) -> Option<KeySpec> {
    if words(field(spec, "flags")?).any(|flag| flag.eq_ignore_ascii_case("incomplete")) {
        return None;
    }
    let (begin, find) = (field(spec, "begin_search")?, field(spec, "find_keys")?);
    let [begin_details, find_details] = [field(begin, "spec")?, field(find, "spec")?];
    let begin = match text(field(begin, "type")?)? {
        "index" => Begin::Index(place(begin_details, "index")?),
        "keyword" => Begin::Keyword {
            word: text(field(begin_details, "keyword")?)?.into(),
            from: number(begin_details, "startfrom")?,
        },
        _ => return None,
    };
    let find = match text(field(find, "type")?)? {
        "range" => Find::Range {
            last: number(find_details, "lastkey")?,
            step: place(find_details, "keystep")?,
            limit: place(find_details, "limit")?,
        },
        "keynum" => Find::Counted {
            at: place(find_details, "keynumidx")?,
            first: place(find_details, "firstkey")?,
            step: place(find_details, "keystep")?,
        },
        _ => return None,
    };
    let (Find::Range { step, .. } | Find::Counted { step, .. }) = find;
    (step > 0).then_some(KeySpec { begin, find })
}

/// How keys are used: the first specification's, and those of the others.
fn uses(specs: &[&[u8]], flags: Flags) -> Uses {
    let access = |spec: &&[u8]| {
        let mut access = KeyAccess::NONE;
        for flag in field(spec, "flags").into_iter().flat_map(words) {
            access = access.with(match flag {
                "access" => KeyAccess::READ,
                "insert" | "update" | "delete" => KeyAccess::WRITE,
                _ => KeyAccess::NONE,
            });
        }
        access
    };
    let Some((first, others)) = specs.split_first() else {
        // Before 7.0.
        let is_read = flags.contains(Flags::READONLY);
        return Uses::all(if is_read {
            KeyAccess::READ
        } else {
            KeyAccess::BOTH
        });
    };
    let first = access(first);
    let others = others.iter().map(access).reduce(KeyAccess::with);
    Uses::first(first, others.unwrap_or(first))
}

/// The value of a field of a map, or of an array of names and values.
fn field<'a>(map: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut fields = reply::elements(map)?;
    while let (Some(key), Some(value)) = (fields.next(), fields.next()) {
        if reply::text(key) == Some(name.as_bytes()) {
            return Some(value);
        }
    }
    None
}

fn text(frame: &[u8]) -> Option<&str> {
    std::str::from_utf8(reply::text(frame)?).ok()
}

fn number(map: &[u8], name: &str) -> Option<i32> {
    i32::try_from(reply::integer(field(map, name)?)?).ok()
}

/// A number that is not negative.
fn place(map: &[u8], name: &str) -> Option<usize> {
    usize::try_from(number(map, name)?).ok()
}

fn words(list: &[u8]) -> impl Iterator<Item = &str> {
    reply::elements(list).into_iter().flatten().filter_map(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Categories;

    /// Frames of RESP3, written as in the reply but with spaces between what is on a line of its own.
    fn frame(text: &str) -> Vec<u8> {
        text.split_whitespace()
            .flat_map(|line| [line.as_bytes(), b"\r\n"].concat())
            .collect()
    }

    fn all(text: &str) -> Vec<Told> {
        let mut all = Vec::new();
        each(&frame(text), &mut |told| all.push(told));
        all
    }

    const BY_INDEX: &str = "%3 +flags ~2 +RW +update \
        +begin_search %2 +type +index +spec %1 +index :1 \
        +find_keys %2 +type +range +spec %3 +lastkey :0 +keystep :1 +limit :0";
    const BY_WORD: &str = "%3 +flags ~2 +RO +access \
        +begin_search %2 +type +keyword +spec %2 +keyword +STREAMS +startfrom :1 \
        +find_keys %2 +type +range +spec %3 +lastkey :-1 +keystep :1 +limit :2";
    const BY_NUMBER: &str = "%3 +flags ~2 +OW +insert \
        +begin_search %2 +type +index +spec %1 +index :1 \
        +find_keys %2 +type +keynum +spec %3 +keynumidx :0 +firstkey :1 +keystep :2";
    const UNKNOWN: &str = "%3 +flags ~1 +RW +begin_search %2 +type +unknown +spec %0 \
        +find_keys %2 +type +unknown +spec %0";

    fn command(flags: &str, range: &str, specs: &[&str]) -> String {
        format!(
            "*1 *10 $4 Cmd1 :-3 {flags} {range} ~2 +@hash +@nobody ~0 ~{} {} *0",
            specs.len(),
            specs.join(" ")
        )
    }

    #[track_caller]
    fn keys(flags: &str, range: &str, specs: &[&str]) -> Option<Places> {
        let mut all = all(&command(flags, range, specs));
        assert_eq!(all.len(), 1);
        all.remove(0).keys
    }

    #[test]
    fn a_command_is_read_whole() {
        let all = all(&command("~2 +write +fast", ":1 :1 :1", &[BY_INDEX]));
        let told = &all[0];
        assert_eq!((&*told.name, told.arity), ("cmd1", -3));
        assert!(
            told.flags
                .contains(Flags::WRITE | Flags::FAST | Flags::NEWER)
        );
        let wanted = Categories::HASH.with(Categories::WRITE);
        assert!(told.categories.contains(wanted.with(Categories::FAST)));
        assert_eq!(told.keys, Some(Places::Fixed(Keys::range(1, 1, 1))));
        assert_eq!(told.uses, Uses::all(KeyAccess::WRITE));
        assert!(!told.is_container);
    }

    #[test]
    fn tips_say_what_becomes_of_the_replies_of_all_nodes() {
        let policy = |tips: &str| {
            let count = tips.split_whitespace().count();
            let entry = format!("*1 *10 $4 Cmd1 :-3 ~0 :0 :0 :0 ~0 ~{count} {tips} ~0 *0");
            all(&entry).remove(0).policy
        };
        for (tips, want) in [
            ("", None),
            ("+nondeterministic_output", None),
            ("+response_policy:agg_sum", None),
            ("+request_policy:multi_shard", None),
            ("+request_policy:all_nodes", Some(Policy::Joined)),
            ("+x +request_policy:all_shards", Some(Policy::Joined)),
            (
                "+request_policy:all_shards +response_policy:agg_sum",
                Some(Policy::Sum),
            ),
            (
                "+response_policy:agg_logical_or +request_policy:all_nodes",
                Some(Policy::Greatest),
            ),
            ("+request_policy:all_nodes +response_policy:special", None),
        ] {
            assert_eq!(policy(tips), want, "{tips}");
        }
    }

    #[test]
    fn nothing_is_answered_before_a_password_because_a_node_says_so() {
        let all = all(&command("~1 +no_auth", ":0 :0 :0", &[]));
        assert!(!all[0].flags.contains(Flags::NO_AUTH));
    }

    #[test]
    fn keys_that_move_are_told_by_all_specifications_or_not_at_all() {
        let movable = "~1 +movablekeys";
        let none = ":0 :0 :0";
        let specified = |specs: &[&str]| match keys(movable, none, specs) {
            Some(Places::Specified(specs)) => specs.len(),
            None => 0,
            other => panic!("{other:?}"),
        };
        assert_eq!(specified(&[BY_WORD]), 1);
        assert_eq!(specified(&[BY_INDEX, BY_NUMBER]), 2);
        assert_eq!(specified(&[BY_INDEX, UNKNOWN]), 0);
        assert_eq!(specified(&[]), 0);
        let incomplete = BY_INDEX.replace("+RW", "+incomplete");
        assert_eq!(specified(&[&incomplete]), 0);
        assert_eq!(
            specified(&[&BY_INDEX.replace("+keystep :1", "+keystep :0")]),
            0
        );
        assert_eq!(keys("~0", none, &[]), None);
        assert_eq!(
            keys("~0", ":1 :-1 :2", &[]),
            Some(Places::Fixed(Keys::range(1, -1, 2)))
        );
        assert_eq!(keys("~0", ":1 :-1 :0", &[]), None);
        assert_eq!(keys("~0", ":1 :900 :1", &[]), None);
    }

    #[test]
    fn subcommands_follow_their_container() {
        let sub = "*10 $5 a|sub :3 ~0 :2 :2 :1 ~0 ~0 ~0 *0";
        let all = all(&format!(
            "*2 *10 $1 a :-2 ~0 :0 :0 :0 ~0 ~0 ~0 *1 {sub} *1 $1 x"
        ));
        let names: Vec<_> = all
            .iter()
            .map(|told| (&*told.name, told.is_container))
            .collect();
        assert_eq!(names, [("a", true), ("a|sub", false)]);
        assert!(all[0].flags.contains(Flags::CONTAINER));
        assert_eq!(all[1].keys, Some(Places::Fixed(Keys::range(2, 2, 1))));
    }

    #[test]
    fn what_is_none_is_passed_over() {
        // Of Redis 6.
        let old = all("*1 *7 $1 a :2 *1 +readonly :1 :1 :1 *1 +@read");
        assert_eq!(old[0].keys, Some(Places::Fixed(Keys::range(1, 1, 1))));
        assert_eq!(old[0].uses, Uses::all(KeyAccess::READ));
        for nothing in [
            "+OK",
            "*0",
            "*1 _",
            "*1 *2 $1 a :2",
            "*1 *6 :1 :2 *0 :1 :1 :1",
            "*1 *6 $1 a $1 x *0 :1 :1 :1",
            "*1 *6 $1 a :99999999999 *0 :1 :1 :1",
        ] {
            assert!(all(nothing).is_empty(), "{nothing}");
        }
    }
}
