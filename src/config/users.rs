//! `[[users]]`: who may give which password, and what they may do then.

use config::{Value, ValueKind};

use super::raw;
use super::reader::Reader;
use super::{Argon2Hash, PasswordHash, User, UserPassword};
use crate::access::{Access, Category};
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
    let categories = Category::ALL.map(|category| format!("{:?}", category.name()));
    let allow = list(
        reader,
        &path("allow"),
        raw.allow,
        &["read", "write"],
        &categories.join(", "),
        &|text| Category::ALL.iter().any(|known| known.name() == text),
    );
    let keys = list(
        reader,
        &path("keys"),
        raw.keys,
        &["*"],
        &format!("patterns as in KEYS, of 1 to {MAX_PATTERN_BYTES} bytes"),
        &|text| (1..=MAX_PATTERN_BYTES).contains(&text.len()),
    );
    let categories = Category::ALL
        .into_iter()
        .filter(|known| allow.iter().any(|name| name == known.name()))
        .collect();
    User {
        name,
        // A user without a password is a fault.
        password: password.unwrap_or(UserPassword::Sha256(PasswordHash::NOBODY)),
        access: Access::new(categories, &keys),
        allow,
        keys,
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

/// What a user's password is compared with: one of four keys gives it.
fn password(
    reader: &mut Reader,
    path: &dyn Fn(&str) -> String,
    (given, file): (Option<Value>, Option<Value>),
    (sha, slow): (Option<Value>, Option<Value>),
) -> Option<UserPassword> {
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
    let password = secret.or(sha256).map(UserPassword::Sha256);
    let password = password.or_else(|| argon2.map(UserPassword::Argon2));
    let keys = ["password", "password_sha256", "password_argon2"];
    if password.is_none() && !keys.iter().any(|key| reader.is_faulty(&path(key))) {
        let ways = "allowed: password, password_file, password_sha256 or password_argon2";
        reader.fault(&path("password"), format!("missing; {ways}"));
    }
    password
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
