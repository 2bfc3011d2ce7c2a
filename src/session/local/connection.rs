//! Commands about the connection itself: `HELLO`, `AUTH`, `SELECT`, `PING`, `RESET`.

use std::cmp::Ordering;

use super::argument::{self, NOT_AN_INTEGER, SYNTAX_ERROR};
use super::{Local, acl, clients};
use crate::resp::{Protocol, Request, encode, parse_i64};
use crate::session::{DEFAULT_USER, Login, Refused, ReplyMode, Users};

/// `PING`: in subscribed mode it looks like a message.
pub(super) fn ping(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    match request.len() {
        1 | 2 if local.client.is_in_subscribed_mode() => {
            encode::array(out, 2);
            encode::bulk(out, b"pong");
            encode::bulk(out, request.arg(1));
        }
        1 => encode::simple(out, "PONG"),
        2 => encode::bulk(out, request.arg(1)),
        _ => encode::error(out, "ERR wrong number of arguments for 'ping' command"),
    }
}

/// `RESET`: RESP2, database 0, no name, no `AUTH`, every reply sent; what `clearClientConnectionState` does.
pub(super) fn reset(local: &Local<'_>, out: &mut Vec<u8>) {
    let client = local.client;
    client.set_protocol(Protocol::Resp2);
    client.set_name(None);
    client.set_database(0);
    if local.users.is_open() {
        client.log_in(Login::Default(local.users.entry()));
    } else {
        client.log_out();
    }
    client.change_reply_mode(ReplyMode::reset);
    client.set_no_evict(false);
    client.set_no_touch(false);
    encode::simple(out, "RESET");
}

/// `SELECT`. The session makes sure that everything asked in the database before is answered first.
pub(super) fn select(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    let number = match parse_i64(request.arg(1)).map(i32::try_from) {
        None => return encode::error(out, NOT_AN_INTEGER),
        Some(Err(_)) => {
            let (least, most) = (i32::MIN, i32::MAX);
            let text = format!("ERR value is out of range, value must between {least} and {most}");
            return encode::error(out, text);
        }
        Some(Ok(number)) => u32::try_from(number).ok(),
    };
    match number.filter(|number| *number < local.config.server.databases) {
        Some(number) => {
            local.client.set_database(number);
            encode::simple(out, "OK");
        }
        None => encode::error(out, "ERR DB index is out of range"),
    }
}

pub(super) fn auth(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    let Some((user, password)) = credentials("auth", request) else {
        return encode::error(out, SYNTAX_ERROR);
    };
    if names_no_user(local.users, request) {
        return encode::error(out, NO_PASSWORD_SET);
    }
    match log_in(local, user, password, request) {
        Ok(()) => encode::simple(out, "OK"),
        Err(refused) => encode::error(out, refused.text()),
    }
}

/// The user and password of an `AUTH` or a `HELLO`, if the request is one and has no fault.
pub(in crate::session) fn credentials<'a>(
    name: &str,
    request: &Request<'a>,
) -> Option<(&'a [u8], &'a [u8])> {
    match (name, request.len()) {
        ("auth", 2) => Some((DEFAULT_USER, request.arg(1))),
        ("auth", 3) => Some((request.arg(1), request.arg(2))),
        ("hello", _) => Greeting::parse(request).ok()?.credentials,
        _ => None,
    }
}

/// Whether a request is an `AUTH` with a password alone, and there is none.
pub(in crate::session) fn names_no_user(users: &Users, request: &Request<'_>) -> bool {
    request.len() == 2 && users.default_user().account().takes_any_password()
}

/// `HELLO [2|3 [AUTH user password] [SETNAME name]]`. Everything is checked before anything
/// changes, so a refused `HELLO` leaves no trace. (In Redis 7.0 one refused for a later option has
/// authenticated and named the client already.)
pub(super) fn hello(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    let greeting = match Greeting::parse(request) {
        Ok(greeting) => greeting,
        Err(text) => return encode::error(out, text),
    };
    let client = local.client;
    match greeting.credentials {
        Some((user, password)) => {
            if let Err(refused) = log_in(local, user, password, request) {
                return encode::error(out, refused.text());
            }
        }
        None if !client.authenticated() => return encode::error(out, HELLO_NO_AUTH),
        None => {}
    }
    if let Some(name) = greeting.name {
        client.set_name(Some(name).filter(|name| !name.is_empty()));
    }
    if let Some(protocol) = greeting.protocol {
        client.set_protocol(protocol);
    }
    describe(local, out);
}

fn describe(local: &Local<'_>, out: &mut Vec<u8>) {
    let protocol = local.protocol();
    encode::map(out, protocol, 7);
    encode::bulk(out, b"server");
    encode::bulk(out, b"redis");
    encode::bulk(out, b"version");
    encode::bulk(out, redis_version(local).as_bytes());
    encode::bulk(out, b"proto");
    encode::integer(
        out,
        match protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        },
    );
    encode::bulk(out, b"id");
    encode::integer(out, clients::id(local.client));
    encode::bulk(out, b"mode");
    encode::bulk(out, b"standalone");
    encode::bulk(out, b"role");
    encode::bulk(out, b"master");
    encode::bulk(out, b"modules");
    encode::array(out, 0);
}

/// What a `HELLO` asks for.
struct Greeting<'a> {
    protocol: Option<Protocol>,
    credentials: Option<(&'a [u8], &'a [u8])>,
    name: Option<String>,
}

impl<'a> Greeting<'a> {
    /// Faults are found in Redis's order: version, options from the left (`helloCommand`).
    fn parse(request: &Request<'a>) -> Result<Self, Vec<u8>> {
        let mut args = request.args().skip(1);
        let protocol = match args.next().map(parse_i64) {
            None => None,
            Some(None) => return Err(VERSION_NOT_AN_INTEGER.into()),
            Some(Some(2)) => Some(Protocol::Resp2),
            Some(Some(3)) => Some(Protocol::Resp3),
            Some(Some(_)) => return Err(NO_PROTOCOL.into()),
        };
        let mut greeting = Self {
            protocol,
            credentials: None,
            name: None,
        };
        while let Some(option) = args.next() {
            if argument::is(option, "AUTH") && args.len() >= 2 {
                greeting.credentials = args.next().zip(args.next());
            } else if argument::is(option, "SETNAME")
                && let Some(name) = args.next()
            {
                greeting.name = Some(clients::checked_name(name)?);
            } else {
                return Err(argument::naming(
                    "ERR Syntax error in HELLO option '",
                    option,
                    "'",
                ));
            }
        }
        Ok(greeting)
    }
}

/// Version that clients are told: the lowest of the nodes', as a key may live on any of them.
pub(super) fn redis_version(local: &Local<'_>) -> String {
    let nodes = (local.nodes)().into_iter();
    lowest(nodes.filter_map(|node| node.redis_version))
        .unwrap_or_else(|| UNKNOWN_VERSION.to_owned())
}

/// The lowest version of Valkey, where every node that is known is one.
pub(super) fn valkey_version(local: &Local<'_>) -> Option<String> {
    let known = (local.nodes)()
        .into_iter()
        .filter(|node| node.redis_version.is_some());
    let versions: Option<Vec<String>> = known.map(|node| node.valkey_version).collect();
    lowest(versions?.into_iter())
}

fn lowest(versions: impl Iterator<Item = String>) -> Option<String> {
    versions.min_by(|a, b| compare_versions(a, b))
}

/// Compares `7.0.15` with `7.2.4` number by number; what is no number counts as 0.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        let parts = text.split('.');
        parts.map(|part| part.parse().unwrap_or(0)).collect()
    };
    numbers(a).cmp(&numbers(b))
}

/// Lets the client in. A client that is in already as that user keeps its place among the
/// connections that the user may have.
fn log_in(
    local: &Local<'_>,
    user: &[u8],
    password: &[u8],
    request: &Request<'_>,
) -> Result<(), Refused> {
    let login = match local.users.log_in(user, password) {
        Err(Refused::TooMany) if local.client.is_user(user) => return Ok(()),
        Err(Refused::Wrong) => {
            acl::log_wrong_password(local, user, request);
            return Err(Refused::Wrong);
        }
        login => login?,
    };
    local.client.log_in(login);
    Ok(())
}

/// The version that nodes are assumed to have before the first of them has answered.
const UNKNOWN_VERSION: &str = "7.0.15";

const NO_PASSWORD_SET: &str = "ERR AUTH <password> called without any password configured for the \
    default user. Are you sure your configuration is correct?";
const VERSION_NOT_AN_INTEGER: &str = "ERR Protocol version is not an integer or out of range";
const NO_PROTOCOL: &str = "NOPROTO unsupported protocol version";
const HELLO_NO_AUTH: &str = "NOAUTH HELLO must be called with the client already authenticated, \
    otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and \
    select the RESP protocol version at the same time";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert_eq!(compare_versions("7.0.15", "7.0.9"), Ordering::Greater);
        assert_eq!(compare_versions("7.2.0", "7.10.0"), Ordering::Less);
        assert_eq!(compare_versions("255.255.255", "8.0"), Ordering::Greater);
    }
}
