//! A model of a node: Redis's strings, lists, deadlines and transactions, as far as the core's
//! tests use them. It executes the bytes that a lane appended and answers with RESP3 frames.

use std::collections::HashMap;

use tally::flush::{Applier, RESERVED_PREFIX};
use tally::resp::{Limits, Protocol, RequestScanner, encode, parse_i64};

/// What a key holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Value {
    Text(Vec<u8>),
    /// Only its length matters.
    List(usize),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Held {
    value: Value,
    /// Milliseconds on the node's clock.
    pub(super) deadline: Option<u64>,
}

/// One Redis server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    keys: HashMap<Vec<u8>, Held>,
    /// Its clock, in milliseconds.
    pub(crate) now: u64,
    /// What is queued since MULTI, and whether a command was refused meanwhile.
    transaction: Option<(Vec<Vec<Vec<u8>>>, bool)>,
    /// Whether it has the flush script, as [`SHA`].
    pub(crate) script: bool,
    /// An error for so many of the next commands that it concerns.
    pub(crate) fault: Option<(Fault, usize)>,
}

/// A state of the whole server in which commands are refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// Commands that take memory.
    Oom,
    /// Commands that write.
    ReadOnly,
    /// Everything.
    Loading,
}

pub(super) type Frame = Vec<u8>;

impl Node {
    /// Executes the first request in `bytes`; returns its length and its reply.
    pub(crate) fn execute(&mut self, bytes: &[u8]) -> (usize, Frame) {
        let mut scanner = RequestScanner::new();
        let length = scanner.scan(bytes, &Limits::default()).unwrap();
        let length = length.expect("a whole request");
        let request = scanner.request(bytes);
        let argv: Vec<Vec<u8>> = request.args().map(<[u8]>::to_vec).collect();
        (length, self.command(&argv))
    }

    /// Executes one command.
    pub(crate) fn command(&mut self, argv: &[Vec<u8>]) -> Frame {
        let name = argv[0].to_ascii_uppercase();
        if name == b"EXEC" {
            return self.exec();
        }
        if name == b"MULTI" {
            self.transaction = Some((Vec::new(), false));
            return b"+OK\r\n".to_vec();
        }
        let refusal = self.refusal(&name);
        if let Some((queued, broken)) = &mut self.transaction {
            if let Some(error) = refusal {
                *broken = true;
                return error;
            }
            queued.push(argv.to_vec());
            return b"+QUEUED\r\n".to_vec();
        }
        refusal.unwrap_or_else(|| self.run(&name, argv))
    }

    /// The connection is gone.
    pub(crate) fn hang_up(&mut self) {
        self.transaction = None;
    }

    /// What a key holds now.
    pub(crate) fn value(&mut self, key: &[u8]) -> Option<Value> {
        self.held(key).map(|held| held.value.clone())
    }

    /// Executes requests of another connection; returns their replies.
    pub(crate) fn execute_aside(&mut self, mut bytes: &[u8]) -> Vec<Frame> {
        let mut other = self.clone();
        other.hang_up();
        let mut replies = Vec::new();
        while !bytes.is_empty() {
            let (length, reply) = other.execute(bytes);
            bytes = &bytes[length..];
            replies.push(reply);
        }
        self.fault = other.fault;
        self.adopt(other);
        replies
    }

    /// What these keys hold, for who watches them.
    pub(crate) fn watched(&mut self, keys: &[Vec<u8>]) -> Vec<Option<Held>> {
        keys.iter().map(|key| self.held(key).cloned()).collect()
    }

    /// Takes over another's keys, but not its connections.
    pub(crate) fn adopt(&mut self, other: Self) {
        self.keys = other.keys;
    }

    /// Takes a key away, as an eviction does.
    pub(crate) fn evict(&mut self, key: &[u8]) {
        self.keys.remove(key);
    }

    /// The same for nodes that hold the same. Deadlines are looked at only as such, and what Tally
    /// keeps for itself not at all.
    pub(crate) fn fingerprint(&self) -> String {
        let held = |(key, held): (&Vec<u8>, &Held)| {
            let (key, value) = (key.escape_ascii(), &held.value);
            format!("{key} {value:?} {}", held.deadline.is_some())
        };
        let mine = |(key, _): &(&Vec<u8>, &Held)| !key.starts_with(RESERVED_PREFIX);
        let mut keys: Vec<_> = self.keys.iter().filter(mine).map(held).collect();
        keys.sort();
        keys.join("\n")
    }

    fn refusal(&mut self, name: &[u8]) -> Option<Frame> {
        let (fault, left) = self.fault?;
        let grows = matches!(
            name,
            b"INCRBY" | b"SET" | b"MSET" | b"MSETNX" | b"APPEND" | b"LPUSH" | b"EVAL" | b"EVALSHA"
        );
        let reads = matches!(
            name,
            b"GET"
                | b"MGET"
                | b"PTTL"
                | b"TIME"
                | b"EXISTS"
                | b"TYPE"
                | b"STRLEN"
                | b"PING"
                | b"DBSIZE"
                | b"DEBUG"
                | b"WATCH"
                | b"UNWATCH"
        );
        let error: &[u8] = match fault {
            Fault::Oom if grows => b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
            Fault::ReadOnly if !reads => {
                b"-READONLY You can't write against a read only replica.\r\n"
            }
            Fault::Loading => b"-LOADING Redis is loading the dataset in memory\r\n",
            _ => return None,
        };
        self.fault = (left > 1).then_some((fault, left - 1));
        Some(error.to_vec())
    }

    fn exec(&mut self) -> Frame {
        let Some((queued, broken)) = self.transaction.take() else {
            return b"-ERR EXEC without MULTI\r\n".to_vec();
        };
        if broken {
            return b"-EXECABORT Transaction discarded because of previous errors.\r\n".to_vec();
        }
        let mut out = Vec::new();
        encode::array(&mut out, queued.len());
        for argv in queued {
            out.extend(self.run(&argv[0].to_ascii_uppercase(), &argv));
        }
        out
    }

    pub(super) fn held(&mut self, key: &[u8]) -> Option<&mut Held> {
        let now = self.now;
        let due = |held: &Held| held.deadline.is_some_and(|deadline| deadline <= now);
        if self.keys.get(key).is_some_and(due) {
            self.keys.remove(key);
        }
        self.keys.get_mut(key)
    }

    /// The string at `key`; an error when something else is there.
    pub(super) fn text(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Frame> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::List(_)) => Err(WRONG_TYPE.to_vec()),
        }
    }

    /// Changes the string at `key` and keeps its deadline.
    fn put(&mut self, key: &[u8], text: Vec<u8>) {
        let deadline = self.held(key).and_then(|held| held.deadline);
        let value = Value::Text(text);
        self.keys.insert(key.to_vec(), Held { value, deadline });
    }

    fn run(&mut self, name: &[u8], argv: &[Vec<u8>]) -> Frame {
        match self.try_run(name, argv) {
            Ok(reply) | Err(reply) => reply,
        }
    }

    fn time(&self) -> Frame {
        let mut out = Vec::new();
        encode::array(&mut out, 2);
        encode::bulk(&mut out, (self.now / 1000).to_string().as_bytes());
        encode::bulk(&mut out, (self.now % 1000 * 1000).to_string().as_bytes());
        out
    }

    fn try_run(&mut self, name: &[u8], argv: &[Vec<u8>]) -> Result<Frame, Frame> {
        let key = argv.get(1).map_or(b"".as_slice(), Vec::as_slice);
        Ok(match name {
            b"PING" => b"+PONG\r\n".to_vec(),
            // Who watches keeps what was there.
            b"WATCH" | b"UNWATCH" => b"+OK\r\n".to_vec(),
            b"TIME" => self.time(),
            b"GET" => bulk(self.text(key)?.as_deref()),
            b"MGET" => {
                let texts = argv[1..].iter().map(|key| self.text(key).ok().flatten());
                let each: Vec<_> = texts.map(|text| bulk(text.as_deref())).collect();
                [format!("*{}\r\n", each.len()).into_bytes(), each.concat()].concat()
            }
            b"INCRBY" => self.increment(key, &argv[2])?,
            b"APPEND" => {
                let mut text = self.text(key)?.unwrap_or_default();
                text.extend_from_slice(&argv[2]);
                let length = text.len();
                self.put(key, text);
                count(length)
            }
            b"STRLEN" => count(self.text(key)?.map_or(0, |text| text.len())),
            b"GETDEL" => {
                let text = self.text(key)?;
                self.keys.remove(key);
                bulk(text.as_deref())
            }
            b"SET" => self.set(argv),
            b"MSET" | b"MSETNX" => {
                let keys: Vec<_> = argv[1..].chunks(2).collect();
                let taken = keys.iter().any(|pair| self.held(&pair[0]).is_some());
                if name == b"MSETNX" && taken {
                    return Ok(count(0));
                }
                for pair in keys {
                    self.keys.remove(&pair[0]);
                    self.put(&pair[0], pair[1].clone());
                }
                match name {
                    b"MSETNX" => count(1),
                    _ => b"+OK\r\n".to_vec(),
                }
            }
            b"RENAME" => {
                let Some(held) = self.held(key).cloned() else {
                    return Ok(b"-ERR no such key\r\n".to_vec());
                };
                self.keys.remove(key);
                self.keys.insert(argv[2].clone(), held);
                b"+OK\r\n".to_vec()
            }
            b"EVAL" | b"EVALSHA" => self.eval(name, argv),
            b"DEBUG" => bulk(Some(self.fingerprint().as_bytes())),
            b"FLUSHALL" => {
                self.keys.clear();
                b"+OK\r\n".to_vec()
            }
            b"LPUSH" => match self.value(key) {
                Some(Value::Text(_)) => WRONG_TYPE.to_vec(),
                held => {
                    let length = match held {
                        Some(Value::List(length)) => length + 1,
                        _ => 1,
                    };
                    let (key, value, deadline) = (key.to_vec(), Value::List(length), None);
                    self.keys.insert(key, Held { value, deadline });
                    count(length)
                }
            },
            _ => self.look(name, argv),
        })
    }

    /// Commands that never fail.
    fn look(&mut self, name: &[u8], argv: &[Vec<u8>]) -> Frame {
        let now = self.now;
        let held = argv.get(1).and_then(|key| self.held(key));
        let amount = argv.get(2).and_then(|text| parse_i64(text)).unwrap_or(0);
        match (name, held) {
            (b"DEL" | b"EXISTS", _) => {
                let mut known = 0;
                for key in &argv[1..] {
                    known += usize::from(self.held(key).is_some());
                    if name == b"DEL" {
                        self.keys.remove(key);
                    }
                }
                count(known)
            }
            (b"DBSIZE", _) => {
                let due = |held: &Held| held.deadline.is_some_and(|deadline| deadline <= now);
                self.keys.retain(|_, held| !due(held));
                // What Tally keeps for itself it takes off on the way.
                let keys = self.keys.keys();
                count(keys.filter(|key| !key.starts_with(RESERVED_PREFIX)).count())
            }
            (b"TYPE", held) => match held.map(|held| &held.value) {
                None => b"+none\r\n".to_vec(),
                Some(Value::Text(_)) => b"+string\r\n".to_vec(),
                Some(Value::List(_)) => b"+list\r\n".to_vec(),
            },
            (b"PTTL", None) => integer(-2),
            (b"PTTL", Some(held)) => integer(match held.deadline {
                Some(deadline) => i64::try_from(deadline - now).unwrap(),
                None => -1,
            }),
            (b"EXPIRE" | b"PEXPIRE" | b"PEXPIREAT" | b"PERSIST", None) => count(0),
            (b"PEXPIREAT", Some(held)) => {
                held.deadline = Some(u64::try_from(amount).unwrap());
                count(1)
            }
            (b"PERSIST", Some(held)) => count(usize::from(held.deadline.take().is_some())),
            (b"EXPIRE" | b"PEXPIRE", Some(held)) => {
                let unit = if name == b"EXPIRE" { 1000 } else { 1 };
                held.deadline = Some(now + u64::try_from(amount).unwrap() * unit);
                count(1)
            }
            _ => panic!("the model knows no {}", name.escape_ascii()),
        }
    }

    pub(super) fn increment(&mut self, key: &[u8], delta: &[u8]) -> Result<Frame, Frame> {
        let text = self.text(key)?.unwrap_or_else(|| b"0".to_vec());
        let not_an_integer = || b"-ERR value is not an integer or out of range\r\n".to_vec();
        let value = parse_i64(&text).ok_or_else(not_an_integer)?;
        let delta = parse_i64(delta).ok_or_else(not_an_integer)?;
        let sum = value
            .checked_add(delta)
            .ok_or_else(|| b"-ERR increment or decrement would overflow\r\n".to_vec())?;
        self.put(key, sum.to_string().into_bytes());
        Ok(integer(sum))
    }

    pub(super) fn set(&mut self, argv: &[Vec<u8>]) -> Frame {
        let key = &argv[1];
        let option = argv.get(3).map_or(b"".as_slice(), Vec::as_slice);
        if argv.last().is_some_and(|last| last == b"NX") && self.held(key).is_some() {
            return bulk(None);
        }
        let amount = argv.get(4).and_then(|text| parse_i64(text)).unwrap_or(0);
        let amount = u64::try_from(amount).unwrap();
        let deadline = match option {
            b"EX" => Some(self.now + amount * 1000),
            b"PX" => Some(self.now + amount),
            _ => None,
        };
        let value = Value::Text(argv[2].clone());
        self.keys.insert(key.clone(), Held { value, deadline });
        b"+OK\r\n".to_vec()
    }
}

/// The name of the flush script, and the script.
pub(crate) const SHA: &[u8] = b"sha";
pub(crate) const BODY: &[u8] = b"body";

/// The node applies batches by that script.
pub(crate) fn script() -> Applier {
    Applier::Script {
        sha: SHA.to_vec(),
        body: BODY.to_vec(),
    }
}

fn integer(value: i64) -> Frame {
    let mut out = Vec::new();
    encode::integer(&mut out, value);
    out
}

fn count(value: usize) -> Frame {
    integer(i64::try_from(value).unwrap())
}

fn bulk(text: Option<&[u8]>) -> Frame {
    let mut out = Vec::new();
    match text {
        Some(text) => encode::bulk(&mut out, text),
        None => encode::null(&mut out, Protocol::Resp3),
    }
    out
}

const WRONG_TYPE: &[u8] = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
