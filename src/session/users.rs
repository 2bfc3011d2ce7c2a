//! Who may be a client, by name and password.

use std::collections::BTreeMap;
use std::fmt;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::Gate;
use super::loan::Loan;
use crate::access::{Account, NewChannels, PasswordHash, has_spaces};
use crate::config::{self, Argon2Hash, Config};
use crate::telemetry::random_run_id;

/// All users, by name. The default one is always there; what it is at the start:
///
/// ```text
/// [[users]]   server.password   the default user
///    none          none         is everybody, without a password
///    any           given        needs that password
///    some          none         is off
/// ```
#[derive(Debug)]
pub struct Users {
    default: Arc<User>,
    /// The default one too.
    all: BTreeMap<Box<[u8]>, Arc<User>>,
    /// One of the passwords that take long to check, if there is any.
    slow: Option<Argon2Hash>,
    /// What `CONFIG SET acl-pubsub-default` says.
    new_channels: NewChannels,
}

/// A user, and what its connections share. To change one is to put another in its place.
#[derive(Clone)]
pub struct User {
    name: Box<[u8]>,
    account: Account,
    argon2: Option<Argon2Hash>,
    settings: Settings,
    /// Kept when the user changes.
    load: Arc<Load>,
    /// Kept as long as the password is the same.
    proven: Arc<Proven>,
    /// Its rules, once somebody asked for them.
    words: OnceLock<Vec<u8>>,
    /// The same for nodes, once it has called a script.
    loan: OnceLock<Loan>,
}

/// What only a configuration says of a user.
#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    /// It is of the configuration at all.
    is_of_file: bool,
    trusts_scripts: bool,
    max_connections: usize,
    max_commands_per_second: u32,
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
    /// The default user, which this may do.
    Default(Gate),
    /// A user with a name.
    As(Membership),
}

impl Login {
    /// Who that is, unless it may do everything.
    pub(super) fn bounded_user(&self, users: &Users) -> Option<Arc<User>> {
        match self {
            Self::Default(Gate::Open) => None,
            Self::Default(_) => Some(Arc::clone(users.default_user())),
            Self::As(membership) if membership.user().gate() == Gate::Open => None,
            Self::As(membership) => Some(Arc::clone(membership.user())),
        }
    }
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
        let default = Arc::new(default_user(config));
        let mut users = Self::of(default, BTreeMap::new(), NewChannels::None);
        for settings in &config.users {
            users.put(Arc::new(User::of_file(settings)));
        }
        users
    }

    /// The users of another configuration. Those that are there by `ACL SETUSER` alone stay, as does
    /// a default user that neither configuration says anything of; so do connections.
    pub fn renewed(config: &Config, before: &Self) -> Self {
        let mut users = Self::new(config);
        users.new_channels = before.new_channels;
        let says_nothing = !users.default.settings.is_of_file;
        if says_nothing && !before.default.settings.is_of_file {
            users.put(Arc::clone(&before.default));
        }
        let known: Vec<_> = users.all.values().map(Arc::clone).collect();
        for user in known {
            if let Some(before) = before.named(&user.name) {
                users.put(Arc::new((*user).clone().after(before)));
            }
        }
        for user in before.all.values() {
            if !user.settings.is_of_file && !users.all.contains_key(&user.name) {
                users.put(Arc::clone(user));
            }
        }
        users
    }

    fn of(
        default: Arc<User>,
        all: BTreeMap<Box<[u8]>, Arc<User>>,
        new_channels: NewChannels,
    ) -> Self {
        let mut users = Self {
            default: Arc::clone(&default),
            all,
            slow: None,
            new_channels,
        };
        users.put(default);
        users
    }

    fn put(&mut self, user: Arc<User>) {
        if *user.name == *DEFAULT_USER {
            self.default = Arc::clone(&user);
        }
        self.all.insert(user.name.clone(), user);
        self.slow = self.all.values().find_map(|user| user.argon2.clone());
    }

    /// The same with a user that these rules have changed, or made.
    ///
    /// # Errors
    ///
    /// The text for the client, without its code.
    pub fn with_rules<'a>(
        &self,
        name: &[u8],
        rules: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, Vec<u8>> {
        if has_spaces(name) {
            return Err(b"Usernames can't contain spaces or null characters".to_vec());
        }
        let before = self.named(name);
        if before.is_none() && (self.all.len() >= MAX_USERS || name.len() > MAX_NAME_BYTES) {
            let text =
                format!("at most {MAX_USERS} users, of names of at most {MAX_NAME_BYTES} bytes");
            return Err(text.into_bytes());
        }
        let new = self.new_channels;
        let mut user = before.map_or_else(
            || User {
                account: Account::new(new),
                ..User::new(name)
            },
            |user| User::clone(user),
        );
        user.account.apply(rules, new)?;
        user.words = OnceLock::new();
        user.loan = OnceLock::new();
        if !user.account.has_other_password() {
            user.argon2 = None;
        }
        let mut users = Self::of(Arc::clone(&self.default), self.all.clone(), new);
        users.put(Arc::new(user));
        Ok(users)
    }

    /// Which channels users may use that are made or reset from now on.
    pub fn new_channels(&self) -> NewChannels {
        self.new_channels
    }

    /// The same users, with another answer to that.
    #[must_use]
    pub fn with_new_channels(&self, new: NewChannels) -> Self {
        Self::of(Arc::clone(&self.default), self.all.clone(), new)
    }

    /// The same without the users of these names, and how many of them there were.
    pub fn without<'a>(&self, names: impl Iterator<Item = &'a [u8]>) -> (Self, usize) {
        let mut all = self.all.clone();
        let removed = names.filter(|name| *name != DEFAULT_USER && all.remove(*name).is_some());
        let count = removed.count();
        let default = Arc::clone(&self.default);
        (Self::of(default, all, self.new_channels), count)
    }

    /// What stands before a client that has just come.
    pub fn entry(&self) -> Gate {
        if self.is_open() {
            self.default.gate()
        } else {
            Gate::Outside
        }
    }

    /// Whether every client is let in without a password.
    pub fn is_open(&self) -> bool {
        self.default.account.is_open()
    }

    /// The default user.
    pub fn default_user(&self) -> &Arc<User> {
        &self.default
    }

    /// All of them, by name.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &Arc<User>> {
        self.all.values()
    }

    /// The user of this name.
    pub fn named(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.all.get(name)
    }

    /// What has to be run first, on a thread that serves nobody, before [`Users::log_in`] can
    /// answer for a named user: the check of a password that takes long and is not yet known to be
    /// right. Where some user has such a password, so it is for every wrong password and every
    /// unknown name, which then take the same time.
    pub(super) fn slow_check(&self, name: &[u8], password: &[u8]) -> Option<SlowCheck> {
        let slow = self.slow.as_ref().filter(|_| name != DEFAULT_USER)?;
        let user = self.named(name).filter(|user| user.account.is_on());
        if user.is_some_and(|user| user.takes(password)) {
            return None;
        }
        let own = user.and_then(|user| Some((user.argon2.as_ref()?, &user.proven)));
        Some(SlowCheck {
            hash: own.map_or(slow, |(hash, _)| hash).clone(),
            proven: own.map(|(_, proven)| Arc::clone(proven)),
            password: password.into(),
        })
    }

    /// Lets a client in.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub fn log_in(&self, name: &[u8], password: &[u8]) -> Result<Login, Refused> {
        let Some(user) = self.named(name) else {
            // Done for unknown names too: else the time would tell which names there are.
            black_box(PasswordHash::of(black_box(password)));
            return Err(Refused::Wrong);
        };
        if !user.takes(password) {
            return Err(Refused::Wrong);
        }
        if *user.name == *DEFAULT_USER {
            return Ok(Login::Default(user.gate()));
        }
        User::join(user).map(Login::As)
    }
}

/// The default user of a configuration.
fn default_user(config: &Config) -> User {
    let mut user = User::new(DEFAULT_USER);
    user.account = Account::everything();
    user.settings.is_of_file = true;
    let rule = match &config.server.password {
        Some(secret) => format!("#{}", PasswordHash::of(secret.reveal().as_bytes()).to_hex()),
        None if config.users.is_empty() => {
            user.settings.is_of_file = false;
            return user;
        }
        None => "off".to_owned(),
    };
    let rules = ["resetpass", &rule];
    let rules = rules.iter().map(|rule| rule.as_bytes());
    let applied = user.account.apply(rules, NewChannels::None);
    debug_assert!(applied.is_ok(), "{applied:?}");
    user
}

impl User {
    fn new(name: &[u8]) -> Self {
        Self {
            name: name.into(),
            account: Account::default(),
            argon2: None,
            settings: Settings::default(),
            load: Arc::default(),
            proven: Arc::default(),
            words: OnceLock::new(),
            loan: OnceLock::new(),
        }
    }

    fn of_file(settings: &config::User) -> Self {
        Self {
            account: settings.account.clone(),
            argon2: settings.argon2.clone(),
            settings: Settings {
                is_of_file: true,
                trusts_scripts: settings.trusts_scripts,
                max_connections: settings.max_connections,
                max_commands_per_second: settings.max_commands_per_second,
            },
            ..Self::new(settings.name.as_bytes())
        }
    }

    /// The same with the connections that `before` has.
    fn after(mut self, before: &Self) -> Self {
        self.load = Arc::clone(&before.load);
        if self.argon2 == before.argon2 {
            self.proven = Arc::clone(&before.proven);
        }
        self
    }

    /// Its name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Its name in a line of text.
    pub fn shown_name(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    /// What it may do.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Its rules, as `ACL LIST` shows them behind its name.
    pub fn words(&self) -> &[u8] {
        self.words.get_or_init(|| self.account.words())
    }

    /// What stands between its clients and their commands.
    pub fn gate(&self) -> Gate {
        if self.account.is_unrestricted() && self.settings.max_commands_per_second == 0 {
            Gate::Open
        } else {
            Gate::User
        }
    }

    /// Whether a node has to check what its scripts call.
    pub fn is_checked_in_scripts(&self) -> bool {
        !self.settings.trusts_scripts && !self.account.is_unrestricted()
    }

    /// What makes a connection to a node this user.
    pub(super) fn loan(&self) -> &Loan {
        self.loan.get_or_init(|| Loan::of(&self.account))
    }

    /// Whether a password is right, as far as can be told at once, and lets anybody in.
    fn takes(&self, password: &[u8]) -> bool {
        let is_right = self.account.has_password(PasswordHash::of(password))
            || (self.argon2.is_some() && self.proven.holds(password));
        self.account.is_on() && (is_right || self.account.takes_any_password())
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
            .field("name", &self.shown_name())
            .finish_non_exhaustive()
    }
}

/// The name of a client that gives none.
pub const DEFAULT_USER: &[u8] = b"default";

/// Most users, the default one among them: all are copied when one is changed.
pub(super) const MAX_USERS: usize = 1001;

/// Longest name of a user, in bytes.
const MAX_NAME_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn users(text: &str) -> Users {
        let text = format!("{text}\n[[nodes]]\nname = \"a\"\naddress = \"h:1\"");
        Users::new(&config::parse(&text, std::iter::empty()).unwrap())
    }

    fn outcome(users: &Users, name: &str, password: &str) -> String {
        match users.log_in(name.as_bytes(), password.as_bytes()) {
            Ok(Login::Default(gate)) => format!("default {gate:?}"),
            Ok(Login::As(membership)) => membership.user().shown_name(),
            Err(refused) => format!("{refused:?}"),
        }
    }

    #[test]
    fn the_default_user_is_there_unless_there_are_others_and_no_password() {
        let open = users("");
        assert!(open.is_open());
        assert_eq!(outcome(&open, "default", "anything"), "default Open");
        assert_eq!(outcome(&open, "app", "anything"), "Wrong");
        let closed = users("[server]\npassword = \"p\"");
        assert!(!closed.is_open());
        assert_eq!(outcome(&closed, "default", "p"), "default Open");
        assert_eq!(outcome(&closed, "default", "P"), "Wrong");
        let named = "[[users]]\nname = \"app\"\npassword = \"q\"";
        let without = users(named);
        assert!(!without.is_open());
        assert_eq!(outcome(&without, "default", ""), "Wrong");
        assert_eq!(outcome(&without, "app", "q"), "app");
        assert_eq!(outcome(&without, "app", "qq"), "Wrong");
        let both = users(&format!("[server]\npassword = \"p\"\n{named}"));
        assert_eq!(outcome(&both, "default", "p"), "default Open");
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
