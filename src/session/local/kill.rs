//! `CLIENT KILL`: which clients, and the two forms of its reply.

use std::time::Instant;

use super::argument::{self, SYNTAX_ERROR};
use super::{After, Local, clients};
use crate::resp::{Request, encode, parse_i64};
use crate::session::{Client, Users};

/// Closes the clients that match. A client that kills itself gets its reply first.
pub(super) fn kill(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) -> After {
    let filter = match Filter::parse(local.users, request) {
        Ok(filter) => filter,
        Err(text) => {
            encode::error(out, text);
            return After::Continue;
        }
    };
    let mut killed = 0;
    let mut after = After::Continue;
    for client in local.registry.clients() {
        let itself = client.id == local.client.id;
        // One killed before may not have ended yet; it must not be counted again.
        let gone = client.kill.is_cancelled();
        if gone || !filter.matches(&client, local.now) || (itself && filter.skip_me) {
            continue;
        }
        killed += 1;
        if itself {
            after = After::Close;
        } else {
            client.kill.cancel();
        }
    }
    match (filter.old_form, killed) {
        (false, _) => encode::integer(out, killed),
        (true, 0) => encode::error(out, "ERR No such client"),
        (true, _) => encode::simple(out, "OK"),
    }
    after
}

/// Filters given together must all match.
struct Filter<'a> {
    /// `CLIENT KILL addr`: another reply, and it may kill itself.
    old_form: bool,
    skip_me: bool,
    id: Option<u64>,
    addr: Option<&'a [u8]>,
    laddr: Option<&'a [u8]>,
    user: Option<&'a [u8]>,
    wanted: Option<clients::Type>,
    /// Seconds since it connected, or more (Redis 7.4).
    max_age: Option<u64>,
}

impl<'a> Filter<'a> {
    fn parse(users: &Users, request: &Request<'a>) -> Result<Self, Vec<u8>> {
        let old_form = request.len() == 3;
        let mut filter = Self {
            old_form,
            skip_me: !old_form,
            id: None,
            addr: old_form.then(|| request.arg(2)),
            laddr: None,
            user: None,
            wanted: None,
            max_age: None,
        };
        if old_form {
            return Ok(filter);
        }
        let mut args = request.args().skip(2);
        while let Some(option) = args.next() {
            let value = args.next().ok_or(SYNTAX_ERROR)?;
            filter.add(users, option, value)?;
        }
        Ok(filter)
    }

    fn add(&mut self, users: &Users, option: &[u8], value: &'a [u8]) -> Result<(), Vec<u8>> {
        if argument::is(option, "id") {
            let id = parse_i64(value).and_then(|id| u64::try_from(id).ok());
            let id = id.filter(|id| *id > 0);
            self.id = Some(id.ok_or("ERR client-id should be greater than 0")?);
        } else if argument::is(option, "type") {
            let wanted = clients::Type::named(value);
            self.wanted = Some(wanted.ok_or_else(|| clients::unknown_type(value))?);
        } else if argument::is(option, "addr") {
            self.addr = Some(value);
        } else if argument::is(option, "laddr") {
            self.laddr = Some(value);
        } else if argument::is(option, "user") {
            if users.named(value).is_none() {
                return Err(argument::naming("ERR No such user '", value, "'"));
            }
            self.user = Some(value);
        } else if argument::is(option, "maxage") {
            let age = parse_i64(value).ok_or("ERR maxage is not an integer or out of range")?;
            let age = u64::try_from(age).ok().filter(|age| *age > 0);
            self.max_age = Some(age.ok_or("ERR maxage should be greater than 0")?);
        } else if argument::is(option, "skipme") {
            self.skip_me = argument::is(value, "yes");
            if !self.skip_me && !argument::is(value, "no") {
                return Err(SYNTAX_ERROR.into());
            }
        } else {
            return Err(SYNTAX_ERROR.into());
        }
        Ok(())
    }

    fn matches(&self, client: &Client, now: Instant) -> bool {
        let is_at = |wanted: Option<&[u8]>, address: std::net::SocketAddr| {
            wanted.is_none_or(|wanted| wanted == address.to_string().as_bytes())
        };
        self.wanted.is_none_or(|wanted| wanted.is_of(client))
            && self.id.is_none_or(|id| id == client.id)
            && is_at(self.addr, client.addr)
            && is_at(self.laddr, client.laddr)
            && self.user.is_none_or(|user| client.is_user(user))
            && self
                .max_age
                .is_none_or(|age| now.saturating_duration_since(client.created).as_secs() >= age)
    }
}
