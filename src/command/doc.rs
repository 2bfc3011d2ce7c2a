//! `docs/commands.md`, written from the table.

use super::{
    Class, Command, Copying, EveryNode, Flags, Inside, Merge, Messages, Refusal, Topics,
    Transaction, commands,
};

/// The whole page: each way of treating a command in a line, then every command with its way.
pub fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    for (title, meaning) in TREATMENTS {
        page.extend(["- **", title, "**: ", meaning, "\n"]);
    }
    page.push_str("\n| command | treatment | detail |\n|---|---|---|\n");
    // A container alone is never executed; `COMMAND`, whose arity is -1, is.
    let executed =
        |command: &&Command| !command.flags.contains(Flags::CONTAINER) || command.accepts(1);
    let mut rows: Vec<_> = commands().iter().filter(executed).collect();
    rows.sort_by_key(|command| command.name);
    for command in rows {
        let name = &command.name.replace('|', " ").to_ascii_uppercase();
        let (title, detail) = treatment(command);
        page.extend(["| `", name, "` | ", title, " | ", detail, " |\n"]);
    }
    page
}

const INTRODUCTION: &str = "\
<!-- Written from the table in src/command/table.rs; do not edit. To write it anew:
     TALLY_BLESS=1 cargo test --test it the_page_of_commands -->

# Commands

Every command and subcommand of Redis 7.0, and what Tally does with it; `CLIENT SETINFO`,
`CLIENT NO-TOUCH` and `WAITAOF` are of 7.2, `CLIENT KILL MAXAGE` of 7.4, `TALLY` is Tally's own. Arguments are counted as Redis counts them, with
Redis's error.

A command that is not here, but in a node's own reply to `COMMAND` (a newer one, or a module's), is
**forwarded** like others if it names keys: `HEXPIRE`, `HSETEX`, `MSETEX`. One without keys is sent to
**every node** if its [tips](https://redis.io/docs/latest/develop/reference/command-tips/) say so, and how
the replies become one: `COMMANDLOG LEN`. Any other without keys is **refused**, because no node could be
told for it, nor what it would do to a connection that all clients share. Also of the commands here the
nodes' numbers of arguments hold where they are greater and the command is forwarded: `ZRANK key member
WITHSCORE`. A node is asked when Tally connects to it, so a module that is loaded later is known after the
next start of either. To clients that speak RESP2 such a reply is converted by its types alone: what is a null array
there is a null string here. Access rules in the configuration file can not name such a command, because
they are read before any node is asked; its categories hold, and `ACL SETUSER` can name it.

Anything else gets Redis's own error for unknown commands; the connection lives on, as it does after every
refusal.

";

/// Each class's title, and what it means to a client.
const TREATMENTS: &[(&str, &str)] = &[
    (
        COUNTED,
        "increments of a key are combined; each client gets its own exact reply.",
    ),
    (
        CACHED,
        "may be answered from what Tally knows; never older than the client's own writes.",
    ),
    (
        PASSED,
        "sent to the key's node in order, without waiting for pending increments, which can not \
         change the reply.",
    ),
    (
        FORWARDED,
        "sent to the node of its keys after their pending increments. Keys on several nodes get a \
         `CROSSSLOT` error, but where a detail says otherwise.",
    ),
    (
        SPLIT,
        "one command to each node that has some of the keys; the replies become one.",
    ),
    (
        SCRIPT,
        "sent to the node of the declared keys after their pending increments; without declared \
         keys after all pending increments of its node.",
    ),
    (EVERY, "sent to all nodes; the replies become one."),
    (
        ANY,
        "names no key and is the same everywhere: sent to one of the nodes.",
    ),
    (
        MESSAGES,
        "a channel lives on the node that its name hashes to; Tally holds one subscribed connection \
         to each node that is needed.",
    ),
    (
        TRANSACTION,
        "what is queued goes to the node of its keys as one transaction, after what is pending on \
         them.",
    ),
    (
        HERE,
        "Tally is the server that the client talks to, and answers.",
    ),
    (
        NEVER,
        "refused with an error that says so: it is about one server, ask that one.",
    ),
];

const COUNTED: &str = "counted";
const CACHED: &str = "cached";
const PASSED: &str = "passed on";
const FORWARDED: &str = "forwarded";
const SPLIT: &str = "split by node";
const SCRIPT: &str = "script";
const EVERY: &str = "every node";
const ANY: &str = "any node";
const MESSAGES: &str = "messages";
const TRANSACTION: &str = "transaction";
const HERE: &str = "answered here";
const NEVER: &str = "never";

fn treatment(command: &Command) -> (&'static str, &'static str) {
    match command.class {
        Class::Increment(_) => (COUNTED, ""),
        Class::Get | Class::MultiGet => (CACHED, ""),
        Class::Peek => (PASSED, ""),
        Class::Keyed => (FORWARDED, keyed_detail(command)),
        Class::Script => (SCRIPT, ""),
        Class::AnyNode => (ANY, ""),
        Class::PubSub(messages) => (MESSAGES, messages_detail(messages)),
        Class::Local => (HERE, ""),
        Class::Own(inside) => (HERE, own_detail(inside)),
        Class::Transaction(bracket) => (TRANSACTION, transaction_detail(bracket)),
        Class::Refused(Refusal::Never) => (NEVER, ""),
        Class::Refused(Refusal::AclFile) => (NEVER, "there is no such file"),
        Class::PerNode { merge, peek } => {
            let detail = match (merge, peek) {
                (Merge::Sum, false) => "the sum",
                (Merge::Sum, true) => "the sum; does not wait for pending increments",
                (Merge::Ok, _) => "`OK` when every node says so; not atomic over several nodes",
            };
            (SPLIT, detail)
        }
        Class::EveryNode(every) => {
            let detail = match every {
                EveryNode::DbSize => "the sum",
                EveryNode::Keys => "all keys",
                EveryNode::Scan => {
                    "node after node, more than one while little is found; the cursor says which"
                }
                EveryNode::FlushAll
                | EveryNode::FlushDb
                | EveryNode::SwapDb
                | EveryNode::Purge
                | EveryNode::ScriptFlush => "`OK` when every node says so",
                EveryNode::RandomKey => "a key of a node that has any",
                EveryNode::Function => "the reply, the same everywhere",
                EveryNode::ScriptLoad => "the hash, the same everywhere",
                EveryNode::ScriptExists => "1 where every node has the script",
                EveryNode::Kill => "on a connection of its own; `OK` when one of them was ended",
                EveryNode::Wait => "the smallest numbers",
                EveryNode::LastSave => "the earliest",
                EveryNode::Told(_) => "as the node tells",
                EveryNode::Save => {
                    "after all pending increments; an error of any node, else the reply of one"
                }
            };
            (EVERY, detail)
        }
    }
}

fn messages_detail(messages: Messages) -> &'static str {
    match messages {
        Messages::Subscribe(Topics::Channels) => {
            "the channel's node; `__keyspace@` and `__keyevent@` channels: every node"
        }
        Messages::Subscribe(Topics::Patterns) => "every node",
        Messages::Publish(_) => "the reply counts clients, not connections of Tally",
        Messages::List(_) => "the channels of all nodes",
        Messages::Count(_) => "counts clients, not connections of Tally",
        Messages::PatternCount => {
            "the patterns of Tally's clients, and those that others have on the nodes"
        }
        Messages::Subscribe(Topics::Shards) | Messages::Unsubscribe(_) => "",
    }
}

fn transaction_detail(bracket: Transaction) -> &'static str {
    match bracket {
        Transaction::Multi => "what follows is queued here",
        Transaction::Exec => "`EXECABORT` if a command was refused",
        Transaction::Discard | Transaction::Unwatch => "",
        Transaction::Watch => {
            "keys of one node (of several with `split`), which are passed on as they are until its end"
        }
    }
}

fn own_detail(inside: Inside) -> &'static str {
    match inside {
        Inside::DeadLetters => "increments that a node refused after they were acknowledged",
        Inside::Flush => "`OK` when all that was pending on every node is applied",
        Inside::Help => "",
        Inside::HotKeys => "the busiest keys of the last ten seconds, by writes and by reads",
        Inside::SlowLog => "slow requests, with the time in Tally and at the node",
        Inside::Stats => "counters, and where the acknowledged increments are",
        Inside::Where => "a key's node, what a `GET` is served from, and its mode",
    }
}

fn keyed_detail(command: &Command) -> &'static str {
    match command.name {
        "xread" | "xreadgroup" => {
            "with `BLOCK` on a connection of its own; keys on several nodes: asked in turn"
        }
        "lmpop" | "zmpop" => "keys on several nodes: asked in turn",
        "blmove" | "brpoplpush" => {
            "waits on a connection of its own; keys on several nodes: asked in turn, moved as by `LMOVE`"
        }
        "rename" | "renamenx" | "lmove" | "rpoplpush" | "smove" | "msetnx" | "copy" => {
            "keys on several nodes: locked meanwhile, see semantics"
        }
        _ if command.flags.contains(Flags::BLOCKING) => {
            "waits on a connection of its own; keys on several nodes: asked in turn"
        }
        "sort" | "sort_ro" => {
            "with a pattern in `BY` or `GET`: after all pending increments of its node, if a hash tag \
             or a route keeps the pattern's keys there; else looked up on all nodes and sorted here"
        }
        _ if Copying::of(command).is_some() => "keys on several nodes: copies, see semantics",
        _ => "",
    }
}
