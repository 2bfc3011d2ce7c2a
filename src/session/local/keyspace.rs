//! What `INFO` tells of the nodes: one number out of a field of each, and, as its last section, keys
//! of all nodes together, by database.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::resp::{Protocol, encode, reply};

/// An `INFO` reply that lacks what is the nodes' until they have answered.
#[derive(Debug)]
pub struct InfoText {
    pub(super) text: String,
    /// Where in the text the fields of the nodes belong, in rising order.
    pub(super) joined: Vec<(usize, Joined)>,
    /// Whether the text ends with the header of the section `Keyspace`.
    pub(super) has_keyspace: bool,
    /// The protocol of the client when it asked: a later `HELLO` does not change an earlier reply.
    pub(super) protocol: Protocol,
}

/// A field that each node has, and how one value is made of theirs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined {
    pub(super) name: &'static str,
    pub(super) how: Join,
}

/// How the values of several nodes become one; of no numbers, 0.
#[derive(Clone, Copy, Debug)]
pub(super) enum Join {
    /// A count of all.
    Sum,
    /// A state that holds when it holds for one of them.
    Most,
    /// A moment by which all of them had done something.
    Least,
    /// How something ended: `ok`, or the first other word.
    Status,
}

impl Join {
    fn of<'t>(self, mut values: impl Iterator<Item = &'t str>) -> String {
        if matches!(self, Self::Status) {
            return values.find(|word| *word != "ok").unwrap_or("ok").to_owned();
        }
        // -1 is Redis's word for never.
        let numbers = values.filter_map(|value| value.parse::<i64>().ok());
        let joined = match self {
            Self::Sum => Some(numbers.fold(0, i64::saturating_add)),
            Self::Most => numbers.max(),
            Self::Least | Self::Status => numbers.min(),
        };
        joined.unwrap_or(0).to_string()
    }
}

impl InfoText {
    /// What each node is asked. Not the sections alone that are wanted: before 7.0 `INFO` takes
    /// only one.
    pub fn wire(&self) -> Vec<u8> {
        let mut wire = Vec::new();
        let args: &[&[u8]] = if self.joined.is_empty() {
            &[b"INFO", b"keyspace"]
        } else {
            &[b"INFO"]
        };
        encode::request(&mut wire, args);
        wire
    }
}

/// What one node answered.
#[derive(Clone, Debug)]
pub struct NodeKeyspace<'f> {
    /// Its reply to `INFO`, raw or its text only.
    pub told: &'f [u8],
    /// The number there of what is database 0 here.
    pub first: u32,
    /// How many databases there are here.
    pub databases: u32,
    /// By database, the reply to `PTTL` of the key that Tally keeps there.
    pub own: Vec<(u32, &'f [u8])>,
}

/// Writes an `INFO` reply to `out`, with what the nodes told. A node that did not answer is left
/// out.
pub fn finish_info(info: InfoText, nodes: &[NodeKeyspace<'_>], out: &mut Vec<u8>) {
    let mut text = info.text;
    for (at, Joined { name, how }) in info.joined.into_iter().rev() {
        let value = how.of(nodes.iter().filter_map(|node| field(node.told, name)));
        text.insert_str(at, &format!("{name}:{value}\r\n"));
    }
    if info.has_keyspace {
        add_keyspace(&mut text, nodes);
    }
    encode::verbatim(out, info.protocol, &text);
}

/// What stands behind a field's name in a reply to `INFO`.
fn field<'t>(told: &'t [u8], name: &str) -> Option<&'t str> {
    lines(told).find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

fn lines(told: &[u8]) -> impl Iterator<Item = &str> {
    let lines = told.split(|byte| matches!(byte, b'\r' | b'\n'));
    lines.filter_map(|line| std::str::from_utf8(line).ok())
}

fn add_keyspace(text: &mut String, nodes: &[NodeKeyspace<'_>]) {
    let mut sums: BTreeMap<u32, Keyspace> = BTreeMap::new();
    for node in nodes {
        for (there, keyspace) in Keyspace::parse(node.told) {
            let here = there.checked_sub(node.first);
            let Some(here) = here.filter(|here| *here < node.databases) else {
                continue;
            };
            let own = node.own.iter().find(|(database, _)| *database == here);
            let ttl = own.and_then(|(_, frame)| reply::integer(frame));
            let ttl = ttl.and_then(|ttl| u64::try_from(ttl).ok());
            sums.entry(here).or_default().add(keyspace.without(ttl));
        }
    }
    for (database, sum) in sums.iter().filter(|(_, sum)| sum.keys > 0) {
        let line = writeln!(
            text,
            "db{database}:keys={},expires={},avg_ttl={}\r",
            sum.keys,
            sum.expires,
            sum.average_ttl_ms()
        );
        debug_assert!(line.is_ok(), "writing to a String does not fail");
    }
}

/// A database of one node, or of several together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Keyspace {
    keys: u64,
    expires: u64,
    /// Average times number of keys that expire, so that it can be added up.
    ttl_sum_ms: u128,
}

impl Keyspace {
    /// Reads lines like `db0:keys=3,expires=1,avg_ttl=5000`; everything else counts nothing.
    fn parse(reply: &[u8]) -> impl Iterator<Item = (u32, Self)> {
        lines(reply).filter_map(|line| {
            let (database, fields) = line.strip_prefix("db")?.split_once(':')?;
            let field = |name: &str| -> u64 {
                let mut fields = fields.split(',');
                let value = fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
                value.and_then(|value| value.parse().ok()).unwrap_or(0)
            };
            let expires = field("expires");
            let keyspace = Self {
                keys: field("keys"),
                expires,
                ttl_sum_ms: u128::from(field("avg_ttl")) * u128::from(expires),
            };
            Some((database.parse().ok()?, keyspace))
        })
    }

    /// Without a key that expires in so many milliseconds, if there is one.
    fn without(self, ttl_ms: Option<u64>) -> Self {
        let Some(ttl_ms) = ttl_ms else {
            return self;
        };
        Self {
            keys: self.keys.saturating_sub(1),
            expires: self.expires.saturating_sub(1),
            ttl_sum_ms: match self.expires {
                0 | 1 => 0,
                _ => self.ttl_sum_ms.saturating_sub(u128::from(ttl_ms)),
            },
        }
    }

    fn add(&mut self, other: Self) {
        self.keys = self.keys.saturating_add(other.keys);
        self.expires = self.expires.saturating_add(other.expires);
        self.ttl_sum_ms = self.ttl_sum_ms.saturating_add(other.ttl_sum_ms);
    }

    fn average_ttl_ms(self) -> u64 {
        let average = self.ttl_sum_ms.checked_div(u128::from(self.expires));
        u64::try_from(average.unwrap_or(0)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node tells, the number of its first database, and what is Tally's own there.
    type Told<'a> = (&'a str, u32, &'a [(u32, &'a [u8])]);

    #[track_caller]
    fn check(nodes: &[Told<'_>], lines: &str) {
        let info = InfoText {
            text: "# Keyspace\r\n".to_owned(),
            joined: Vec::new(),
            has_keyspace: true,
            protocol: Protocol::Resp2,
        };
        check_text(info, nodes, &format!("# Keyspace\r\n{lines}"));
    }

    #[track_caller]
    fn check_text(info: InfoText, nodes: &[Told<'_>], text: &str) {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|(told, first, own)| NodeKeyspace {
                told: told.as_bytes(),
                first: *first,
                databases: 16,
                own: own.to_vec(),
            })
            .collect();
        let mut out = Vec::new();
        finish_info(info, &nodes, &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            format!("${}\r\n{text}\r\n", text.len())
        );
    }

    fn joined(name: &'static str, how: Join) -> Joined {
        Joined { name, how }
    }

    #[test]
    fn fields_of_several_nodes_stand_joined_where_they_belong() {
        let text = "# Stats\r\nhits:1\r\nmisses:2\r\n".to_owned();
        let info = InfoText {
            joined: vec![
                (9, joined("expired_keys", Join::Sum)),
                (9, joined("evicted_keys", Join::Most)),
                (9, joined("saved", Join::Least)),
                (9, joined("took", Join::Most)),
                (9, joined("ended", Join::Status)),
                (9, joined("written", Join::Status)),
                (text.len(), joined("none", Join::Least)),
            ],
            text,
            has_keyspace: false,
            protocol: Protocol::Resp2,
        };
        let nodes: [Told<'_>; 4] = [
            (
                "# Stats\r\nexpired_keys:3\r\nevicted_keys:4\r\nsaved:8\r\ntook:-1\r\nended:ok\r\n",
                0,
                &[],
            ),
            (
                "evicted_keys:x\r\nexpired_keys_more:9\r\nexpired_keys:5\r\n",
                0,
                &[],
            ),
            (
                "evicted_keys:1\r\nsaved:7\r\ntook:-1\r\nended:err\r\n",
                0,
                &[],
            ),
            ("-ERR no\r\n", 0, &[]),
        ];
        check_text(
            info,
            &nodes,
            "# Stats\r\nexpired_keys:8\r\nevicted_keys:4\r\nsaved:7\r\ntook:-1\r\nended:err\r\n\
             written:ok\r\nhits:1\r\nmisses:2\r\nnone:0\r\n",
        );
    }

    #[test]
    fn keys_add_up_by_database_and_ttls_are_weighted() {
        check(
            &[
                (
                    "$56\r\n# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=1000\r\n\r\n",
                    0,
                    &[],
                ),
                (
                    "=9\r\ntxt:# Keyspace\r\ndb0:keys=10,expires=3,avg_ttl=5000\r\n\
                     db11:keys=7,expires=0,avg_ttl=0\r\n\r\n",
                    0,
                    &[],
                ),
            ],
            "db0:keys=13,expires=4,avg_ttl=4000\r\ndb11:keys=7,expires=0,avg_ttl=0\r\n",
        );
    }

    #[test]
    fn tally_s_own_keys_and_databases_of_others_are_left_out() {
        let told = "db2:keys=1,expires=1,avg_ttl=9000\r\ndb3:keys=5,expires=3,avg_ttl=4000\r\n\
                    db19:keys=8,expires=0,avg_ttl=0\r\n";
        check(
            &[(told, 2, &[(0, b":9000\r\n"), (1, b":10000\r\n")])],
            "db1:keys=4,expires=2,avg_ttl=1000\r\n",
        );
        check(
            &[(told, 3, &[(0, b":-2\r\n"), (1, b"-ERR no\r\n")])],
            "db0:keys=5,expires=3,avg_ttl=4000\r\n",
        );
    }

    #[test]
    fn empty_and_broken_replies_count_nothing() {
        check(&[], "");
        let broken = [
            "# Keyspace\r\n",
            "-ERR no\r\n",
            "db0:keys=x",
            "dbx:keys=1",
            "db1",
        ];
        check(&broken.map(|told| (told, 0, [].as_slice())), "");
        let most = u64::MAX;
        let line = format!("db0:keys={most},expires={most},avg_ttl={most}");
        check(
            &[(&line, 0, &[]), (&line, 0, &[])],
            &format!("db0:keys={most},expires={most},avg_ttl={most}\r\n"),
        );
    }
}
