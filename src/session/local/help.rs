//! `HELP` of the container commands.

use crate::resp::encode;

/// Writes the help of `client|help` and the like; `false` for names that have none.
pub(super) fn write(full_name: &str, out: &mut Vec<u8>) -> bool {
    let lines: &[&str] = match full_name {
        "client|help" => CLIENT,
        "config|help" => CONFIG,
        "latency|help" => LATENCY,
        "slowlog|help" => SLOWLOG,
        "tally|help" => TALLY,
        _ => return false,
    };
    encode::array(out, lines.len());
    for line in lines {
        encode::simple(out, line);
    }
    true
}

const CLIENT: &[&str] = &[
    "CLIENT <subcommand> [<argument> ...], where <subcommand> is:",
    "GETNAME",
    "    This connection's name.",
    "ID",
    "    This connection's id, rising from 1.",
    "INFO",
    "    This connection's line of the list.",
    "KILL <ip:port>",
    "KILL <filter> <value> [<filter> <value> ...]",
    "    Closes the connections that match every filter:",
    "    ID <id>, ADDR <ip:port>, LADDR <ip:port>, TYPE <type>, USER <name>,",
    "    MAXAGE <seconds>, SKIPME yes|no.",
    "LIST [TYPE <type> | ID <id> [<id> ...]]",
    "    One line for each connection.",
    "NO-EVICT ON|OFF",
    "NO-TOUCH ON|OFF",
    "    Accepted; no client is evicted here.",
    "PAUSE <timeout> [WRITE|ALL]",
    "    Holds the requests of all clients, or those that may write, for so many milliseconds.",
    "REPLY ON|OFF|SKIP",
    "    Whether this connection gets replies; SKIP leaves out that of the next command.",
    "SETINFO LIB-NAME|LIB-VER <text>",
    "    Which client library this is.",
    "SETNAME <name>",
    "    Names this connection; an empty name clears it.",
    "UNPAUSE",
    "    Ends a pause.",
    "HELP",
    "    This text.",
];

const CONFIG: &[&str] = &[
    "CONFIG <subcommand> [<argument> ...], where <subcommand> is:",
    "GET <pattern> [<pattern> ...]",
    "    Parameters whose names match, with their values.",
    "RESETSTAT",
    "    Sets the counters of INFO to zero, but not those of lost increments.",
    "HELP",
    "    This text.",
];

const LATENCY: &[&str] = &[
    "LATENCY <subcommand> [<argument> ...]. Events are requests that took as long as",
    "latency-monitor-threshold says, in milliseconds; 0, the default: none. <subcommand> is:",
    "DOCTOR",
    "    What the events come to, in words.",
    "HISTOGRAM [<command> ...]",
    "    How long commands took, by powers of two of microseconds.",
    "HISTORY <event>",
    "    The worst of each second that had one: its time and milliseconds.",
    "LATEST",
    "    Of each event the last, and the worst.",
    "RESET [<event> ...]",
    "    Forgets them.",
    "HELP",
    "    This text.",
];

const TALLY: &[&str] = &[
    "TALLY <subcommand> [<argument> ...], where <subcommand> is:",
    "DEADLETTERS [<count>]",
    "    The last increments that a node refused after they were acknowledged, newest first.",
    "FLUSH",
    "    Applies everything that is pending on every node, then answers OK.",
    "HOTKEYS [<count>]",
    "    The busiest keys of the last ten seconds, by writes and by reads.",
    "SLOWLOG [<count>]",
    "    The last slow requests, with the time spent in Tally and the time spent at the node.",
    "STATS",
    "    Counters, and where the acknowledged increments are.",
    "WHERE <key>",
    "    The key's node, what a GET is served from (memory, cache or the node), and its mode.",
    "HELP",
    "    This text.",
];

const SLOWLOG: &[&str] = &[
    "SLOWLOG <subcommand> [<argument> ...], where <subcommand> is:",
    "GET [<count>]",
    "    The last slow requests, 10 or so many, the newest first; -1: all. For each: id, time,",
    "    microseconds, arguments, client's address and name. TALLY SLOWLOG tells the time in Tally",
    "    and the time at the node apart.",
    "LEN",
    "    How many there are.",
    "RESET",
    "    Forgets them.",
    "HELP",
    "    This text.",
];
