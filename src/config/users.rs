//! `[[users]]`: who may give which password, and what they may do then.
//!
//! `allow` and `keys` are short for rules, see [`Allow`]; `rules` are Redis's own and follow them.

use config::{Value, ValueKind};

use super::allow::{Allow, fault_text, key_words, masked, rules};
use super::raw;
use super::reader::Reader;
use super::{Argon2Hash, User};
use crate::access::{Account, NewChannels, PasswordHash, has_spaces};
use crate::glob::MAX_PATTERN_BYTES;

/// Checks the users; names are unique.
pub(super) fn users(reader: &mut Reader, value: Option<Value>) -> Vec<User> {
    let raw_users: Vec<raw::User> = reader.sections("users", value);
    if raw_users.len() > MAX_USERS {
        let given = raw_users.len();
        reader.fault(
            "users",
            format!("{given} users; allowed: at most {MAX_USERS}"),
        );
    }
    let mut users: Vec<User> = Vec::new();
    for (at, raw) in raw_users.into_iter().enumerate() {
        let user = user(reader, at, raw);
        let first = users.iter().position(|other| other.name == user.name);
        if let Some(first) = first.filter(|_| !user.name.is_empty()) {
            let problem = format!("{:?} is the name of users[{first}] too", user.name);
            reader.fault(&format!("users[{at}].name"), problem);
        }
        users.push(user);
    }
    users
}

fn user(reader: &mut Reader, at: usize, raw: raw::User) -> User {
    let path = |key: &str| format!("users[{at}].{key}");
    let allowed = format!("1 to {MAX_NAME_BYTES} visible ASCII characters, and not \"default\"");
    if raw.name.is_none() {
        reader.fault(&path("name"), format!("missing; allowed: {allowed}"));
    }
    let is_name = |text: &str| {
        (1..=MAX_NAME_BYTES).contains(&text.len())
            && text != "default"
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let name = reader.text(&path("name"), raw.name, String::new(), &allowed, |text| {
        is_name(text).then(|| text.to_owned())
    });
    let password = password(
        reader,
        &path,
        (raw.password, raw.password_file),
        (raw.password_sha256, raw.password_argon2),
    );
    let (account, argon2, short) =
        account(reader, &path, password, (raw.allow, raw.keys, raw.rules));
    let Short { allow, keys, rules } = short;
    User {
        name,
        argon2,
        account,
        trusts_scripts: allow.iter().any(|name| name == "script"),
        allow,
        keys,
        rules,
        max_connections: reader.number(
            &path("max_connections"),
            raw.max_connections,
            0,
            &(0..=1_000_000),
        ),
        max_commands_per_second: reader.number(
            &path("max_commands_per_second"),
            raw.max_commands_per_second,
            0,
            &(0..=1_000_000_000),
        ),
    }
}

/// What the file says of a user's rights.
struct Short {
    allow: Vec<String>,
    keys: Vec<String>,
    rules: Vec<String>,
}

/// What a user may do, and its password, unless the account has it.
fn account(
    reader: &mut Reader,
    path: &dyn Fn(&str) -> String,
    password: Option<Password>,
    (allow, keys, given): (Option<Value>, Option<Value>, Option<Value>),
) -> (Account, Option<Argon2Hash>, Short) {
    let rules = rules(reader, &path("rules"), given);
    // What is not said is as in a file without rules, or nothing.
    let has_rules = !rules.is_empty();
    let or_nothing = |texts: &'static [&'static str]| if has_rules { &[] } else { texts };
    let (has_allow, has_keys) = (allow.is_some(), keys.is_some());
    let names = Allow::ALL.map(|allow| format!("{:?}", allow.name));
    let allow = list(
        reader,
        &path("allow"),
        allow,
        or_nothing(&["read", "write"]),
        &names.join(", "),
        &|text| Allow::ALL.iter().any(|known| known.name == text),
    );
    let keys = list(
        reader,
        &path("keys"),
        keys,
        or_nothing(&["*"]),
        &format!("patterns as in KEYS, of 1 to {MAX_PATTERN_BYTES} bytes without a space"),
        &|text| (1..=MAX_PATTERN_BYTES).contains(&text.len()) && !has_spaces(text.as_bytes()),
    );
    let mut words = vec!["on".to_owned()];
    if !has_rules || has_allow {
        words.extend(Allow::words(&allow));
    }
    if !has_rules || has_keys {
        words.extend(key_words(&keys));
    }
    let mut account = Account::default();
    let argon2 = match password {
        None => None,
        Some(Password::Sha256(hash)) => {
            words.push(format!("#{}", hash.to_hex()));
            None
        }
        Some(Password::Argon2(hash)) => {
            account.set_other_password();
            Some(hash)
        }
    };
    // The short forms are always valid.
    for words in [&words, &rules] {
        if let Err(text) = account.apply(words.iter().map(String::as_bytes), NewChannels::None) {
            reader.fault(&path("rules"), fault_text(&text));
        }
    }
    let argon2 = argon2.filter(|_| account.has_other_password());
    let has_password = !account.passwords().is_empty() || account.takes_any_password();
    let keys_of_it = ["password", "password_sha256", "password_argon2", "rules"];
    let is_faulty = |reader: &Reader| keys_of_it.iter().any(|key| reader.is_faulty(&path(key)));
    if argon2.is_none() && !has_password && !is_faulty(reader) {
        let ways = "allowed: password, password_file, password_sha256 or password_argon2";
        reader.fault(&path("password"), format!("missing; {ways}"));
    }
    let rules = rules.iter().filter_map(|rule| masked(rule)).collect();
    (account, argon2, Short { allow, keys, rules })
}

/// What a password is compared with.
enum Password {
    Sha256(PasswordHash),
    Argon2(Argon2Hash),
}

/// What a user's password is compared with: at most one of four keys gives it.
fn password(
    reader: &mut Reader,
    path: &dyn Fn(&str) -> String,
    (given, file): (Option<Value>, Option<Value>),
    (sha, slow): (Option<Value>, Option<Value>),
) -> Option<Password> {
    let secret = reader.secret(&path("password"), given, file);
    let secret = secret.map(|secret| PasswordHash::of(secret.reveal().as_bytes()));
    let sha256 = sha256(reader, &path("password_sha256"), sha);
    let argon2 = argon2(reader, &path("password_argon2"), slow);
    for (key, is_second) in [
        ("password_sha256", secret.is_some() && sha256.is_some()),
        (
            "password_argon2",
            secret.or(sha256).is_some() && argon2.is_some(),
        ),
    ] {
        if is_second {
            let problem = "given together with another password; allowed: one of them";
            reader.fault(&path(key), problem);
        }
    }
    let password = secret.or(sha256).map(Password::Sha256);
    password.or_else(|| argon2.map(Password::Argon2))
}

/// A password's hash. Something else may be a password itself, so it is not shown.
fn sha256(reader: &mut Reader, path: &str, value: Option<Value>) -> Option<PasswordHash> {
    let allowed = "64 hexadecimal digits, as ACL SETUSER takes after #";
    hash(reader, path, value, |digits| {
        PasswordHash::from_hex(digits).ok_or_else(|| allowed.to_owned())
    })
}

/// The same for a hash that is slow to compute.
fn argon2(reader: &mut Reader, path: &str, value: Option<Value>) -> Option<Argon2Hash> {
    hash(reader, path, value, Argon2Hash::parse)
}

fn hash<H>(
    reader: &mut Reader,
    path: &str,
    value: Option<Value>,
    parse: impl FnOnce(&str) -> Result<H, String>,
) -> Option<H> {
    let text = match value?.kind {
        ValueKind::String(text) => text,
        _ => String::from("none"),
    };
    if text.is_empty() {
        return None;
    }
    match parse(&text) {
        Ok(hash) => Some(hash),
        Err(allowed) => {
            reader.fault(path, format!("not allowed; allowed: {allowed}"));
            None
        }
    }
}

/// A list of texts.
fn list(
    reader: &mut Reader,
    path: &str,
    value: Option<Value>,
    default: &[&str],
    allowed: &str,
    is_allowed: &dyn Fn(&str) -> bool,
) -> Vec<String> {
    let default = default.iter().map(|&text| text.to_owned()).collect();
    let text = |value: Value| match value.kind {
        ValueKind::String(text) => Some(text).filter(|text| is_allowed(text)),
        _ => None,
    };
    let Some(value) = value else {
        return default;
    };
    let texts = match value.kind {
        ValueKind::Array(values) if values.len() <= MAX_LIST => {
            values.into_iter().map(text).collect()
        }
        _ => None,
    };
    texts.unwrap_or_else(|| {
        let problem = format!("not allowed; allowed: a list of at most {MAX_LIST}, of {allowed}");
        reader.fault(path, problem);
        default
    })
}

/// Most users; bounds nothing but the file.
const MAX_USERS: usize = 1000;

/// Longest name of a user, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Most patterns of a user: each of its keys is compared with them, one after the other.
const MAX_LIST: usize = 100;
