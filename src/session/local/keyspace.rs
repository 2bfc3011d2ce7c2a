//! The last part of `INFO`: keys of all nodes together.

use std::fmt::Write;

use crate::resp::{Protocol, encode};

/// An `INFO` reply that lacks its last section, `Keyspace`, until the nodes have answered.
#[derive(Debug)]
pub struct InfoText {
    pub(super) text: String,
    /// That of the client when it asked: a later `HELLO` does not change an earlier reply.
    pub(super) protocol: Protocol,
}

/// Writes an `INFO` reply to `out`, with the keys that the nodes told. `nodes` gives one item per
/// node that answered: its reply to `INFO keyspace`, raw or its text only. A node that did not
/// answer is missing in the sums.
pub fn finish_info<N: AsRef<[u8]>>(
    info: InfoText,
    nodes: impl IntoIterator<Item = N>,
    out: &mut Vec<u8>,
) {
    let mut text = info.text;
    let mut sum = Keyspace::default();
    for node in nodes {
        sum.add(Keyspace::parse(node.as_ref()));
    }
    if sum.keys > 0 {
        let line = writeln!(
            text,
            "db0:keys={},expires={},avg_ttl={}\r",
            sum.keys,
            sum.expires,
            sum.average_ttl_ms()
        );
        debug_assert!(line.is_ok(), "writing to a String does not fail");
    }
    encode::verbatim(out, info.protocol, &text);
}

/// Database 0 of one node, or of several together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Keyspace {
    keys: u64,
    expires: u64,
    /// Average times number of keys that expire, so that it can be added up.
    ttl_sum_ms: u128,
}

impl Keyspace {
    /// Reads the line `db0:keys=3,expires=1,avg_ttl=5000`; everything else counts nothing.
    fn parse(reply: &[u8]) -> Self {
        let mut lines = reply.split(|byte| matches!(byte, b'\r' | b'\n'));
        let line = lines.find_map(|line| line.strip_prefix(b"db0:"));
        let field = |name: &str| -> u64 {
            let mut fields = line.unwrap_or_default().split(|byte| *byte == b',');
            let value = fields.find_map(|field| field.strip_prefix(name.as_bytes()));
            let text = value.and_then(|value| std::str::from_utf8(value).ok());
            text.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        let expires = field("expires=");
        Self {
            keys: field("keys="),
            expires,
            ttl_sum_ms: u128::from(field("avg_ttl=")) * u128::from(expires),
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

    #[track_caller]
    fn check(nodes: &[&str], line: &str) {
        let info = InfoText {
            text: "# Keyspace\r\n".to_owned(),
            protocol: Protocol::Resp2,
        };
        let mut out = Vec::new();
        finish_info(info, nodes, &mut out);
        let text = format!("# Keyspace\r\n{line}");
        assert_eq!(
            String::from_utf8_lossy(&out),
            format!("${}\r\n{text}\r\n", text.len())
        );
    }

    #[test]
    fn keys_add_up_and_ttls_are_weighted() {
        check(
            &[
                "$56\r\n# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=1000\r\n\r\n",
                "=9\r\ntxt:# Keyspace\r\ndb0:keys=10,expires=3,avg_ttl=5000\r\ndb1:keys=7,expires=0,avg_ttl=0\r\n\r\n",
            ],
            "db0:keys=13,expires=4,avg_ttl=4000\r\n",
        );
    }

    #[test]
    fn empty_and_broken_replies_count_nothing() {
        check(&[], "");
        check(&["# Keyspace\r\n", "-ERR no\r\n", "db0:keys=x"], "");
        let most = u64::MAX;
        let line = format!("db0:keys={most},expires={most},avg_ttl={most}");
        check(
            &[&line, &line],
            &format!("db0:keys={most},expires={most},avg_ttl={most}\r\n"),
        );
    }
}
