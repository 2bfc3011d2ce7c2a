//! Who may be a client, by name and password.

use std::collections::HashMap;
use std::fmt;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::access::Access;
use parking_lot::Mutex;

use crate::config::{self, Argon2Hash, Config, PasswordHash, UserPassword};
use crate::telemetry::random_run_id;

/// All users: the default one, who may do everything, and those with a name.
///
/// ```text
/// [[users]]   server.password   the default user
///    none          none         is everybody, without a password
///    any           given        needs that password
///    some          none         does not exist
/// ```
#[derive(Debug)]
pub struct Users {
    default: Option<PasswordHash>,
    named: HashMap<String, Arc<User>>,
    /// One of the passwords that take long to check, if there is any.
    slow: Option<Argon2Hash>,
}

/// A user with a name, and what its connections share.
pub struct User {
    settings: config::User,
    /// Kept when the settings change.
    load: Arc<Load>,
    /// Kept as long as the password is the same.
    proven: Arc<Proven>,
}

/// A password that took long to check, and was right. It is kept as a hash with a key of this run's
/// own, so that it can be compared with nothing else.
struct Proven {
    key: String,
    hash: Mutex<Option<PasswordHash>>,
}

/// Something to be checked on a thread that serves nobody: see [`Users::slow_check`].
pub(super) struct SlowCheck {
    /// `None`: it is wrong, whatever comes out.
    proven: Option<Arc<Proven>>,
    hash: Argon2Hash,
    password: Box<[u8]>,
}

#[derive(Debug, Default)]
struct Load {
    connections: AtomicUsize,
    /// The second looked at last, counted from the start, in the upper half; the commands of that
    /// second in the lower half.
    pace: AtomicU64,
}

/// What a right password makes the client.
#[derive(Debug)]
pub enum Login {
    /// The default user.
    Default,
    /// A user with a name.
    As(Membership),
}

/// A connection of a user, counted until it is dropped.
#[derive(Debug)]
pub struct Membership(Arc<User>);

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// There is no such user, or the password is another.
    Wrong,
    /// The user has as many connections as it may.
    TooMany,
}

impl Users {
    /// The users of a configuration.
    pub fn new(config: &Config) -> Self {
        Self::after(config, &HashMap::new())
    }

    /// The users of another configuration, with the connections that there are.
    pub fn renewed(config: &Config, before: &Self) -> Self {
        Self::after(config, &before.named)
    }

    fn after(config: &Config, before: &HashMap<String, Arc<User>>) -> Self {
        let default = config.server.password.as_ref();
        let named = config.users.iter().map(|settings| {
            let before = before.get(&settings.name);
            let same = before.filter(|user| user.settings.password == settings.password);
            let user = User {
                settings: settings.clone(),
                load: before.map_or_else(Arc::default, |user| Arc::clone(&user.load)),
                proven: same.map_or_else(Arc::default, |user| Arc::clone(&user.proven)),
            };
            (settings.name.clone(), Arc::new(user))
        });
        let slow = config.users.iter().find_map(|user| match &user.password {
            UserPassword::Argon2(hash) => Some(hash.clone()),
            UserPassword::Sha256(_) => None,
        });
        Self {
            default: default.map(|secret| PasswordHash::of(secret.reveal().as_bytes())),
            named: named.collect(),
            slow,
        }
    }

    /// Whether every client is let in without a password.
    pub fn is_open(&self) -> bool {
        self.default.is_none() && self.named.is_empty()
    }

    /// Whether there is a default user.
    pub fn has_default(&self) -> bool {
        self.default.is_some() || self.named.is_empty()
    }

    /// What the default user's password is compared with. `None`: any password is taken, or there
    /// is no such user.
    pub fn default_password(&self) -> Option<PasswordHash> {
        self.default
    }

    /// The users with a name, in no order.
    pub fn all_named(&self) -> impl Iterator<Item = &User> {
        self.named.values().map(AsRef::as_ref)
    }

    /// The user of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<User>> {
        self.named.get(name)
    }

    /// What has to be run first, on a thread that serves nobody, before [`Users::log_in`] can
    /// answer for a named user: the check of a password that takes long and is not yet known to be
    /// right. Where some user has such a password, so it is for every wrong password and every
    /// unknown name, which then take the same time.
    pub(super) fn slow_check(&self, name: &[u8], password: &[u8]) -> Option<SlowCheck> {
        let slow = self.slow.as_ref().filter(|_| name != DEFAULT_USER)?;
        let user = self.with_name(name);
        if user.is_some_and(|user| user.takes(password)) {
            return None;
        }
        let own = user.and_then(|user| match &user.settings.password {
            UserPassword::Argon2(hash) => Some((hash, &user.proven)),
            UserPassword::Sha256(_) => None,
        });
        Some(SlowCheck {
            hash: own.map_or(slow, |(hash, _)| hash).clone(),
            proven: own.map(|(_, proven)| Arc::clone(proven)),
            password: password.into(),
        })
    }

    /// The user of this name, as a client wrote it.
    pub(super) fn with_name(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.named.get(std::str::from_utf8(name).ok()?)
    }

    /// Lets a client in. Without any password the default user takes any, as in Redis (`nopass`).
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub fn log_in(&self, name: &[u8], password: &[u8]) -> Result<Login, Refused> {
        if name == DEFAULT_USER {
            let is_right = self.default == Some(PasswordHash::of(password)) || self.is_open();
            return is_right.then_some(Login::Default).ok_or(Refused::Wrong);
        }
        let Some(user) = self.with_name(name) else {
            // Done for unknown names too: else the time would tell which names there are.
            black_box(PasswordHash::of(black_box(password)));
            return Err(Refused::Wrong);
        };
        let user = Some(user).filter(|user| user.takes(password));
        User::join(user.ok_or(Refused::Wrong)?).map(Login::As)
    }
}

impl User {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// What it may do.
    pub fn access(&self) -> &Access {
        &self.settings.access
    }

    /// What its password is compared with.
    pub fn password(&self) -> &UserPassword {
        &self.settings.password
    }

    /// Whether a password is right, as far as can be told at once.
    fn takes(&self, password: &[u8]) -> bool {
        match &self.settings.password {
            UserPassword::Sha256(hash) => *hash == PasswordHash::of(password),
            UserPassword::Argon2(_) => self.proven.holds(password),
        }
    }

    fn join(user: &Arc<Self>) -> Result<Membership, Refused> {
        let most = match user.settings.max_connections {
            0 => usize::MAX,
            most => most,
        };
        let below = |count: usize| (count < most).then_some(count + 1);
        user.load
            .connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below)
            .map(|_| Membership(Arc::clone(user)))
            .map_err(|_| Refused::TooMany)
    }

    /// Counts a command in the present second, counted from any fixed start. False: there were as
    /// many as there may be, and this one is not counted.
    pub fn count_command(&self, second: u32) -> bool {
        let most = self.settings.max_commands_per_second;
        if most == 0 {
            return true;
        }
        let (second, most) = (u64::from(second), u64::from(most));
        let next = |pace: u64| match (pace >> 32, pace & u64::from(u32::MAX)) {
            (then, count) if then == second => (count < most).then_some(pace + 1),
            _ => Some((second << 32) | 1),
        };
        self.load
            .pace
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }
}

impl Proven {
    fn hash_of(&self, password: &[u8]) -> PasswordHash {
        PasswordHash::of(&[self.key.as_bytes(), password].concat())
    }

    fn holds(&self, password: &[u8]) -> bool {
        let hash = self.hash_of(password);
        *self.hash.lock() == Some(hash)
    }
}

impl Default for Proven {
    fn default() -> Self {
        Self {
            key: random_run_id(),
            hash: Mutex::default(),
        }
    }
}

impl SlowCheck {
    /// Whether the password is right; if so, it is remembered. Takes milliseconds and megabytes.
    pub(super) fn run(&self) -> bool {
        let is_right = self.hash.verify(&self.password);
        let Some(proven) = self.proven.as_ref().filter(|_| is_right) else {
            return false;
        };
        *proven.hash.lock() = Some(proven.hash_of(&self.password));
        true
    }
}

impl Membership {
    /// The user whose connection it is.
    pub fn user(&self) -> &Arc<User> {
        &self.0
    }

    /// Whether it is counted among the connections of `user`, whatever its settings are.
    pub(super) fn is_of(&self, user: &User) -> bool {
        Arc::ptr_eq(&self.0.load, &user.load)
    }

    /// Goes on as the same user with other settings.
    pub(super) fn renew(&mut self, user: &Arc<User>) {
        self.0 = Arc::clone(user);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.0.load.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Refused {
    /// The error for the client, code first; the first in Redis's words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Wrong => "WRONGPASS invalid username-password pair or user is disabled.",
            Self::TooMany => "ERR max number of clients of this user reached",
        }
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.settings.name)
            .finish_non_exhaustive()
    }
}

/// The name of a client that gives none.
pub const DEFAULT_USER: &[u8] = b"default";

#[cfg(test)]
mod tests {
    use super::*;

    fn users(text: &str) -> Users {
        let text = format!("{text}\n[[nodes]]\nname = \"a\"\naddress = \"h:1\"");
        Users::new(&config::parse(&text, std::iter::empty()).unwrap())
    }

    fn outcome(users: &Users, name: &str, password: &str) -> String {
        match users.log_in(name.as_bytes(), password.as_bytes()) {
            Ok(Login::Default) => "default".to_owned(),
            Ok(Login::As(membership)) => membership.user().name().to_owned(),
            Err(refused) => format!("{refused:?}"),
        }
    }

    #[test]
    fn the_default_user_is_there_unless_there_are_others_and_no_password() {
        let open = users("");
        assert!(open.is_open());
        assert_eq!(outcome(&open, "default", "anything"), "default");
        assert_eq!(outcome(&open, "app", "anything"), "Wrong");
        let closed = users("[server]\npassword = \"p\"");
        assert!(!closed.is_open());
        assert_eq!(outcome(&closed, "default", "p"), "default");
        assert_eq!(outcome(&closed, "default", "P"), "Wrong");
        let named = "[[users]]\nname = \"app\"\npassword = \"q\"";
        let without = users(named);
        assert!(!without.is_open());
        assert_eq!(outcome(&without, "default", ""), "Wrong");
        assert_eq!(outcome(&without, "app", "q"), "app");
        assert_eq!(outcome(&without, "app", "qq"), "Wrong");
        let both = users(&format!("[server]\npassword = \"p\"\n{named}"));
        assert_eq!(outcome(&both, "default", "p"), "default");
        assert_eq!(outcome(&both, "app", "q"), "app");
        assert_eq!(outcome(&both, "app", "p"), "Wrong");
    }

    #[test]
    fn a_hash_is_as_good_as_the_password() {
        // printf q | sha256sum
        let hash = "8e35c2cd3bf6641bdb0e2050b76932cbb2e6034a0ddacc1d9bea82a6ba57f7cf";
        let users = users(&format!(
            "[[users]]\nname = \"app\"\npassword_sha256 = \"{hash}\""
        ));
        assert_eq!(outcome(&users, "app", "q"), "app");
        assert_eq!(outcome(&users, "app", hash), "Wrong");
    }

    #[test]
    fn connections_of_a_user_are_counted_while_they_last() {
        let users = users("[[users]]\nname = \"app\"\npassword = \"q\"\nmax_connections = 1");
        let first = users.log_in(b"app", b"q").unwrap();
        assert_eq!(outcome(&users, "app", "q"), "TooMany");
        assert_eq!(outcome(&users, "app", "wrong"), "Wrong");
        drop(first);
        assert_eq!(outcome(&users, "app", "q"), "app");
    }

    #[test]
    fn commands_are_counted_within_a_second() {
        let users =
            users("[[users]]\nname = \"app\"\npassword = \"q\"\nmax_commands_per_second = 2");
        let Ok(Login::As(membership)) = users.log_in(b"app", b"q") else {
            panic!("not let in");
        };
        let user = membership.user();
        let counted: Vec<_> = [0, 0, 0, 1, 1, 1, 9]
            .map(|at| user.count_command(at))
            .into();
        assert_eq!(counted, [true, true, false, true, true, false, true]);
    }
}
