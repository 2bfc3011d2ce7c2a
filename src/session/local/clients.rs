//! `CLIENT`: names, lists and modes of connections. `CLIENT KILL` is in [`super::kill`].

use std::sync::Arc;
use std::time::Duration;

use super::argument::{self, NOT_AN_INTEGER, SYNTAX_ERROR};
use super::{After, Local, help, tracking};
use crate::resp::{Request, encode, parse_i64};
use crate::session::{Client, Paused, ReplyMode};

/// Any subcommand but `KILL`; its arity is right.
pub(super) fn run(local: &Local<'_>, subcommand: &str, request: &Request<'_>, out: &mut Vec<u8>) {
    match subcommand {
        "id" => encode::integer(out, id(local.client)),
        "info" => {
            let mut line = String::new();
            let client = local.client;
            let asking = Some(("client|info", request.wire().len()));
            client.write_line(&mut line, local.now, asking);
            encode::verbatim(out, local.protocol(), &line);
        }
        "list" => list(local, request, out),
        "setname" => match checked_name(request.arg(2)) {
            Ok(name) => {
                let name = Some(name).filter(|name| !name.is_empty());
                local.client.set_name(name);
                encode::simple(out, "OK");
            }
            Err(text) => encode::error(out, text),
        },
        "getname" => match local.client.name() {
            Some(name) => encode::bulk(out, name.as_bytes()),
            None => encode::null(out, local.protocol()),
        },
        "setinfo" => set_info(local.client, request, out),
        "no-evict" => switch(request, out, |on| local.client.set_no_evict(on)),
        "no-touch" => switch(request, out, |on| local.client.set_no_touch(on)),
        "reply" => reply(local.client, request, out),
        "trackinginfo" => tracking::info(local, out),
        "getredir" => tracking::get_redirect(local.client, out),
        "caching" => tracking::caching(local.client, request, out),
        "pause" => pause(local, request, out),
        "unpause" => {
            local.pause.end();
            encode::simple(out, "OK");
        }
        "help" if help::write("client|help", out) => {}
        _ => encode::error(
            out,
            argument::not_supported(&format!("client|{subcommand}")),
        ),
    }
}

/// `CLIENT ID`, as the integer that goes into a reply.
pub(super) fn id(client: &Client) -> i64 {
    i64::try_from(client.id).unwrap_or(i64::MAX)
}

/// A name that `SETNAME` takes (empty clears it), or the error's text.
pub(super) fn checked_name(bytes: &[u8]) -> Result<String, Vec<u8>> {
    if bytes.len() > MAX_NAME_BYTES {
        return Err(format!("ERR Client names cannot exceed {MAX_NAME_BYTES} bytes.").into());
    }
    argument::field(bytes).ok_or_else(|| {
        b"ERR Client names cannot contain spaces, newlines or special characters.".to_vec()
    })
}

/// A type of clients that `CLIENT LIST` and `KILL` know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Type {
    /// Without subscriptions.
    Normal,
    /// With subscriptions.
    PubSub,
    /// A server. No client of Tally is one.
    Server,
}

impl Type {
    /// `None` for a word that is no type.
    pub(super) fn named(word: &[u8]) -> Option<Self> {
        let is = |name| argument::is(word, name);
        match () {
            () if is("normal") => Some(Self::Normal),
            () if is("pubsub") => Some(Self::PubSub),
            () if is("master") || is("replica") || is("slave") => Some(Self::Server),
            () => None,
        }
    }

    /// Whether a client is of this type.
    pub(super) fn is_of(self, client: &Client) -> bool {
        let subscribed = !client.subscriptions().is_empty();
        match self {
            Self::Normal => !subscribed,
            Self::PubSub => subscribed,
            Self::Server => false,
        }
    }
}

pub(super) fn unknown_type(word: &[u8]) -> Vec<u8> {
    argument::naming("ERR Unknown client type '", word, "'")
}

fn list(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    match listed(local, request) {
        Ok(clients) => {
            let mut text = String::new();
            // A reply longer than the output limit only closes the client: the rest is left out.
            let limit = local.config.server.output_buffer_bytes;
            for client in clients {
                let itself = client.id == local.client.id;
                let asking = itself.then(|| ("client|list", request.wire().len()));
                if text.len() < limit {
                    client.write_line(&mut text, local.now, asking);
                }
            }
            encode::verbatim(out, local.protocol(), &text);
        }
        Err(text) => encode::error(out, text),
    }
}

/// The clients that `CLIENT LIST` is to show, or the error's text.
fn listed(local: &Local<'_>, request: &Request<'_>) -> Result<Vec<Arc<Client>>, Vec<u8>> {
    let option = request.arg(2);
    if request.len() == 2 {
        return Ok(local.registry.clients());
    }
    if request.len() == 4 && argument::is(option, "TYPE") {
        let word = request.arg(3);
        let wanted = Type::named(word).ok_or_else(|| unknown_type(word))?;
        let mut clients = local.registry.clients();
        clients.retain(|client| wanted.is_of(client));
        return Ok(clients);
    }
    if request.len() == 3 || !argument::is(option, "ID") {
        return Err(SYNTAX_ERROR.into());
    }
    let mut clients = Vec::new();
    for id in request.args().skip(3) {
        let id = parse_i64(id).ok_or("ERR Invalid client ID")?;
        let client = u64::try_from(id).ok().and_then(|id| local.registry.get(id));
        clients.extend(client);
    }
    Ok(clients)
}

/// `CLIENT SETINFO LIB-NAME|LIB-VER text`, as Redis 7.2 has it.
fn set_info(client: &Client, request: &Request<'_>, out: &mut Vec<u8>) {
    let (option, value) = (request.arg(2), request.arg(3));
    let set = if argument::is(option, "lib-name") {
        Client::set_lib_name
    } else if argument::is(option, "lib-ver") {
        Client::set_lib_ver
    } else {
        let text = argument::naming("ERR Unrecognized option '", option, "'");
        return encode::error(out, text);
    };
    match argument::field(value).filter(|_| value.len() <= MAX_NAME_BYTES) {
        Some(value) => {
            set(client, value);
            encode::simple(out, "OK");
        }
        None => encode::error(
            out,
            argument::naming(
                "ERR ",
                option,
                " cannot contain spaces, newlines or special characters.",
            ),
        ),
    }
}

/// `ON` or `OFF` as the third argument.
fn switch(request: &Request<'_>, out: &mut Vec<u8>, set: impl FnOnce(bool)) {
    let word = request.arg(2);
    let on = argument::is(word, "on");
    if !on && !argument::is(word, "off") {
        return encode::error(out, SYNTAX_ERROR);
    }
    set(on);
    encode::simple(out, "OK");
}

fn reply(client: &Client, request: &Request<'_>, out: &mut Vec<u8>) {
    let word = request.arg(2);
    if argument::is(word, "on") {
        client.change_reply_mode(ReplyMode::on);
        encode::simple(out, "OK");
    } else if argument::is(word, "off") {
        client.change_reply_mode(ReplyMode::off);
    } else if argument::is(word, "skip") {
        client.change_reply_mode(ReplyMode::skip);
    } else {
        encode::error(out, SYNTAX_ERROR);
    }
}

/// `CLIENT PAUSE timeout [WRITE|ALL]`.
fn pause(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    let mode = request.arg(3);
    let what = match request.len() {
        3 => Paused::All,
        4 if argument::is(mode, "write") => Paused::Writes,
        4 if argument::is(mode, "all") => Paused::All,
        4 => return encode::error(out, "ERR CLIENT PAUSE mode must be WRITE or ALL"),
        _ => return encode::error(out, argument::wrong_subcommand("CLIENT", request)),
    };
    match parse_i64(request.arg(2)).map(u64::try_from) {
        Some(Ok(ms)) => {
            // A century is as good as for ever, and can be added to any point in time.
            let length = Duration::from_millis(ms.min(CENTURY_MS));
            local.pause.begin(what, local.now + length);
            encode::simple(out, "OK");
        }
        Some(Err(_)) => encode::error(out, "ERR timeout is negative"),
        None => encode::error(out, "ERR timeout is not an integer or out of range"),
    }
}

/// `CLIENT UNBLOCK id [TIMEOUT | ERROR]`
pub(super) fn unblock(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) -> After {
    let reason = request.arg(3);
    let how = match request.len() {
        3 => Some("TIMEOUT"),
        _ => ["TIMEOUT", "ERROR"]
            .into_iter()
            .find(|known| argument::is(reason, known)),
    };
    if request.len() > 4 {
        encode::error(out, argument::wrong_subcommand("CLIENT", request));
        return After::Continue;
    }
    let Some(how) = how else {
        encode::error(out, "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
        return After::Continue;
    };
    let Some(id) = parse_i64(request.arg(2)) else {
        encode::error(out, NOT_AN_INTEGER);
        return After::Continue;
    };
    let client = u64::try_from(id).ok().and_then(|id| local.registry.get(id));
    if let Some(blocked) = client.and_then(|client| client.blocked()) {
        return After::Unblock(blocked, how);
    }
    encode::integer(out, 0);
    After::Continue
}

/// Longest name and library text. Redis has no bound but that of a request; here every client's
/// name is kept for as long as it is connected.
const MAX_NAME_BYTES: usize = 1024;

const CENTURY_MS: u64 = 100 * 365 * 24 * 3_600_000;
