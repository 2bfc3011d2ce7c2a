//! The scripts that clients have brought: which of them are limit scripts, and their bodies, to
//! load them where a node has forgotten them.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Instant;

use dashmap::{DashMap, DashSet};
use memchr::memmem;

use super::replies::{Place, Ticket};
use crate::command::{self, Command, Flags};
use crate::limit::{self, Call, Catalogue, Kind, Script};
use crate::node::{Came, Entry};
use crate::resp::{Request, encode, reply};

/// Knows limit scripts by their bodies, and by the names of those that clients have brought.
#[derive(Debug)]
pub struct Scripts {
    catalogue: Catalogue,
    /// What each body that clients have brought means, if it is a limit script.
    bodies: DashMap<Arc<[u8]>, Option<Kind>>,
    /// The same by their names, limit scripts only.
    names: DashMap<Sha, Kind>,
    /// Bodies by their names, at most [`MAX_BODIES`] of them, and [`MAX_BODY_BYTES`] in all.
    texts: DashMap<Sha, Arc<[u8]>>,
    text_bytes: AtomicUsize,
    /// Which of them were loaded where, and on which of the lane's connections.
    loaded: DashMap<(At, Sha), u64>,
    /// Functions that declare to change nothing, as the nodes listed them last.
    reading: DashSet<Box<[u8]>>,
}

/// A script's name: its SHA-1 in lower case.
type Sha = [u8; 40];

/// One lane: the number of its database, and of its node.
pub(super) type At = (u32, usize);

/// A call of a script by its name. If the node turns out not to know it, the script is loaded
/// before the next call.
#[derive(Debug)]
pub struct Reminded {
    pub(super) place: Place,
    scripts: Arc<Scripts>,
    at: At,
    sha: Sha,
}

impl Reminded {
    /// Takes the reply.
    pub(super) fn deliver(mut self, frame: &[u8], came: Came) -> Option<Waker> {
        if frame.starts_with(b"-NOSCRIPT") {
            self.scripts.loaded.remove(&(self.at, self.sha));
        }
        self.place.came(came);
        self.place.fill_at(frame, came.now)
    }
}

impl Scripts {
    /// Knows the scripts in `catalogue`.
    pub fn new(catalogue: Catalogue) -> Self {
        Self {
            catalogue,
            bodies: DashMap::new(),
            names: DashMap::new(),
            texts: DashMap::new(),
            text_bytes: AtomicUsize::new(0),
            loaded: DashMap::new(),
            reading: DashSet::new(),
        }
    }

    /// The call that an `EVAL` or `EVALSHA` makes, if it is one of a limit script with arguments as
    /// they should be. As in Redis, an `EVALSHA` works only for a script that was brought before.
    /// Bodies are remembered.
    pub(super) fn call(&self, command: &Command, request: &Request<'_>) -> Option<Call> {
        let kind = match command.name {
            "eval" | "eval_ro" => {
                let found = self.bodies.get(request.arg(1)).map(|kind| *kind);
                // The first call is forwarded, so that a node knows the script as it would have.
                // One that is refused for its number of keys brings nothing, as in Redis.
                if found.is_none()
                    && command::key_positions(command, request, &mut Vec::new()).is_ok()
                {
                    self.brought(request.arg(1));
                }
                found.flatten().filter(|_| command.name == "eval")?
            }
            "evalsha" => *self.names.get(&sha(request.arg(1))?)?,
            _ => return None,
        };
        kind.call(request)
    }

    /// A client brought a script, with `EVAL` or `SCRIPT LOAD`. It is looked into once, and
    /// remembered while there is room for it.
    pub(super) fn brought(&self, body: &[u8]) {
        if self.bodies.contains_key(body) {
            return;
        }
        let before = self.text_bytes.fetch_add(body.len(), Ordering::Relaxed);
        let fits = before + body.len() <= MAX_BODY_BYTES && self.texts.len() < MAX_BODIES;
        // Hashed only if it fits: an app that sends another text each time soon fills the room.
        let name = fits.then(|| limit::sha1_hex(body));
        let Some(sha) = name.and_then(|name| sha(name.as_ref())) else {
            self.text_bytes.fetch_sub(body.len(), Ordering::Relaxed);
            return;
        };
        let text: Arc<[u8]> = body.into();
        if self.texts.insert(sha, Arc::clone(&text)).is_some() {
            self.text_bytes.fetch_sub(body.len(), Ordering::Relaxed);
        }
        let kind = self.catalogue.recognise_body(body).map(Script::kind);
        if let Some(kind) = kind {
            self.names.insert(sha, kind);
        }
        self.bodies.insert(text, kind);
    }

    /// The body of the script that `name` names, if the lane `at` was not given it on its present
    /// `connection`. The caller loads it there, before anything else that it sends.
    pub(super) fn missing(&self, at: At, connection: u64, name: &[u8]) -> Option<Arc<[u8]>> {
        let sha = sha(name)?;
        let body = Arc::clone(self.texts.get(&sha)?.value());
        let before = self.loaded.insert((at, sha), connection);
        (before != Some(connection)).then_some(body)
    }

    /// Loads a script whose body is known, if the lane `at`, which is locked, was not given it on
    /// its present connection.
    pub(super) fn load_missing(
        &self,
        at: At,
        name: &[u8],
        entry: &mut Entry<'_, Ticket>,
        now: Instant,
        woken: &mut Vec<Waker>,
    ) {
        if let Some(body) = self.missing(at, entry.connection(), name) {
            let mut load = Vec::new();
            encode::request(&mut load, &[b"SCRIPT".as_slice(), b"LOAD", &body]);
            entry.step(now, woken, |lane, step| {
                lane.keyless(step, &load, Ticket::Nobody);
            });
        }
    }

    /// Has the script loaded again if the node turns out not to know it; `None` for one whose body
    /// is not known here.
    pub(super) fn reminded(
        self: &Arc<Self>,
        at: At,
        name: &[u8],
        place: Place,
    ) -> Result<Box<Reminded>, Place> {
        match sha(name).filter(|sha| self.texts.contains_key(sha)) {
            Some(sha) => Ok(Box::new(Reminded {
                place,
                scripts: Arc::clone(self),
                at,
                sha,
            })),
            None => Err(place),
        }
    }

    /// Whether the request is a script that declares to change nothing (`#!lua flags=no-writes`).
    pub(super) fn reads_only(&self, request: &Request<'_>) -> bool {
        if request.arg(0).eq_ignore_ascii_case(b"fcall") {
            return self.reading.contains(request.arg(1));
        }
        self.body(request)
            .is_some_and(|body| declares_no_writes(&body))
    }

    /// The body of the script that a request calls, if it is known.
    fn body<'r>(&self, request: &Request<'r>) -> Option<Cow<'r, [u8]>> {
        let name = request.arg(0);
        if name.eq_ignore_ascii_case(b"eval") || name.eq_ignore_ascii_case(b"eval_ro") {
            return Some(request.arg(1).into());
        }
        let by_name = [&b"evalsha"[..], b"evalsha_ro"];
        if !by_name.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            return None;
        }
        let body = Arc::clone(self.texts.get(&sha(request.arg(1))?)?.value());
        Some(body.to_vec().into())
    }

    /// Whether the script of a request calls no command, so that its keys are no more than
    /// arguments.
    pub(super) fn calls_nothing(&self, request: &Request<'_>) -> bool {
        let body = self.body(request);
        body.is_some_and(|body| !hides_calls(&body) && memmem::find(&body, b"redis").is_none())
    }

    /// The commands that the script of a request calls, if its text tells them.
    pub(super) fn called(&self, request: &Request<'_>) -> Option<Vec<&'static Command>> {
        called(&self.body(request)?)
    }

    /// What the script of a request does with data, as far as its text tells.
    pub(super) fn access(&self, request: &Request<'_>) -> ScriptAccess {
        match self.body(request) {
            Some(body) => script_access(&body),
            None => ScriptAccess::ANY,
        }
    }

    /// Whether the script of a request looks for keys (`KEYS`, `SCAN`), and does no more to them
    /// than to read, delete or expire them.
    pub(super) fn sweeps(&self, request: &Request<'_>) -> bool {
        let Some(called) = self.called(request) else {
            return false;
        };
        let looks = |command: &&Command| matches!(command.name, "keys" | "scan");
        let is_harmless = |command: &&Command| {
            command.flags.contains(Flags::READONLY) || SWEEPING.contains(&command.name)
        };
        called.iter().any(looks) && called.iter().all(is_harmless)
    }

    /// Takes a node's reply to `FUNCTION LIST`.
    pub(super) fn know_functions(&self, frame: &[u8]) {
        let Some(libraries) = reply::elements(frame) else {
            return;
        };
        self.reading.clear();
        for library in libraries {
            for function in field(library, b"functions").into_iter().flatten() {
                let flags = field(function, b"flags").into_iter().flatten();
                let reads = flags
                    .filter_map(reply::text)
                    .any(|flag| flag == b"no-writes");
                let mut parts = reply::elements(function).into_iter().flatten();
                let name = parts.find(|part| reply::text(part) == Some(b"name"));
                let name = name.and_then(|_| parts.next()).and_then(reply::text);
                if let Some(name) = name.filter(|_| reads && self.reading.len() < MAX_BODIES) {
                    self.reading.insert(name.into());
                }
            }
        }
    }

    /// How many scripts are remembered.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The nodes have forgotten all scripts.
    pub(super) fn forget(&self) {
        self.names.clear();
        self.bodies.clear();
        self.texts.clear();
        self.text_bytes.store(0, Ordering::Relaxed);
        self.loaded.clear();
    }
}

/// A name as a key; `None` for what can not be one.
fn sha(name: &[u8]) -> Option<Sha> {
    let mut sha = Sha::try_from(name).ok()?;
    sha.make_ascii_lowercase();
    Some(sha)
}

/// Whether the first line of a script has this flag (Redis `eval.c`, `evalExtractShebangFlags`).
fn declares_no_writes(body: &[u8]) -> bool {
    let line = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let is_shebang = words.next().is_some_and(|first| first.starts_with(b"#!"));
    let flags = words.find_map(|word| word.strip_prefix(b"flags="));
    let mut flags = flags.unwrap_or_default().split(|byte| *byte == b',');
    is_shebang && flags.any(|flag| flag == b"no-writes")
}

/// The elements of a field of a map.
fn field<'f>(map: &'f [u8], name: &[u8]) -> Option<impl Iterator<Item = &'f [u8]>> {
    let mut parts = reply::elements(map)?;
    parts.find(|part| reply::text(part) == Some(name))?;
    reply::elements(parts.next()?)
}

/// What a script may do with data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ScriptAccess {
    pub(super) reads: bool,
    pub(super) writes: bool,
}

impl ScriptAccess {
    const ANY: Self = Self {
        reads: true,
        writes: true,
    };
}

/// Whether a script may use `redis` without naming it.
fn hides_calls(body: &[u8]) -> bool {
    let ways = [&b"_G"[..], b"fenv", b"load", b"server"];
    ways.iter().any(|word| memmem::find(body, word).is_some())
}

/// Reads it off the names of the commands that a script calls.
fn script_access(body: &[u8]) -> ScriptAccess {
    let Some(called) = called(body) else {
        return ScriptAccess::ANY;
    };
    let any = |flag| called.iter().any(|command| command.flags.contains(flag));
    ScriptAccess {
        reads: any(Flags::READONLY),
        writes: any(Flags::WRITE),
    }
}

/// The commands that a script calls. `None` if these do not stand plainly, as text in quotes, behind
/// `redis.call(` and `redis.pcall(`: such a script may do anything.
fn called(body: &[u8]) -> Option<Vec<&'static Command>> {
    if hides_calls(body) {
        return None;
    }
    let mut called = Vec::new();
    for at in memmem::find_iter(body, b"redis") {
        let rest = body.get(at + b"redis".len()..)?;
        // It does nothing any more.
        if rest.starts_with(b".replicate_commands(") {
            continue;
        }
        let call = rest.strip_prefix(b".call(");
        let rest = call.or_else(|| rest.strip_prefix(b".pcall("))?;
        let rest = rest.trim_ascii_start();
        let quote = rest.first().filter(|byte| matches!(byte, b'\'' | b'"'))?;
        let name = rest.get(1..)?.split(|byte| byte == quote).next()?;
        let name = name.to_ascii_lowercase();
        let mut commands = command::commands().iter();
        let command = commands.find(|command| command.name.as_bytes() == name)?;
        // The name of a command with subcommands alone tells nothing.
        if command.flags.contains(Flags::CONTAINER) {
            return None;
        }
        called.push(command);
    }
    Some(called)
}

/// Writes that a script may do to what it finds without being told of keys: done on a node that
/// has not the key they change nothing.
const SWEEPING: [&str; 7] = [
    "del",
    "expire",
    "expireat",
    "persist",
    "pexpire",
    "pexpireat",
    "unlink",
];

/// Most bodies remembered; what comes later is forwarded.
const MAX_BODIES: usize = 10_000;

/// Most bytes of bodies remembered; what comes later is forwarded, and a node may forget it.
const MAX_BODY_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_missing_once_on_each_connection_of_each_lane() {
        let scripts = Scripts::new(Catalogue::new([]).unwrap());
        let body = b"return 1";
        let name = limit::sha1_hex(body);
        let upper = name.to_ascii_uppercase();
        let missing = |at, connection| scripts.missing(at, connection, upper.as_ref()).is_some();
        assert!(!missing((0, 0), 1), "nobody has brought it");
        scripts.brought(body);
        assert!(missing((0, 0), 1) && !missing((0, 0), 1));
        assert!(missing((0, 1), 1) && missing((1, 0), 1));
        assert!(missing((0, 0), 2), "the node may be another one now");
        scripts.forget();
        assert!(!missing((0, 0), 3) && scripts.is_empty());
    }

    #[test]
    fn what_a_script_does_is_told_by_the_commands_that_it_names() {
        let check = |body: &str, reads, writes| {
            let expected = ScriptAccess { reads, writes };
            assert_eq!(script_access(body.as_bytes()), expected, "{body}");
        };
        check("return redis.call('GET', KEYS[1])", true, false);
        check("return redis.pcall( \"hgetall\", KEYS[1])", true, false);
        check("redis.call('set', 'k', 'bar')", false, true);
        check(
            "redis.call('get', KEYS[1]) redis.call('DEL', KEYS[1])",
            true,
            true,
        );
        check("return redis.call('ping')", false, false);
        check("return {KEYS[1], ARGV[1]}", false, false);
        for hidden in [
            "local call = redis.call return call('get', KEYS[1])",
            "redis.call(ARGV[1], KEYS[1])",
            "redis['call']('get', KEYS[1])",
            "redis.call('no-such-command')",
            "redis.call('object', 'encoding', KEYS[1])",
            "return _G['re' .. 'dis']",
            "return server.call('get', KEYS[1])",
            "return loadstring('return 1')()",
        ] {
            check(hidden, true, true);
        }
    }

    #[test]
    fn functions_that_only_read_are_known_as_the_node_lists_them() {
        let scripts = Scripts::new(Catalogue::new([]).unwrap());
        let list = b"*1\r\n%2\r\n$12\r\nlibrary_name\r\n$1\r\nl\r\n$9\r\nfunctions\r\n*2\r\n\
            %2\r\n$4\r\nname\r\n$1\r\nr\r\n$5\r\nflags\r\n~1\r\n+no-writes\r\n\
            %2\r\n$4\r\nname\r\n$1\r\nw\r\n$5\r\nflags\r\n~0\r\n";
        scripts.know_functions(list);
        assert!(scripts.reading.contains(&b"r"[..]) && scripts.reading.len() == 1);
        scripts.know_functions(b"*0\r\n");
        assert!(scripts.reading.is_empty());
    }

    #[test]
    fn a_script_may_declare_that_it_only_reads() {
        assert!(declares_no_writes(b"#!lua flags=no-writes\nreturn 1"));
        assert!(declares_no_writes(
            b"#!lua name=x flags=allow-oom,no-writes\n"
        ));
        assert!(!declares_no_writes(b"#!lua\nreturn 'flags=no-writes'"));
        assert!(!declares_no_writes(b"return 1 -- flags=no-writes"));
    }
}
