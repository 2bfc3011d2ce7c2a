//! The command table against a live server: names, arity, flags, key positions, error texts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tally::command::{self, Categories, Class, Flags, KeyAccess, LookupError};

use crate::redis_server::{Client, RedisServer, Value, split, with_request};

#[test]
fn the_table_says_what_the_server_says() {
    let server = RedisServer::start();
    let mut client = server.connect();
    let exact = client.is_7_0();
    let live = live_commands(&mut client);
    let ours: BTreeMap<_, _> = command::commands().iter().map(|c| (c.name, c)).collect();
    assert_eq!(
        ours.len(),
        command::commands().len(),
        "a name is there twice"
    );

    let mut faults = Vec::new();
    if exact {
        let known: BTreeSet<_> = ours
            .keys()
            .copied()
            .filter(|n| !ours[n].flags.contains(Flags::NEWER))
            .collect();
        let names: BTreeSet<_> = live.keys().map(String::as_str).collect();
        faults.extend(
            known
                .symmetric_difference(&names)
                .map(|name| format!("{name}: only one has it")),
        );
    }
    for (name, theirs) in &live {
        let Some(mine) = ours.get(name.as_str()) else {
            continue;
        };
        let mut check = |what: &str, mine: &str, theirs: &str| {
            if exact && mine != theirs {
                faults.push(format!("{name}: {what} is {mine}, should be {theirs}"));
            }
        };
        let names: BTreeSet<_> = mine.flags.names().collect();
        let expected: BTreeSet<_> = theirs.flags.iter().map(String::as_str).collect();
        check("arity", &mine.arity.to_string(), &theirs.arity.to_string());
        check("flags", &format!("{names:?}"), &format!("{expected:?}"));
        check(
            "range",
            &format!("{:?}", mine.keys.static_range()),
            &theirs.range,
        );
        let kinds = Categories::ALL.iter();
        let kinds = kinds.filter(|(kind, _)| mine.categories.contains(*kind));
        let names: BTreeSet<_> = kinds.map(|(_, name)| format!("@{name}")).collect();
        let expected: BTreeSet<_> = theirs.categories.iter().cloned().collect();
        check(
            "categories",
            &format!("{names:?}"),
            &format!("{expected:?}"),
        );
        let container = mine.flags.contains(Flags::CONTAINER);
        check(
            "container",
            &container.to_string(),
            &theirs.container.to_string(),
        );
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_class_fits_the_keys_of_its_command() {
    for entry in command::commands() {
        let has_keys = entry.keys != command::Keys::None;
        let wants_keys = match entry.class {
            Class::Increment(_)
            | Class::Get
            | Class::MultiGet
            | Class::Peek
            | Class::Keyed
            | Class::PerNode { .. }
            | Class::Script => true,
            Class::EveryNode(_) | Class::AnyNode | Class::Local | Class::Own(_) => false,
            // Sharded channels are placed like keys.
            Class::Refused(_) | Class::PubSub(_) | Class::Transaction(_) => has_keys,
        };
        assert_eq!(has_keys, wants_keys, "{}", entry.name);
        let may_block = entry.flags.contains(Flags::BLOCKING);
        assert!(
            !may_block || entry.class == Class::Keyed,
            "{} would block a lane",
            entry.name
        );
        let reads = matches!(entry.class, Class::Get | Class::MultiGet | Class::Peek)
            || matches!(entry.class, Class::PerNode { peek: true, .. });
        assert!(
            !reads || entry.flags.contains(Flags::READONLY),
            "{}",
            entry.name
        );
    }
}

#[test]
fn keys_are_where_the_server_finds_them() {
    let server = RedisServer::start();
    let mut client = server.connect();
    if !client.is_7_0() {
        return;
    }
    let cases: Vec<_> = KEYED
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    assert!(cases.len() >= 60);
    for line in cases {
        let args = split(line);
        let mut question = vec![b"COMMAND".to_vec(), b"GETKEYSANDFLAGS".to_vec()];
        question.extend(args.iter().cloned());
        let mut theirs: Vec<_> = match Value::parse(&client.call(&question)) {
            Value::Array(keys) => keys
                .iter()
                .map(|key| (key.array()[0].text().to_owned(), access_of(&key.array()[1])))
                .collect(),
            Value::Text(text) if text.contains("no key arguments") => Vec::new(),
            other => panic!("{line}: {other:?}"),
        };
        let mut ours = keys_and_access(&args).unwrap_or_else(|error| panic!("{line}: {error}"));
        // The order of a destination and its sources differs by command.
        theirs.sort();
        ours.sort();
        assert_eq!(ours, theirs, "{line}");
    }
}

#[test]
fn every_entry_with_keys_has_a_case() {
    let mut seen = BTreeSet::new();
    for line in KEYED.lines().filter(|line| !line.trim().is_empty()) {
        with_request(&split(line), |request| {
            seen.insert(
                command::lookup(request)
                    .map_err(|e| format!("{line}: {e:?}"))
                    .unwrap()
                    .name,
            )
        });
    }
    let special = command::commands().iter().filter(|entry| {
        let first = matches!(
            entry.keys,
            command::Keys::Range {
                first: 1,
                last: 1,
                ..
            }
        );
        // Shard channels are placed as keys are, but GETKEYS does not name them.
        let channels = entry.flags.contains(Flags::PUBSUB);
        entry.keys != command::Keys::None && !first && !channels
    });
    let missing: Vec<_> = special
        .map(|c| c.name)
        .filter(|name| !seen.contains(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn keys_that_can_not_be_told_give_the_servers_error() {
    let server = RedisServer::start();
    let mut client = server.connect();
    if !client.is_7_0() {
        return;
    }
    for line in BAD_KEYS.lines().filter(|line| !line.trim().is_empty()) {
        let args = split(line);
        let error = keys_of(&args).expect_err(line);
        let reply = client.call(&args);
        assert_eq!(
            format!("-{error}\r\n"),
            String::from_utf8_lossy(&reply),
            "{line}"
        );
    }
}

#[test]
fn sort_takes_its_last_store_as_the_server_does() {
    let server = RedisServer::start();
    let mut client = server.connect();
    for line in [
        "SORT k STORE limit STORE b",
        "SORT k STORE get by x",
        "SORT k BY store GET # STORE d",
    ] {
        let args = split(line);
        let reply = client.pipeline::<Vec<u8>>(&[
            &split("RPUSH k 2 1"),
            &args,
            &split("DEL k"),
            &split("KEYS *"),
            &split("FLUSHALL"),
        ]);
        let keys = Value::parse(&reply[3]);
        assert_eq!(
            keys_of(&args).unwrap(),
            ["k", keys.array()[0].text()],
            "{line}"
        );
    }
}

#[test]
fn errors_are_the_servers_word_for_word() {
    let server = RedisServer::start();
    let mut client = server.connect();
    if !client.is_7_0() {
        return;
    }
    let long = |byte: u8, len: usize| vec![byte; len];
    let mut cases: Vec<Vec<Vec<u8>>> = ERRORS
        .lines()
        .map(split)
        .filter(|args| !args.is_empty())
        .collect();
    cases.push(vec![
        b"f\0oo".to_vec(),
        b"a\0b".to_vec(),
        b"c\r\nd".to_vec(),
        b"\xff\xfe".to_vec(),
    ]);
    cases.push(vec![b"f\r\no".to_vec()]);
    cases.push(vec![b"config".to_vec(), b"a\0b".to_vec()]);
    cases.push(vec![b"config".to_vec(), b"a\r\nb\xff".to_vec()]);
    cases.push(vec![b"Foo".to_vec(); 100]);
    for len in [
        1, 31, 32, 33, 123, 124, 125, 126, 127, 128, 129, 300, 100_000,
    ] {
        cases.push(vec![long(b'x', len)]);
        cases.push(vec![
            long(b'x', len),
            long(b'y', len),
            b"zzzz".to_vec(),
            b"w".to_vec(),
        ]);
        cases.push(vec![b"object".to_vec(), long(b'x', len), b"z".to_vec()]);
    }
    for args in cases {
        let reply = client.call(&args);
        let text = with_request(&args, |request| match command::lookup(request) {
            Err(error) => error.text(request),
            Ok(found) => panic!("{args:?} is {}", found.name),
        });
        let ours = [b"-", &text[..], b"\r\n"].concat();
        assert_eq!(ours, reply, "{}", String::from_utf8_lossy(&reply));
    }
}

#[test]
fn every_arity_is_the_servers() {
    let server = RedisServer::start();
    let mut client = server.connect();
    if !client.is_7_0() {
        return;
    }
    for entry in command::commands()
        .iter()
        .filter(|c| !c.flags.contains(Flags::NEWER))
        .filter(|c| c.arity.abs() > 1)
    {
        let mut args: Vec<_> = entry
            .name
            .split('|')
            .map(|part| part.as_bytes().to_vec())
            .collect();
        let needed = usize::try_from(entry.arity.abs()).unwrap();
        if needed <= args.len() && entry.arity < 0 {
            continue;
        }
        args.resize(
            if needed > args.len() {
                needed - 1
            } else {
                needed + 1
            },
            b"x".to_vec(),
        );
        let text = with_request(&args, |request| {
            let error = command::lookup(request).expect_err(entry.name);
            assert_eq!(error, LookupError::Arity, "{}", entry.name);
            error.text(request)
        });
        let reply = client.call(&args);
        assert_eq!([b"-", &text[..], b"\r\n"].concat(), reply, "{}", entry.name);
    }
}

#[test]
fn names_are_found_in_any_case() {
    let find = |line: &str| with_request(&split(line), |r| command::lookup(r).map(|c| c.name));
    assert_eq!(find("GeT k"), Ok("get"));
    assert_eq!(find("bitfield_RO k"), Ok("bitfield_ro"));
    assert_eq!(find("oBJECT Freq k"), Ok("object|freq"));
    assert_eq!(find("command"), Ok("command"));
    assert_eq!(find("object|freq k"), Err(LookupError::Unknown));
    // Bit 5 is all that these differ in from real names.
    assert_eq!(find("bitfield\u{7f}ro k"), Err(LookupError::Unknown));
    assert_eq!(find("restore\ra k t v"), Err(LookupError::Unknown));
    assert_eq!(
        with_request::<&str, _>(&[], |r| command::lookup(r).map(|c| c.name)),
        Err(LookupError::Unknown)
    );
}

#[test]
fn waiting_and_undeclared_keys_are_seen_in_the_options() {
    let blocks = |line: &str| {
        with_request(&split(line), |r| {
            command::blocks(command::lookup(r).unwrap(), r)
        })
    };
    assert!(blocks("BLPOP a 0"));
    assert!(blocks("BLMPOP 0 1 a LEFT"));
    assert!(blocks("XREAD COUNT 1 block 0 STREAMS s $"));
    assert!(blocks("XREADGROUP GROUP g c NOACK BLOCK 0 STREAMS s >"));
    assert!(!blocks("XREADGROUP GROUP block block STREAMS block >"));
    assert!(!blocks("XREAD STREAMS block 0"));
    // With an option that Redis 8.4 has.
    let newer = "XREADGROUP GROUP g c CLAIM 10 BLOCK 0 STREAMS s t > >";
    assert!(blocks(newer));
    assert_eq!(keys_of(&split(newer)).unwrap(), ["s", "t"]);
    assert!(!blocks("LPOP a"));

    let whole = |line: &str| {
        with_request(&split(line), |r| {
            command::needs_whole_node(command::lookup(r).unwrap(), r)
        })
    };
    assert!(whole("EVAL s 0"));
    assert!(whole("FCALL f 0 x"));
    assert!(whole("SORT k BY w_*"));
    assert!(whole("sort_ro k LIMIT 0 1 GET # GET v_*->f"));
    assert!(!whole("EVAL s 1 k"));
    assert!(!whole("SORT k BY nosort GET # STORE *"));
    assert!(!whole("SORT k DESC ALPHA"));
}

#[test]
fn the_page_of_commands_is_written_from_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    let page = command::markdown();
    if std::env::var_os("TALLY_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/commands.md is old; write it anew with TALLY_BLESS=1 cargo test --test it the_page_of_commands"
    );
}

/// An entry of a `COMMAND` reply.
struct Live {
    arity: i64,
    /// Those that we keep.
    flags: Vec<String>,
    categories: Vec<String>,
    range: String,
    container: bool,
}

fn texts(reply: &Value) -> Vec<String> {
    let parts = reply.array().iter();
    parts.map(|part| part.text().to_owned()).collect()
}

fn live_commands(client: &mut Client) -> BTreeMap<String, Live> {
    let reply = Value::parse(&client.call(&["COMMAND"]));
    let mut found = BTreeMap::new();
    for top in reply.array() {
        for entry in std::iter::once(top).chain(top.array()[9].array()) {
            let fields = entry.array();
            let flags = fields[2].array().iter().map(|flag| flag.text().to_owned());
            let live = Live {
                arity: fields[1].integer(),
                flags: flags.filter(|flag| Flags::named(flag).is_some()).collect(),
                categories: texts(&fields[6]),
                range: format!(
                    "({}, {}, {})",
                    fields[3].integer(),
                    fields[4].integer(),
                    fields[5].integer()
                ),
                container: !fields[9].array().is_empty(),
            };
            found.insert(fields[0].text().to_owned(), live);
        }
    }
    found
}

/// What the flags of a key say that access rules ask about (`ACLSelectorCheckKey` in `acl.c`).
fn access_of(flags: &Value) -> &'static str {
    let flags = texts(flags);
    let has = |names: &[&str]| flags.iter().any(|flag| names.contains(&flag.as_str()));
    match (has(&["access"]), has(&["update", "insert", "delete"])) {
        (false, false) => "neither",
        (true, false) => "reads",
        (false, true) => "writes",
        (true, true) => "both",
    }
}

type KeyUses = Vec<(String, &'static str)>;

fn keys_and_access(args: &[Vec<u8>]) -> Result<KeyUses, command::KeysError> {
    let keys = keys_of(args)?;
    with_request(args, |request| {
        let found = command::lookup(request).unwrap();
        let uses = keys.into_iter().enumerate().map(|(at, key)| {
            let access = match command::key_access(found, request, at) {
                KeyAccess::NONE => "neither",
                KeyAccess::READ => "reads",
                KeyAccess::WRITE => "writes",
                _ => "both",
            };
            (key, access)
        });
        Ok(uses.collect())
    })
}

fn keys_of(args: &[Vec<u8>]) -> Result<Vec<String>, command::KeysError> {
    with_request(args, |request| {
        let found = command::lookup(request).unwrap_or_else(|e| panic!("{args:?}: {e:?}"));
        let mut positions = vec![99];
        let result = command::key_positions(found, request, &mut positions);
        assert!(result.is_ok() || positions.is_empty(), "{args:?}");
        let text = |at: usize| String::from_utf8(request.arg(at).to_vec()).unwrap();
        result.map(|()| positions.into_iter().map(text).collect())
    })
}

const KEYED: &str = "
GET a
set a b EX 10
SET a b NX get
BITFIELD a GET u8 0
BITFIELD a OVERFLOW SAT GET u8 0
BITFIELD a GET u8 0 INCRBY u8 0 1
GETEX a
STRLEN a
PERSIST a
INCRBY a 1
MGET a b c
MSET a 1 b 2
MSETNX a 1 b 2
DEL a a b
UNLINK a b
EXISTS a b
TOUCH a b
RENAME a b
RENAMENX a b
COPY a b REPLACE
LCS a b LEN
OBJECT ENCODING a
OBJECT FREQ a
OBJECT IDLETIME a
OBJECT REFCOUNT a
MEMORY USAGE a SAMPLES 0
BITOP AND d a b
BITOP NOT d a
SORT a
SORT a BY w_* LIMIT 0 1 GET # STORE d
SORT a STORE d STORE e
SORT_RO a BY w_*
LMOVE a b LEFT RIGHT
RPOPLPUSH a b
BRPOPLPUSH a b 0
BLMOVE a b LEFT RIGHT 0
BLPOP a b c 0
BRPOP a 0
BZPOPMIN a b 0
BZPOPMAX a b 0
LMPOP 2 a b LEFT COUNT 3
BLMPOP 0 2 a b LEFT
ZMPOP 1 a MIN
BZMPOP 0 2 a b MAX COUNT 1
SDIFF a b
SINTER a b
SUNION a b
SDIFFSTORE d a b
SINTERSTORE d a b
SUNIONSTORE d a b
SINTERCARD 2 a b LIMIT 1
SMOVE a b m
ZUNION 2 a b WEIGHTS 1 2 WITHSCORES
ZINTER 2 a b
ZDIFF 1 a
ZINTERCARD 2 a b LIMIT 5
ZUNIONSTORE d 2 a b AGGREGATE MAX
ZINTERSTORE d 2 a b
ZDIFFSTORE d 1 a
ZRANGESTORE d a 0 -1
GEOSEARCHSTORE d a FROMMEMBER m BYRADIUS 1 km
GEORADIUS a 1 1 1 km
GEORADIUS a 1 1 1 km COUNT 1 STORE d
GEORADIUS a 1 1 1 km ASC STOREDIST d
GEORADIUSBYMEMBER a m 1 km STORE d
GEORADIUSBYMEMBER a m 1 km
GEORADIUS_RO a 1 1 1 km
EVAL s 2 a b c
EVAL s 0 a
EVAL_RO s 1 a
EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 1 a b
EVALSHA_RO e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0
FCALL f 2 a b
FCALL_RO f 1 a
PFCOUNT a b
PFMERGE d a b
PFDEBUG GETREG a
XREAD STREAMS a 0
XREAD COUNT 2 BLOCK 0 STREAMS a b 0 0
XREADGROUP GROUP g c STREAMS a b > >
XREADGROUP GROUP g c COUNT 1 NOACK STREAMS a >
XGROUP CREATE a g $ MKSTREAM
XGROUP CREATECONSUMER a g c
XGROUP DELCONSUMER a g c
XGROUP DESTROY a g
XGROUP SETID a g 0
XINFO STREAM a FULL
XINFO GROUPS a
XINFO CONSUMERS a g
MIGRATE h 1 a 0 10
MIGRATE h 1 '' 0 10 KEYS a b
MIGRATE h 1 '' 0 10 COPY REPLACE AUTH keys KEYS a b
MIGRATE h 1 '' 0 10 AUTH2 keys p KEYS a
WATCH a b
RESTORE a 0 x
MOVE a 1
";

const BAD_KEYS: &str = "
EVAL s x
EVAL s +1 a
EVAL s 01 a
EVAL s -0
EVAL s -1
EVAL s 5 a
EVAL s 4294967297 a
EVAL s 99999999999999999999
EVAL_RO s 2 a
EVALSHA s 0
EVALSHA s x
EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db x
EVALSHA_RO e0e1f9fabfc9d4800c877a703b823ac0578ff8db 3 a
ZUNION 0 a
ZUNION -1 a
ZUNION x a
ZUNION 5 a
ZINTER 2 a
ZDIFF 2 a
ZINTERCARD 0 a
ZINTERCARD 5 a
ZUNIONSTORE d 0 a
ZUNIONSTORE d 2 a
ZDIFFSTORE d x a
ZINTERSTORE d 5 a
SINTERCARD 0 a
SINTERCARD x a
SINTERCARD 5 a
LMPOP 0 a LEFT
LMPOP x a LEFT
LMPOP 2 a LEFT
LMPOP 99999999999999999999 a LEFT
ZMPOP -1 a MIN
ZMPOP 4294967297 a MIN
BLMPOP 0 x a LEFT
BZMPOP 0 3 a MIN
MSET a 1 b
MSETNX a 1 b
XREAD a b c
XREAD COUNT 1 a
XREAD a b STREAMS
XREAD STREAMS a b c
XREAD COUNT x STREAMS a 0
XREAD BLOCK x STREAMS a 0
XREAD BLOCK -1 STREAMS a 0
XREAD COUNT STREAMS a 0
XREAD NOACK STREAMS a 0
XREAD GROUP g c STREAMS a 0
XREADGROUP GROUP g c STREAMS a b c
XREADGROUP GROUP g c COUNT 2 STREAMS
XREADGROUP COUNT 1 NOACK STREAMS a b
XREADGROUP COUNT 1 COUNT 1 NOACK GROUP
";

const ERRORS: &str = "
foo
foo a b
foo '' b
''
get|x y
config|get x
config x
config ''
config
CONFIG get
CoNfIg SeT a
get
get a b
mset
object encoding
object encoding a b
xgroup
xgroup create a
client nothing
command nothing
script
function x y z
acl whoami x
";
