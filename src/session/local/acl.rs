//! `ACL`: the users of the configuration, told as rules of Redis (`aclCommand` in `acl.c` of
//! 7.0). They are changed in the configuration only.
//!
//! Tally's categories are wider than a rule can say (`[[users]]`, see `src/access.rs`), so
//! `+@read` and its kin are the nearest words. A password behind argon2 has none and is left out.

use super::{Local, argument};
use crate::access::{Access, Category, Denied};
use crate::command::{self, LookupError};
use crate::config::{PasswordHash, UserPassword};
use crate::resp::{Limits, Protocol, Request, RequestScanner, encode};
use crate::session::{DEFAULT_USER, Users};

/// The subcommands that are answered here; arity is right.
pub(super) fn run(local: &Local<'_>, subcommand: &str, request: &Request<'_>, out: &mut Vec<u8>) {
    match subcommand {
        "whoami" => {
            let user = local.client.user();
            let name = user
                .as_ref()
                .map_or(DEFAULT_USER, |user| user.name().as_bytes());
            encode::bulk(out, name);
        }
        "users" => {
            let users = described(local.users);
            encode::array(out, users.len());
            for user in users {
                encode::bulk(out, user.name);
            }
        }
        "list" => {
            let users = described(local.users);
            encode::array(out, users.len());
            for user in users {
                encode::bulk(out, &user.line());
            }
        }
        "getuser" => {
            let users = described(local.users);
            let user = users.iter().find(|user| user.name == request.arg(2));
            match user {
                Some(user) => user.write(local.protocol(), out),
                None => encode::null(out, local.protocol()),
            }
        }
        "deluser" => delete(local.users, request, out),
        "dryrun" => dry_run(local, request, out),
        _ => encode::error(out, argument::not_supported(&format!("acl|{subcommand}"))),
    }
}

/// `ACL DELUSER user [user ...]`: of those that do not exist none is deleted, as in Redis; others
/// are refused.
fn delete(users: &Users, request: &Request<'_>, out: &mut Vec<u8>) {
    let described = described(users);
    let mut names = request.args().skip(2);
    let known =
        names.find(|name| *name == DEFAULT_USER || described.iter().any(|user| user.name == *name));
    match known {
        None => encode::integer(out, 0),
        Some(name) if name == DEFAULT_USER => {
            encode::error(out, "ERR The 'default' user cannot be removed");
        }
        Some(_) => encode::error(
            out,
            "ERR ACL DELUSER is not available, users are in Tally's configuration ([[users]])",
        ),
    }
}

/// `ACL DRYRUN user command [argument ...]`
fn dry_run(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    let name = request.arg(2);
    let users = described(local.users);
    let Some(user) = users.into_iter().find(|user| user.name == name) else {
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
    let denied = match user.access {
        Some(access) => access.check(command, &tried, &mut Vec::new()).err(),
        None => None,
    };
    match denied {
        None => encode::simple(out, "OK"),
        Some(Denied::Command) => {
            let before = "This user has no permissions to run the '";
            encode::bulk(out, format!("{before}{}' command", command.name).as_bytes());
        }
        Some(Denied::Keys) => {
            let mut positions = Vec::new();
            _ = command::key_positions(command, &tried, &mut positions);
            let mut keys = positions.iter().map(|at| tried.arg(*at));
            let key = keys.find(|key| user.access.is_some_and(|access| !access.allows_key(key)));
            // What looks at all keys names none.
            let key = key.unwrap_or(b"*");
            let before = b"This user has no permissions to access the '";
            encode::bulk(out, &[before, key, b"' key"].concat());
        }
    }
}

/// A user in the words of Redis.
struct Described<'u> {
    name: &'u [u8],
    password: Password,
    /// What the user may do; `None`: everything.
    access: Option<&'u Access>,
}

enum Password {
    /// Any password is taken.
    Any,
    /// SHA-256 of it.
    Hash(PasswordHash),
    /// An argon2 hash, for which Redis has no word.
    Untold,
}

/// All users, by name.
fn described(users: &Users) -> Vec<Described<'_>> {
    let named = users.all_named().map(|user| Described {
        name: user.name().as_bytes(),
        password: match user.password() {
            UserPassword::Sha256(hash) => Password::Hash(*hash),
            UserPassword::Argon2(_) => Password::Untold,
        },
        access: Some(user.access()),
    });
    let default = users.has_default().then(|| Described {
        name: DEFAULT_USER,
        password: users
            .default_password()
            .map_or(Password::Any, Password::Hash),
        access: None,
    });
    let mut all: Vec<_> = named.chain(default).collect();
    all.sort_by_key(|user| user.name);
    all
}

impl Described<'_> {
    fn flags(&self) -> &'static [&'static str] {
        // The default user of Redis has no word about payloads; others have one by default.
        match (self.access, &self.password) {
            (Some(_), _) => &["on", "sanitize-payload"],
            (None, Password::Any) => &["on", "nopass"],
            (None, _) => &["on"],
        }
    }

    fn commands(&self) -> String {
        let Some(access) = self.access else {
            return "+@all".to_owned();
        };
        if Category::ALL
            .iter()
            .all(|category| access.allows(*category))
        {
            return "+@all".to_owned();
        }
        let words = Category::ALL
            .into_iter()
            .filter(|&category| access.allows(category));
        let words = words.map(|category| match category {
            Category::Read => " +@read",
            Category::Write => " +@write",
            Category::Script => " +@scripting",
            Category::Admin => " +@admin",
        });
        // What is in no category of Tally, everybody may use.
        std::iter::once("-@all +@connection +@transaction")
            .chain(words)
            .collect()
    }

    fn keys(&self) -> Vec<u8> {
        let patterns = match self.access {
            Some(access) => access.patterns(),
            None => None,
        };
        let Some(patterns) = patterns else {
            return b"~*".to_vec();
        };
        let patterns: Vec<Vec<u8>> = patterns
            .iter()
            .map(|text| [b"~", &**text].concat())
            .collect();
        patterns.join(&b' ')
    }

    /// Its line in a file of users.
    fn line(&self) -> Vec<u8> {
        let mut line = b"user ".to_vec();
        line.extend_from_slice(self.name);
        for flag in self.flags() {
            line.extend([b" ", flag.as_bytes()].concat());
        }
        if let Password::Hash(hash) = self.password {
            line.extend(format!(" #{}", hash.to_hex()).bytes());
        }
        let (keys, commands) = (self.keys(), self.commands());
        if !keys.is_empty() {
            line.push(b' ');
        }
        line.extend([&keys, &b" &* "[..], commands.as_bytes()].concat());
        line
    }

    /// The reply to `ACL GETUSER`.
    fn write(&self, protocol: Protocol, out: &mut Vec<u8>) {
        encode::map(out, protocol, 6);
        encode::bulk(out, b"flags");
        encode::set(out, protocol, self.flags().len());
        for flag in self.flags() {
            encode::bulk(out, flag.as_bytes());
        }
        encode::bulk(out, b"passwords");
        match self.password {
            Password::Hash(hash) => {
                encode::array(out, 1);
                encode::bulk(out, hash.to_hex().as_bytes());
            }
            Password::Any | Password::Untold => encode::array(out, 0),
        }
        encode::bulk(out, b"commands");
        encode::bulk(out, self.commands().as_bytes());
        encode::bulk(out, b"keys");
        encode::bulk(out, &self.keys());
        encode::bulk(out, b"channels");
        encode::bulk(out, b"&*");
        encode::bulk(out, b"selectors");
        encode::array(out, 0);
    }
}
