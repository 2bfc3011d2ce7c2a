//! `ACL`: users, their rules, and what they were denied (`aclCommand` in `acl.c` of 7.0).
//!
//! A password behind argon2 has no word among the rules and is left out.

use super::argument::{self, NOT_AN_INTEGER};
use super::{After, Local};
use crate::access::{self, Denied};
use crate::command::{self, Categories, LookupError};
use crate::resp::{Limits, Protocol, Request, RequestScanner, encode, parse_i64};
use crate::session::{DEFAULT_USER, Denial, Entry, User};

/// The subcommands that are answered here; arity is right.
pub(super) fn run(
    local: &Local<'_>,
    subcommand: &str,
    request: &Request<'_>,
    out: &mut Vec<u8>,
) -> After {
    match subcommand {
        "whoami" => {
            let user = local.client.user();
            encode::bulk(out, user.as_ref().map_or(DEFAULT_USER, |user| user.name()));
        }
        "users" => {
            encode::array(out, local.users.all().len());
            for user in local.users.all() {
                encode::bulk(out, user.name());
            }
        }
        "list" => {
            encode::array(out, local.users.all().len());
            for user in local.users.all() {
                encode::bulk(out, &[b"user ", user.name(), b" ", user.words()].concat());
            }
        }
        "getuser" => match local.users.named(request.arg(2)) {
            Some(user) => write_user(user, local.protocol(), out),
            None => encode::null(out, local.protocol()),
        },
        "setuser" => set_user(local, request, out),
        "deluser" => delete_users(local, request, out),
        "dryrun" => dry_run(local, request, out),
        "cat" => categories(request, out),
        "log" => log(local, request, out),
        _ => encode::error(out, argument::not_supported(&format!("acl|{subcommand}"))),
    }
    // It may have taken away its own user, or its own channels.
    if local.client.is_leaving() {
        After::Close
    } else {
        After::Continue
    }
}

/// `ACL SETUSER user [rule ...]`
fn set_user(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    let rules = request.args().skip(3);
    let changed = local
        .directory
        .change(local.registry, local.client, |users| {
            users
                .with_rules(request.arg(2), rules)
                .map(|users| (users, ()))
        });
    match changed {
        Ok(()) => encode::simple(out, "OK"),
        Err(text) => encode::error(out, [b"ERR ", &*text].concat()),
    }
}

/// `ACL DELUSER user [user ...]`
fn delete_users(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    let mut names = request.args().skip(2);
    if names.any(|name| name == DEFAULT_USER) {
        return encode::error(out, "ERR The 'default' user cannot be removed");
    }
    let removed = local
        .directory
        .change(local.registry, local.client, |users| {
            let (users, count) = users.without(request.args().skip(2));
            // Nothing changes without one.
            if count == 0 {
                Err(())
            } else {
                Ok((users, count))
            }
        });
    encode::integer(out, i64::try_from(removed.unwrap_or(0)).unwrap_or(i64::MAX));
}

/// The reply to `ACL GETUSER`.
fn write_user(user: &User, protocol: Protocol, out: &mut Vec<u8>) {
    let account = user.account();
    encode::map(out, protocol, 6);
    encode::bulk(out, b"flags");
    let flags: Vec<_> = account.flags().collect();
    encode::set(out, protocol, flags.len());
    for flag in flags {
        encode::bulk(out, flag.as_bytes());
    }
    encode::bulk(out, b"passwords");
    encode::array(out, account.passwords().len());
    for hash in account.passwords() {
        encode::bulk(out, hash.to_hex().as_bytes());
    }
    let mut described = account.described();
    if let Some(root) = described.next() {
        write_selector(&root, out);
    }
    encode::bulk(out, b"selectors");
    let selectors: Vec<_> = described.collect();
    encode::array(out, selectors.len());
    for selector in &selectors {
        encode::map(out, protocol, 3);
        write_selector(selector, out);
    }
}

fn write_selector(selector: &access::Described, out: &mut Vec<u8>) {
    for (name, words) in [
        (&b"commands"[..], &selector.commands),
        (b"keys", &selector.keys),
        (b"channels", &selector.channels),
    ] {
        encode::bulk(out, name);
        encode::bulk(out, words);
    }
}

/// `ACL CAT [category]`
fn categories(request: &Request<'_>, out: &mut Vec<u8>) {
    let names: Vec<&str> = match request.len() {
        2 => Categories::ALL.iter().map(|(_, name)| *name).collect(),
        3 => {
            let Some(category) = Categories::named(request.arg(2)) else {
                let text = argument::naming("ERR Unknown category '", request.arg(2), "'");
                return encode::error(out, text);
            };
            let commands = access::of_category(category);
            commands.map(|command| command.name).collect()
        }
        _ => return encode::error(out, argument::wrong_subcommand("ACL", request)),
    };
    encode::array(out, names.len());
    for name in names {
        encode::bulk(out, name.as_bytes());
    }
}

/// `ACL LOG [count | RESET]`
fn log(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    let log = &local.directory.log;
    let count = match request.len() {
        2 => Some(10),
        3 if argument::is(request.arg(2), "reset") => {
            log.reset();
            return encode::simple(out, "OK");
        }
        3 => parse_i64(request.arg(2)).map(|count| usize::try_from(count).unwrap_or(0)),
        _ => return encode::error(out, argument::wrong_subcommand("ACL", request)),
    };
    let Some(count) = count else {
        return encode::error(out, NOT_AN_INTEGER);
    };
    let entries = log.last(count);
    encode::array(out, entries.len());
    for entry in &entries {
        write_entry(local, entry, out);
    }
}

fn write_entry(local: &Local<'_>, entry: &Entry, out: &mut Vec<u8>) {
    let protocol = local.protocol();
    let context = if entry.denial.in_multi {
        "multi"
    } else {
        "toplevel"
    };
    encode::map(out, protocol, 10);
    encode::bulk(out, b"count");
    encode::integer(out, i64::try_from(entry.count).unwrap_or(i64::MAX));
    for (name, text) in [
        ("reason", entry.denial.reason.as_bytes()),
        ("context", context.as_bytes()),
        ("object", &entry.denial.object),
        ("username", &entry.user),
    ] {
        encode::bulk(out, name.as_bytes());
        encode::bulk(out, text);
    }
    encode::bulk(out, b"age-seconds");
    let age = local.now.saturating_duration_since(entry.at);
    let (seconds, millis) = (age.as_secs(), age.subsec_millis());
    let seconds = format!("{seconds}.{millis:03}");
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match protocol {
        Protocol::Resp2 => encode::bulk(out, seconds.as_bytes()),
        Protocol::Resp3 => out.extend_from_slice(format!(",{seconds}\r\n").as_bytes()),
    }
    encode::bulk(out, b"client-info");
    encode::bulk(out, entry.client.trim_end().as_bytes());
    // They came with Redis 7.2.
    for (name, number) in [
        ("entry-id", u128::from(entry.id)),
        ("timestamp-created", entry.created.as_millis()),
        ("timestamp-last-updated", entry.updated.as_millis()),
    ] {
        encode::bulk(out, name.as_bytes());
        encode::integer(out, i64::try_from(number).unwrap_or(i64::MAX));
    }
}

/// Notes in `ACL LOG` that a password was wrong.
pub(super) fn log_wrong_password(local: &Local<'_>, user: &[u8], request: &Request<'_>) {
    let denial = Denial {
        reason: "auth",
        in_multi: local.in_multi,
        object: request.arg(0).to_vec(),
    };
    let name = command::lookup(request).map_or("auth", |command| command.name);
    let mut line = String::new();
    let asking = Some((name, request.wire().len()));
    local.client.write_line(&mut line, local.now, asking);
    local.directory.log.add(denial, user, line, local.now);
}

/// `ACL DRYRUN user command [argument ...]`
fn dry_run(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    let name = request.arg(2);
    let Some(user) = local.users.named(name) else {
        return encode::error(out, argument::naming("ERR User '", name, "' not found"));
    };
    let args: Vec<&[u8]> = request.args().skip(3).collect();
    let mut wire = Vec::new();
    encode::request(&mut wire, &args);
    let mut scanner = RequestScanner::new();
    let limits = Limits {
        authenticated: true,
        ..Limits::default()
    };
    // It was part of a request, so it is one.
    if !matches!(scanner.scan(&wire, &limits), Ok(Some(_))) {
        return encode::error(out, argument::SYNTAX_ERROR);
    }
    let tried = scanner.request(&wire);
    let command = match command::lookup(&tried) {
        Ok(command) => command,
        Err(error @ LookupError::Arity) => return encode::error(out, error.text(&tried)),
        Err(_) => {
            let text = argument::naming("ERR Command '", request.arg(3), "' not found");
            return encode::error(out, text);
        }
    };
    let checked = user.account().check(command, &tried, &mut Vec::new());
    let before = b"This user has no permissions to ".as_slice();
    let text = match checked {
        Ok(()) => return encode::simple(out, "OK"),
        Err(Denied::Command) => {
            [before, b"run the '", command.name.as_bytes(), b"' command"].concat()
        }
        Err(Denied::Key(at)) => [before, b"access the '", tried.arg(at), b"' key"].concat(),
        Err(Denied::Channel(at)) => [before, b"access the '", tried.arg(at), b"' channel"].concat(),
    };
    encode::bulk(out, &text);
}
