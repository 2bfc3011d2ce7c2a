//! Commands that read several keys and write one at most: what they read may be copies.

use super::Command;

/// What such a command does with its keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Copying {
    /// It reads them.
    Read,
    /// It writes the one at this place among them, and answers with a number or a status.
    Store(usize),
}

impl Copying {
    /// `None` for a command that may change several keys, or has one.
    pub fn of(command: &Command) -> Option<Self> {
        match command.name {
            "sinter" | "sunion" | "sdiff" | "sintercard" | "zinter" | "zunion" | "zdiff"
            | "zintercard" | "lcs" | "pfcount" => Some(Self::Read),
            "sinterstore" | "sunionstore" | "sdiffstore" | "zinterstore" | "zunionstore"
            | "zdiffstore" | "zrangestore" | "bitop" | "pfmerge" | "geosearchstore" => {
                Some(Self::Store(0))
            }
            "georadius" | "georadiusbymember" => Some(Self::Store(1)),
            _ => None,
        }
    }
}
