//! How many arguments each command answered here takes, the name (and subcommand) included.

/// A bound on the number of arguments.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Arity {
    /// Exactly so many.
    Exactly(usize),
    /// So many or more.
    AtLeast(usize),
}

use Arity::{AtLeast, Exactly};

impl Arity {
    pub(super) fn fits(self, len: usize) -> bool {
        match self {
            Exactly(arity) => len == arity,
            AtLeast(arity) => len >= arity,
        }
    }
}

/// Whether this command consists of subcommands.
pub(super) fn is_container(name: &str) -> bool {
    has_all_subcommands(name) || matches!(name, "acl" | "memory" | "module")
}

/// Whether every subcommand of this command is answered here, so that others do not exist.
pub(super) fn has_all_subcommands(name: &str) -> bool {
    matches!(
        name,
        "client" | "config" | "slowlog" | "latency" | "cluster"
    )
}

/// Arity by full name, from Redis's `commands/*.json`; `None` for what is not answered here.
#[expect(clippy::match_same_arms, reason = "grouped by command")]
pub(super) fn of(full_name: &str) -> Option<Arity> {
    if let Some(subcommand) = full_name.strip_prefix("cluster|") {
        return cluster(subcommand);
    }
    Some(match full_name {
        "ping" | "quit" | "hello" | "info" => AtLeast(1),
        "auth" => AtLeast(2),
        "echo" | "select" => Exactly(2),
        "asking" | "lastsave" | "readonly" | "readwrite" | "reset" | "role" | "time" => Exactly(1),

        "client|getname"
        | "client|getredir"
        | "client|help"
        | "client|id"
        | "client|info"
        | "client|trackinginfo"
        | "client|unpause" => Exactly(2),
        "client|caching" | "client|no-evict" | "client|no-touch" | "client|reply"
        | "client|setname" => Exactly(3),
        "client|setinfo" => Exactly(4),
        "client|list" => AtLeast(2),
        "client|kill" | "client|pause" | "client|tracking" | "client|unblock" => AtLeast(3),

        "config|help" | "config|resetstat" | "config|rewrite" => Exactly(2),
        "config|get" => AtLeast(3),
        "config|set" => AtLeast(4),

        "slowlog|help" | "slowlog|len" | "slowlog|reset" => Exactly(2),
        "slowlog|get" => AtLeast(2),

        "latency|doctor" | "latency|help" | "latency|latest" => Exactly(2),
        "latency|graph" | "latency|history" => Exactly(3),
        "latency|histogram" | "latency|reset" => AtLeast(2),

        "acl|whoami" | "memory|doctor" | "memory|purge" | "module|list" => Exactly(2),
        _ => return None,
    })
}

/// Subcommands of `CLUSTER`: each gets the same refusal, but only after Redis's own checks.
fn cluster(subcommand: &str) -> Option<Arity> {
    Some(match subcommand {
        "bumpepoch" | "flushslots" | "help" | "info" | "links" | "myid" | "nodes"
        | "saveconfig" | "shards" | "slots" => Exactly(2),
        "count-failure-reports"
        | "countkeysinslot"
        | "forget"
        | "keyslot"
        | "replicas"
        | "replicate"
        | "set-config-epoch"
        | "slaves" => Exactly(3),
        "getkeysinslot" => Exactly(4),
        "failover" | "reset" => AtLeast(2),
        "addslots" | "delslots" => AtLeast(3),
        "addslotsrange" | "delslotsrange" | "meet" | "setslot" => AtLeast(4),
        _ => return None,
    })
}
