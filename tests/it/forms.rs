//! Replies converted from RESP3 against those that the same server gives in RESP2.

mod cases;
mod collections;

use std::collections::BTreeSet;

use tally::command::{self, Class, Flags};
use tally::resp::{Form, to_resp2};

use self::cases::{CASES, FIXTURE};
use crate::redis_server::{Client, RedisServer, split, with_request};

/// Every case runs in both protocols from the same state: nothing but the fixture, then the
/// case's own setup.
#[test]
fn a_converted_reply_is_what_the_server_sends_in_resp2() {
    let server = RedisServer::start();
    let mut resp2 = server.connect();
    let mut resp3 = server.connect();
    if !resp2.is_7_0() {
        return;
    }
    resp3.call(&["HELLO", "3"]);
    let (mut faults, mut converted) = (Vec::new(), 0);
    let (mut special, mut needed) = (BTreeSet::new(), BTreeSet::new());
    for case in cases() {
        let expected = run(&mut resp2, &case);
        let frame = run(&mut resp3, &case);
        let (name, form) = with_request(&case.request, |request| {
            let found = command::lookup(request);
            let found = found.unwrap_or_else(|error| panic!("{}: {error:?}", case.line));
            (found.name, found.form_of(request))
        });
        let (mut out, mut plain) = (Vec::new(), Vec::new());
        to_resp2(&frame, form, &mut out);
        to_resp2(&frame, Form::Plain, &mut plain);
        if form != Form::Plain {
            special.insert(name);
        }
        if out != plain {
            needed.insert(name);
        }
        converted += usize::from(frame != expected);
        let mask = |bytes: &[u8]| {
            if case.masked {
                masked(bytes)
            } else {
                bytes.to_vec()
            }
        };
        if mask(&out) != mask(&expected) {
            faults.push(format!(
                "{} ({form:?})\n  resp3 {}\n  ours  {}\n  resp2 {}",
                case.line,
                frame.escape_ascii(),
                out.escape_ascii(),
                expected.escape_ascii()
            ));
        }
    }
    assert!(
        faults.is_empty(),
        "{} differ\n{}",
        faults.len(),
        faults.join("\n")
    );
    // No case would notice if these had no form of their own.
    let idle: Vec<_> = special.difference(&needed).collect();
    assert!(idle.is_empty(), "{idle:?}");
    assert!(
        converted > 100,
        "only {converted} cases tell the protocols apart"
    );
}

#[test]
fn every_command_that_is_forwarded_has_a_case() {
    let seen: BTreeSet<_> = cases()
        .iter()
        .map(|case| {
            with_request(&case.request, |request| {
                command::lookup(request).map_or_else(
                    |error| panic!("{}: {error:?}", case.line),
                    |found| found.name,
                )
            })
        })
        .collect();
    let missing: Vec<_> = command::commands()
        .iter()
        .filter(|entry| {
            !matches!(
                entry.class,
                Class::Local
                    | Class::Own(_)
                    | Class::PubSub(_)
                    | Class::Refused(_)
                    | Class::Transaction(_)
            )
        })
        // Not of the server that these tests run.
        .filter(|entry| !entry.flags.contains(Flags::NEWER))
        .map(|entry| entry.name)
        .filter(|name| !seen.contains(name))
        // What they say depends on the moment.
        .filter(|name| !["bgrewriteaof", "lastsave", "memory|malloc-stats"].contains(name))
        .collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

/// A command that may give null, pairs or maps in one situation and an error in another: each of
/// those that name keys must have been tried on a key of the wrong type and on none.
#[test]
fn every_keyed_command_meets_a_missing_key_and_a_wrong_type() {
    let mut tried: BTreeSet<(&str, &str)> = BTreeSet::new();
    for case in cases() {
        with_request(&case.request, |request| {
            let Ok(found) = command::lookup(request) else {
                return;
            };
            for arg in request.args() {
                for situation in ["missing", "wrong"] {
                    if arg.starts_with(situation.as_bytes()) {
                        tried.insert((found.name, situation));
                    }
                }
            }
        });
    }
    let faults: Vec<_> = command::commands()
        .iter()
        .filter(|entry| matches!(entry.class, Class::Keyed | Class::Increment(_) | Class::Get))
        .flat_map(|entry| [(entry.name, "missing"), (entry.name, "wrong")])
        .filter(|(name, situation)| *situation == "missing" || !TYPELESS.contains(name))
        .filter(|pair| !tried.contains(pair))
        .collect();
    assert!(faults.is_empty(), "not tried: {faults:?}");
}

/// Commands that take a key of any type.
const TYPELESS: &[&str] = &[
    "copy",
    "dump",
    "expire",
    "expireat",
    "memory|usage",
    "move",
    "msetnx",
    "object|encoding",
    "object|refcount",
    "persist",
    "pexpire",
    "pexpireat",
    "psetex",
    "rename",
    "renamenx",
    "restore",
    "set",
    "setex",
    "setnx",
];

struct Case {
    line: String,
    setup: Vec<Vec<Vec<u8>>>,
    request: Vec<Vec<u8>>,
    /// The reply has times or random digits: hexadecimal digits are all alike.
    masked: bool,
}

/// One a line: `setup; setup | request`, or only the request; `~` first where the reply differs
/// from run to run.
fn cases() -> Vec<Case> {
    let lines = CASES.iter().flat_map(|family| family.lines());
    let lines = lines.map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (setup, request) = line.split_once(" | ").unwrap_or(("", line));
            let text = request.trim_start_matches('~').replace("\\n", "\n");
            Case {
                line: line.to_owned(),
                setup: setup
                    .replace("\\n", "\n")
                    .split(';')
                    .map(split)
                    .filter(|args| !args.is_empty())
                    .collect(),
                masked: request.starts_with('~'),
                request: split(&text),
            }
        })
        .collect()
}

/// The reply to the case's request, after its setup.
fn run(client: &mut Client, case: &Case) -> Vec<u8> {
    let mut requests = vec![split("FLUSHALL")];
    requests.extend(FIXTURE.lines().map(split).filter(|args| !args.is_empty()));
    requests.extend(case.setup.iter().cloned());
    let prepared = requests.len();
    requests.push(case.request.clone());
    let requests: Vec<_> = requests.iter().map(Vec::as_slice).collect();
    let mut replies = client.pipeline(&requests);
    for reply in replies.iter().take(prepared) {
        assert!(
            !reply.starts_with(b"-"),
            "{}: {}",
            case.line,
            reply.escape_ascii()
        );
    }
    replies.pop().unwrap()
}

fn masked(reply: &[u8]) -> Vec<u8> {
    let same = |byte: &u8| {
        if byte.is_ascii_hexdigit() {
            b'x'
        } else {
            *byte
        }
    };
    let mut masked: Vec<u8> = reply.iter().map(same).collect();
    // A number may have one digit more.
    masked.dedup_by(|next, last| *next == b'x' && *last == b'x');
    masked
}
