//! What `allow`, `keys` and `rules` of `[[users]]` are short for: rules of access.

use config::{Value, ValueKind};

use super::print::MASK;
use super::reader::Reader;
use crate::resp;

/// A word of `allow`, and the rules that it is short for.
pub(super) struct Allow {
    pub(super) name: &'static str,
    words: &'static str,
}

impl Allow {
    pub(super) const ALL: [Self; 4] = [
        Self {
            name: "read",
            words: "+@read +@pubsub -publish -spublish",
        },
        Self {
            name: "write",
            words: "+@write +publish +spublish -@scripting -pfdebug -flushall -flushdb -swapdb",
        },
        Self {
            name: "script",
            words: "+@scripting -script|debug -script|flush -function|delete -function|flush \
                    -function|load -function|restore",
        },
        Self {
            name: "admin",
            words: "+@admin +flushall +flushdb +swapdb +script|flush +script|kill +function|delete \
                    +function|flush +function|kill +function|load +function|restore",
        },
    ];

    /// What every user may, whatever it is allowed: commands about the connection, transactions,
    /// and what tells of the server.
    const EVERYBODY: &str = "+@all -@read -@write -@pubsub -@scripting -@admin +lastsave +role \
                             allchannels";

    /// The rules for these words.
    pub(super) fn words(allow: &[String]) -> Vec<String> {
        let is_allowed = |known: &&Self| allow.iter().any(|name| name == known.name);
        let mut lines: Vec<&str> = vec![Self::EVERYBODY];
        lines.extend(Self::ALL.iter().filter(is_allowed).map(|known| known.words));
        // Together they are all.
        if lines.len() > Self::ALL.len() {
            lines = vec!["+@all allchannels"];
        }
        let words = lines.into_iter().flat_map(str::split_whitespace);
        words.map(str::to_owned).collect()
    }
}

/// The rules for patterns of keys. Who may not name every key may not look at all of them either,
/// which Redis leaves to its rules of commands.
pub(super) fn key_words(patterns: &[String]) -> Vec<String> {
    if patterns.iter().any(|pattern| pattern == "*") {
        return vec!["~*".to_owned()];
    }
    let all = "-keys -scan -dbsize -randomkey -flushall -flushdb -swapdb -tally|hotkeys";
    let all = all.split_whitespace().map(str::to_owned);
    all.chain(patterns.iter().map(|pattern| format!("~{pattern}")))
        .collect()
}

/// A rule as it may be shown. One that takes a password away is left out: what it shows would not
/// be valid.
pub(super) fn masked(rule: &str) -> Option<String> {
    match rule.as_bytes().first()? {
        b'>' | b'#' => Some(format!(">{MASK}")),
        b'<' | b'!' => None,
        _ => Some(rule.to_owned()),
    }
}

/// A fault without the password that it may name.
pub(super) fn fault_text(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let text = text.replace("Error in ACL SETUSER modifier ", "rule ");
    match text.split_once("': ") {
        Some((rule, why)) if ["'>", "'<", "'#", "'!"].iter().any(|of| rule.contains(of)) => {
            why.to_owned()
        }
        _ => text,
    }
}

/// Rules: one text, whose words they are, or a list of them.
pub(super) fn rules(reader: &mut Reader, path: &str, value: Option<Value>) -> Vec<String> {
    let text = |value: Value| match value.kind {
        ValueKind::String(text) => Some(text),
        _ => None,
    };
    let Some(value) = value else {
        return Vec::new();
    };
    let rules: Option<Vec<String>> = match value.kind {
        ValueKind::String(text) => resp::split(text.as_bytes()).and_then(|words| {
            let words = words.into_iter().map(|word| String::from_utf8(word).ok());
            words.collect()
        }),
        ValueKind::Array(values) => values.into_iter().map(text).collect(),
        _ => None,
    };
    rules.unwrap_or_else(|| {
        let allowed = "a text or a list of texts, with the rules of ACL SETUSER";
        reader.fault(path, format!("not allowed; allowed: {allowed}"));
        Vec::new()
    })
}
