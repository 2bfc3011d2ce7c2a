//! The node of the search: the model node, what it tells of changes by others, and promises of a
//! node that may be broken.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash as _, Hasher as _};

use super::Hashed;
use super::monitor::{LEFT, Value, Values};
use super::node::{self, Node};
use super::world::KEYS;
use crate::resp::{Limits, RequestScanner, encode, reply};

pub(super) type Argv = Vec<Vec<u8>>;

/// A promise of the node, of its scripts, or of the connection, that the search may break.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Promise {
    /// `MULTI` to `EXEC` is one step.
    Transactions,
    /// The promotion's last command on the key is a read.
    PromotionReadsLast,
    /// So it is with a flush.
    FlushReadsLast,
    /// An answer to a batch that was applied before says how things are now, and reads the keys.
    DoneReadsNow,
    /// A batch is applied once: the node keeps its number.
    Numbers,
    /// Bytes of a lost connection are not executed after the next one is in use.
    Fence,
    /// A transaction does nothing if what it watches was changed.
    Watch,
}

/// What is executed in one step: a request, or a transaction.
#[derive(Clone, Debug, Hash)]
pub(super) struct Unit {
    argvs: Vec<Argv>,
    transaction: bool,
    replies: Vec<Vec<u8>>,
}

#[derive(Clone)]
pub(super) struct Server {
    node: Node,
    /// Which keys' next change by others is told.
    tracked: [bool; 2],
    /// Whether the node tells of changes at all.
    pub(super) tells: bool,
    marker: Vec<u8>,
    broken: Option<Promise>,
    /// What was answered to each batch that was applied.
    answers: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a transaction watches, as it was.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Watch(Vec<Option<node::Held>>);

impl Unit {
    /// Cuts what a lane appended into units.
    pub(super) fn read(mut bytes: &[u8], units: &mut VecDeque<Self>) {
        let mut open = None;
        while !bytes.is_empty() {
            let mut scanner = RequestScanner::new();
            let length = scanner.scan(bytes, &Limits::default()).unwrap().unwrap();
            let argv: Argv = scanner.request(bytes).args().map(<[u8]>::to_vec).collect();
            bytes = &bytes[length..];
            let unit = |argvs, transaction| Self {
                argvs,
                transaction,
                replies: Vec::new(),
            };
            match (argv[0].as_slice(), &mut open) {
                (b"MULTI", _) => open = Some(unit(Vec::new(), true)),
                (b"EXEC", _) => units.extend(open.take()),
                (_, Some(unit)) => unit.argvs.push(argv),
                (_, None) => units.push_back(unit(vec![argv], false)),
            }
        }
    }

    pub(super) fn is_batch(&self) -> bool {
        let [name, script, ..] = self.argvs[0].as_slice() else {
            return false;
        };
        name.starts_with(b"EVAL") && (script == node::SHA || script == node::BODY)
    }

    pub(super) fn into_argvs(self) -> Vec<Argv> {
        self.argvs
    }

    pub(super) fn shown(&self) -> String {
        let word = |word: &Vec<u8>| word.escape_ascii().to_string();
        let line = |argv: &Argv| argv.iter().map(word).collect::<Vec<_>>().join(" ");
        self.argvs.iter().map(line).collect::<Vec<_>>().join("; ")
    }

    fn frames(&self) -> Vec<Vec<u8>> {
        if !self.transaction {
            return self.replies.clone();
        }
        let mut frames = vec![b"+OK\r\n".to_vec()];
        frames.extend(self.replies.iter().map(|_| b"+QUEUED\r\n".to_vec()));
        let mut last = Vec::new();
        encode::array(&mut last, self.replies.len());
        frames.push([last, self.replies.concat()].concat());
        frames
    }
}

impl Server {
    pub(super) fn new(values: Values, marker: &[u8], tells: bool, broken: Option<Promise>) -> Self {
        let mut node = Node::default();
        node.script = true;
        for (key, value) in KEYS.iter().zip(values) {
            if let Value::Integer(value) | Value::Timed(value) = value {
                node.command(&argv(&["SET", key, &value.to_string()]));
            }
            if let Value::Timed(_) = value {
                node.command(&argv(&["PEXPIRE", key, &LEFT.to_string()]));
            }
        }
        Self {
            node,
            tracked: [false; 2],
            tells,
            marker: marker.to_vec(),
            broken,
            answers: BTreeMap::new(),
        }
    }

    pub(super) fn values(&mut self) -> Values {
        KEYS.map(|key| match self.node.value(key.as_bytes()) {
            None => Value::Nothing,
            Some(node::Value::Text(text)) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                let value = text.parse().unwrap();
                match self.left(key) {
                    -1 => Value::Integer(value),
                    _ => Value::Timed(value),
                }
            }
            Some(node::Value::List(_)) => Value::List,
        })
    }

    /// What a script does.
    pub(super) fn command(&mut self, words: &[&str]) -> Vec<u8> {
        self.node.command(&argv(words))
    }

    /// What a PTTL of the key gives.
    pub(super) fn left(&mut self, key: &str) -> i64 {
        reply::integer(&self.node.command(&argv(&["PTTL", key]))).unwrap()
    }

    /// What a GET of the key gives.
    pub(super) fn get(&mut self, key: &str) -> Vec<u8> {
        self.node.command(&argv(&["GET", key]))
    }

    pub(super) fn hash(&mut self, hasher: &mut Hashed) {
        self.values().hash(hasher);
        self.tracked.hash(hasher);
        self.node.script.hash(hasher);
        let marker = self.marker.clone();
        if let Some(node::Value::Text(text)) = self.node.value(&marker) {
            text.hash(hasher);
        }
        if self.broken == Some(Promise::DoneReadsNow) {
            self.answers.hash(hasher);
        }
        hasher.write_u8(0);
    }

    /// The lane's connection is another one.
    pub(super) fn reconnected(&mut self) {
        self.tracked = [false; 2];
        self.node.script = true;
    }

    /// Executes the first unit, or the first part of it that is atomic; `replies` takes the frames
    /// of a unit that is done, and `pushes` what is told after them.
    pub(super) fn execute(&mut self, units: &mut VecDeque<Unit>, out: &mut VecDeque<Vec<Vec<u8>>>) {
        let Some(unit) = units.front_mut() else {
            return;
        };
        while let Some(argv) = unit.argvs.get(unit.replies.len()) {
            let reply = self.own(argv);
            unit.replies.push(reply);
            if self.broken == Some(Promise::Transactions) {
                break;
            }
        }
        if unit.replies.len() == unit.argvs.len() {
            out.push_back(unit.frames());
            if unit.argvs.iter().any(|argv| argv[0] == b"FLUSHALL") && self.tells {
                out.push_back(vec![b">2\r\n$10\r\ninvalidate\r\n_\r\n".to_vec()]);
            }
            units.pop_front();
        }
    }

    /// Refuses the batch that is next, with one of the errors that change nothing.
    pub(super) fn refuse(&mut self, forgotten: bool, out: &mut VecDeque<Vec<Vec<u8>>>) {
        let error: &[u8] = if forgotten {
            self.node.script = false;
            b"-NOSCRIPT No matching script.\r\n"
        } else {
            OOM
        };
        out.push_back(vec![error.to_vec()]);
    }

    /// Executes on the connection beside what only reads; from now on what is there is watched.
    pub(super) fn look(&mut self, wire: &[u8]) -> (Vec<Vec<u8>>, Watch) {
        (self.node.execute_aside(wire), self.watch())
    }

    /// Executes a transaction there, unless something was changed since; returns its replies, and
    /// what the lane's connection is told.
    pub(super) fn apply(&mut self, wire: &[u8], watch: &Watch) -> Told {
        if self.watch() != *watch && self.broken != Some(Promise::Watch) {
            return (vec![b"_\r\n".to_vec()], None);
        }
        let before = self.values();
        let replies = self.node.execute_aside(wire);
        (replies, self.told_of(before))
    }

    fn watch(&mut self) -> Watch {
        let mut keys = vec![self.marker.clone()];
        keys.extend(KEYS.map(|key| key.as_bytes().to_vec()));
        Watch(self.node.watched(&keys))
    }

    /// Another connection's command; returns what the lane's is told.
    pub(super) fn foreign(&mut self, argv: &Argv) -> Option<Vec<Vec<u8>>> {
        let before = self.values();
        if self.calls(argv).is_none() {
            if argv[0].starts_with(b"EVAL") {
                self.batch(argv);
            } else {
                self.node.command(argv);
            }
        }
        self.told_of(before)
    }

    /// What the lane's connection is told of what is not as before.
    fn told_of(&mut self, before: Values) -> Option<Vec<Vec<u8>>> {
        let after = self.values();
        let mut keys = Vec::new();
        for (at, key) in KEYS.iter().enumerate() {
            if before[at] != after[at] && std::mem::take(&mut self.tracked[at]) {
                let mut push = b">2\r\n$10\r\ninvalidate\r\n*1\r\n".to_vec();
                encode::bulk(&mut push, key.as_bytes());
                keys.push(push);
            }
        }
        (!keys.is_empty()).then_some(keys)
    }

    /// A command of the lane's connection: what it reads is tracked, what it writes is not.
    fn own(&mut self, argv: &Argv) -> Vec<u8> {
        let name = argv[0].as_slice();
        let before = self.values();
        let calls = self.calls(argv);
        let has_calls = calls.as_ref().map(|(_, reads)| *reads);
        let reply = if let Some((reply, _)) = calls {
            reply
        } else if name == b"CLIENT" {
            b"+OK\r\n".to_vec()
        } else if name.starts_with(b"EVAL") {
            self.batch(argv)
        } else {
            self.node.command(argv)
        };
        let after = self.values();
        let reads = match name {
            _ if has_calls.is_some() => has_calls == Some(true),
            b"GET" | b"MGET" => true,
            b"PTTL" => self.broken != Some(Promise::PromotionReadsLast),
            b"EVAL" | b"EVALSHA" => {
                let done = reply.starts_with(b"*") && find(&reply, b"$4\r\ndone\r\n");
                self.broken != Some(Promise::FlushReadsLast)
                    && !reply.starts_with(b"-")
                    && !(done && self.broken == Some(Promise::DoneReadsNow))
            }
            _ => false,
        };
        let changes = matches!(name, b"SET" | b"INCRBY" | b"PEXPIRE") && !reply.starts_with(b"-");
        for (at, key) in KEYS.iter().enumerate() {
            let named = argv[1..].iter().any(|word| word == key.as_bytes());
            // What is set to what it was counts as changed.
            if before[at] != after[at] || named && changes {
                self.tracked[at] = false;
            }
            if named && reads && self.tells {
                self.tracked[at] = true;
            }
        }
        reply
    }

    fn batch(&mut self, argv: &Argv) -> Vec<u8> {
        let keys: usize = String::from_utf8_lossy(&argv[2]).parse().unwrap();
        let number = argv[3 + keys + 1].clone();
        if self.broken == Some(Promise::Numbers) {
            let before: u64 = String::from_utf8_lossy(&number).parse().unwrap();
            let marker = format!("1 {}", before - 1).into_bytes();
            let set = [b"SET".to_vec(), self.marker.clone(), marker];
            self.node.command(&set);
        }
        let reply = self.node.command(argv);
        if find(&reply, b"$7\r\napplied\r\n") {
            self.answers.insert(number, reply.clone());
        } else if find(&reply, b"$4\r\ndone\r\n") && self.broken == Some(Promise::DoneReadsNow) {
            return self.answers.get(&number).cloned().unwrap_or(reply);
        }
        reply
    }
}

/// Replies, and what is told meanwhile.
type Told = (Vec<Vec<u8>>, Option<Vec<Vec<u8>>>);

/// An error that changes nothing.
pub(super) const OOM: &[u8] = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n";

pub(super) fn argv(words: &[&str]) -> Argv {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn find(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
