//! Users at run time: a Redis is told and asked the same.

use std::time::Duration;

use crate::connection::Connection;
use crate::harness::{Settings, Stack, eventually, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::{Redis, is_other_server};

/// A Tally and a Redis.
pub(crate) struct Twins {
    pub(crate) stack: Stack,
    redis: Redis,
}

/// A connection to each.
pub(crate) struct Pair {
    pub(crate) here: Connection,
    pub(crate) there: Connection,
}

impl Twins {
    fn start() -> Option<Self> {
        Self::with(&[])
    }

    pub(crate) fn with(settings: Settings<'_>) -> Option<Self> {
        if skipped_on_bare_redis() || is_other_server() {
            return None;
        }
        Some(Self {
            stack: Stack::start(settings),
            redis: Redis::start(&[]),
        })
    }

    pub(crate) fn connect(&self) -> Pair {
        Pair {
            here: Connection::open(self.stack.address()),
            there: Connection::open(self.redis.address()),
        }
    }
}

impl Pair {
    /// Both answer alike. Returns what Tally answers.
    #[track_caller]
    pub(crate) fn check(&mut self, line: &str) -> Reply {
        self.check_call(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[track_caller]
    pub(crate) fn check_call(&mut self, request: &[&str]) -> Reply {
        let (here, there) = (self.here.call(request), self.there.call(request));
        assert_eq!(normal(&here), normal(&there), "{request:?}");
        here
    }

    #[track_caller]
    fn check_all(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.check(line);
        }
    }

    #[track_caller]
    fn check_closed(&mut self) {
        for one in [&mut self.here, &mut self.there] {
            assert!(eventually(PATIENCE, || one.try_call(&["PING"]).is_err()));
        }
    }
}

/// What two servers can not have in common: the order of single commands, Tally's own, times and
/// addresses.
fn normal(reply: &Reply) -> String {
    let text = format!("{reply:?}");
    let text = text.replace(['"', '[', ']', '(', ')', ','], " ");
    let mut words: Vec<&str> = text.split_whitespace().collect();
    words.retain(|word| {
        let is_own =
            word.contains("tally") || word.contains("|no-touch") || word.contains("|setinfo");
        !is_own
    });
    words.sort_unstable();
    words.join(" ")
}

#[test]
fn users_are_made_changed_and_deleted_as_on_redis() {
    let Some(twins) = Twins::start() else { return };
    let mut admin = twins.connect();
    admin.check_all(
        "ACL SETUSER u
        ACL GETUSER u
        ACL SETUSER u on >p ~a:* %R~r:* +@all -@dangerous &news (+set ~s:*)
        ACL GETUSER u
        ACL LIST
        ACL USERS
        ACL SETUSER u <nope
        ACL SETUSER u +nosuch
        ACL SETUSER u ~a:* ~* ~b
        ACL SETUSER u (+get
        ACL SETUSER u #12
        ACL SETUSER u +config|get|x
        ACL SETUSER u reset
        ACL GETUSER u
        ACL SETUSER default ~*
        ACL GETUSER default
        ACL GETUSER nobody
        ACL DRYRUN u get a
        ACL DRYRUN nobody get a
        ACL DRYRUN u nosuch
        ACL DRYRUN u get
        ACL CAT
        ACL CAT string
        ACL CAT nosuch
        ACL LOG x
        ACL LOG 1 2
        ACL LOG
        ACL GENPASS 0
        ACL GENPASS 5000
        ACL SAVE
        ACL LOAD
        ACL WHOAMI
        ACL DELUSER default
        ACL DELUSER u nobody
        ACL DELUSER u
        ACL USERS
        CONFIG GET acllog-max-len",
    );
    assert_eq!(admin.here.run("ACL GENPASS").text().len(), 64);
    let name = ["ACL", "SETUSER", "a b"];
    assert_eq!(admin.here.call(&name), admin.there.call(&name));
}

#[test]
fn rights_change_at_once_for_clients_that_are_there() {
    let Some(twins) = Twins::start() else { return };
    let (mut admin, mut user) = (twins.connect(), twins.connect());
    admin.check("ACL SETUSER u on >p ~a:* +@all &*");
    user.check_all(
        "AUTH u wrong
        AUTH u p
        ACL WHOAMI
        SET a:1 x
        GET a:1
        GET b
        MGET a:1 b
        INCR b",
    );
    admin.check("ACL SETUSER u -get resetkeys %R~r:* %W~a:*");
    user.check_all(
        "GET a:1
        SET a:1 y
        SET a:1 y GET
        STRLEN r:1
        COPY r:1 a:1
        COPY a:1 r:1",
    );
    admin.check("ACL SETUSER u +select|1 -select +select|0 allkeys");
    user.check_all("SELECT 0\nSELECT 1\nSORT l BY w*\nSET k v");
    admin.check("ACL SETUSER u off");
    // Who is in stays; nobody comes in.
    user.check("SET k w");
    let mut other = twins.connect();
    other.check("AUTH u p");
    admin.check("ACL SETUSER u nopass on");
    other.check("AUTH u whatever");
    other.check("ACL WHOAMI");
    admin.check("ACL DELUSER u");
    user.check_closed();
    other.check_closed();
}

#[test]
fn a_transaction_is_checked_again_when_it_is_executed() {
    let Some(twins) = Twins::start() else { return };
    let (mut admin, mut user) = (twins.connect(), twins.connect());
    admin.check("ACL SETUSER u on nopass allkeys allchannels +@all");
    user.check_all(
        "AUTH u p
        MULTI
        SET k 1
        INCR k
        EVAL return(1) 1 k
        PUBLISH news x
        GET k",
    );
    admin.check("ACL SETUSER u -incr -eval resetchannels");
    let reply = user.here.run("EXEC");
    let theirs = user.there.run("EXEC");
    assert_eq!(reply, theirs);
    let ours = reply.elements();
    assert!(ours[1].text().contains("ACLs rules changed"), "{ours:?}");
    // Outside of one it is a refusal, which ends the transaction.
    user.check_all(
        "MULTI
        INCR k
        EXEC",
    );
}

#[test]
fn who_logs_in_within_a_transaction_executes_what_follows() {
    let Some(twins) = Twins::start() else { return };
    let (mut admin, mut client) = (twins.connect(), twins.connect());
    admin.check("ACL SETUSER low on >p ~{low}* +@all -incr");
    let denied = "SET high 1
        SET {low} 5
        INCR {low}
        EVAL return{redis.pcall('INCR',KEYS[1]),redis.call('GET',KEYS[1])} 1 {low}
        ACL WHOAMI";
    for (login, is_low) in [
        ("AUTH low p", true),
        ("HELLO 2 AUTH low p", true),
        ("AUTH low wrong", false),
        ("AUTH p", false),
        ("HELLO 2", false),
    ] {
        client.check("MULTI");
        client.check_all(denied);
        client.check(login);
        client.check_all(denied);
        client.check("AUTH default any");
        client.check_all(denied);
        let (here, there) = (client.here.run("EXEC"), client.there.run("EXEC"));
        let mut ours = here.elements().to_vec();
        let mut theirs = there.elements().to_vec();
        // `HELLO` tells versions and numbers of clients.
        if login.starts_with("HELLO") {
            ours[5] = Reply::Nil;
            theirs[5] = Reply::Nil;
        }
        assert_eq!(ours, theirs, "{login}");
        let is_denied = |at: usize| format!("{:?}", ours[at]).contains("ACLs rules changed");
        assert_eq!([0, 6, 12].map(is_denied), [false, is_low, false], "{login}");
    }
    // Somebody who may less goes on as somebody who may more.
    client.check_all(
        "AUTH low p
        MULTI
        SET high 1
        EXEC
        MULTI
        SET {low} 1
        AUTH default any
        EVAL return(redis.call('INCR',KEYS[1])) 1 {low}
        EXEC",
    );
}

#[test]
fn whoever_listens_to_what_it_may_not_is_closed() {
    let Some(twins) = Twins::start() else { return };
    let mut admin = twins.connect();
    admin.check("ACL SETUSER u on nopass +@all &news &n* &shard");
    let listen = |line: &str| {
        let mut pair = twins.connect();
        pair.check("AUTH u p");
        pair.check(line);
        pair
    };
    let mut news = listen("SUBSCRIBE news");
    let mut night = listen("SUBSCRIBE night");
    let mut pattern = listen("PSUBSCRIBE n*");
    let mut shard = listen("SSUBSCRIBE shard");
    let mut idle = listen("SUBSCRIBE other");
    let mut asks = listen("PSUBSCRIBE new*");
    asks.check("SUBSCRIBE news other");
    asks.check("PUBLISH other x");
    admin.check("ACL SETUSER u &more");
    news.check("PING");
    admin.check("ACL SETUSER u resetchannels &news");
    for lost in [&mut night, &mut pattern, &mut shard] {
        lost.check_closed();
    }
    news.check("PING");
    idle.check("PING");
    // Its own client is closed too, once it is answered.
    admin.check("ACL SETUSER u on nopass +@all allchannels");
    let mut own = listen("PING");
    own.here.run("HELLO 3");
    own.here.run("SUBSCRIBE mine");
    assert!(own.here.run("ACL SETUSER u resetchannels").is_ok());
    assert!(eventually(PATIENCE, || own
        .here
        .try_call(&["PING"])
        .is_err()));
}

#[test]
fn what_was_denied_is_logged_and_counted() {
    let Some(twins) = Twins::start() else { return };
    let (mut admin, mut user) = (twins.connect(), twins.connect());
    admin.check("ACL SETUSER u on >p ~a:* +@all -incr &news");
    user.check_all(
        "AUTH u wrong
        auth u wrong
        AUTH nobody wrong
        HELLO 3 AUTH u wrong
        AUTH u p
        GET b
        GET b
        INCR a:1
        PUBLISH other x
        MULTI
        GET b
        EXEC
        GET c
        GET b",
    );
    let entries = |reply: &Reply| -> Vec<Vec<String>> {
        let entries = reply.elements().iter();
        entries
            .map(|entry| {
                let fields = entry.elements();
                // Not its age, and not the client.
                let fields = fields.iter().take(10).map(|field| format!("{field:?}"));
                fields.collect()
            })
            .collect()
    };
    for line in [
        "ACL LOG",
        "ACL LOG 2",
        "ACL LOG 0",
        "ACL LOG -1",
        "ACL LOG 100",
    ] {
        let (here, there) = (admin.here.run(line), admin.there.run(line));
        assert_eq!(entries(&here), entries(&there), "{line}");
    }
    let log = admin.here.run("ACL LOG 1");
    let fields = log.elements()[0].elements();
    assert_eq!(fields[10].text(), "age-seconds");
    assert!(fields[11].text().parse::<f64>().unwrap() < 60.0);
    let client = fields[13].text();
    assert!(
        client.contains("cmd=get ") && client.contains("user=u "),
        "{client}"
    );
    admin.check_all("CONFIG SET acllog-max-len 2\nCONFIG GET acllog-max-len");
    user.check("GET d");
    for line in ["ACL LOG", "ACL LOG RESET", "ACL LOG"] {
        let (here, there) = (admin.here.run(line), admin.there.run(line));
        if here.is_ok() {
            assert_eq!(here, there, "{line}");
        } else {
            assert_eq!(entries(&here), entries(&there), "{line}");
        }
    }
}

#[test]
fn the_default_user_changes_as_any_other() {
    let Some(twins) = Twins::start() else { return };
    let (mut admin, mut old) = (twins.connect(), twins.connect());
    admin.check("ACL SETUSER admin on nopass ~* &* +@all");
    admin.check("AUTH admin x");
    old.check_all("INCR a:1\nINCR a:1\nINCR b:1");
    admin.check("ACL SETUSER default resetkeys ~a:* -@dangerous");
    let mut new = twins.connect();
    for pair in [&mut old, &mut new] {
        pair.check_all(
            "ACL WHOAMI
            INCR a:1
            INCR b:1
            KEYS *
            PING
            MULTI
            INCR a:1
            EXEC
            GET a:1",
        );
    }
    admin.check("CONFIG SET requirepass secret");
    old.check("GET a:1");
    let mut guest = twins.connect();
    guest.check_all(
        "GET a:1
        PING
        AUTH wrong
        AUTH default secret
        AUTH secret
        GET a:1
        GET b:1
        RESET
        GET a:1
        AUTH default secret
        GET a:1",
    );
    admin.check("ACL SETUSER default off");
    guest.check("GET a:1");
    twins.connect().check_all("PING\nAUTH secret");
    admin.check_all("ACL SETUSER default on allkeys +@all\nCONFIG SET requirepass \"\"");
    let log = twins.stack.tally.as_ref().unwrap().log();
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn a_user_that_deletes_itself_is_answered_and_closed() {
    let Some(twins) = Twins::start() else { return };
    let mut pair = twins.connect();
    pair.check_all("ACL SETUSER u on nopass +@all ~* &*\nAUTH u p\nSET k v\nACL DELUSER u");
    pair.check_closed();
}

#[test]
fn new_users_may_use_channels_or_not_as_is_set() {
    let Some(twins) = Twins::start() else { return };
    let (mut admin, mut user) = (twins.connect(), twins.connect());
    admin.check_all(
        "CONFIG GET acl-pubsub-default
        ACL SETUSER before on nopass +@all ~*
        CONFIG SET acl-pubsub-default nosuch
        CONFIG SET acl-pubsub-default ALLCHANNELS
        CONFIG GET acl-pubsub-default
        ACL SETUSER after on nopass +@all (+get ~x*)
        ACL SETUSER after &news
        ACL SETUSER narrow resetchannels &news
        ACL SETUSER before (+set ~y*)
        ACL LIST
        ACL GETUSER after
        ACL SETUSER before reset on nopass +@all
        ACL LIST",
    );
    user.check_all("AUTH after x\nPUBLISH news 1\nAUTH narrow x\nPUBLISH other 1");
    admin.check_all(
        "CONFIG SET acl-pubsub-default resetchannels
        CONFIG GET acl-pubsub-default
        ACL SETUSER last on nopass +@all
        ACL SETUSER after reset on nopass +@all
        ACL LIST",
    );
    user.check_all("AUTH after x\nPUBLISH news 1\nAUTH before x\nPUBLISH news 1");
}

#[test]
fn rules_of_the_file_are_rules_of_redis() {
    if skipped_on_bare_redis() || is_other_server() {
        return;
    }
    let rules = "+@read -@dangerous %R~app:* (+set ~report:*) &reports.*";
    let users = format!(
        "[{{ name = \"reports\", password = \"r\", rules = \"{rules}\" }}, {{ name = \"both\", \
         rules = [\">b\", \"+get\", \"-@all\", \"+@string\"], keys = [\"x:*\"] }}, {{ name = \
         \"boss\", password = \"boss\", rules = \"+@all ~* &*\" }}]"
    );
    let stack = Stack::start(&[("users", &users)]);
    let redis = Redis::start(&[]);
    let mut there = redis.connect();
    assert!(
        there
            .run(&format!("ACL SETUSER reports on >r {rules}"))
            .is_ok()
    );
    assert!(
        there
            .run("ACL SETUSER both on ~x:* >b +get -@all +@string")
            .is_ok()
    );
    let mut here = stack.connect();
    assert!(here.run("AUTH boss boss").is_ok());
    for line in ["ACL GETUSER reports", "ACL GETUSER both"] {
        // `keys` takes away what looks at all keys.
        assert_eq!(normal(&here.run(line)), normal(&there.run(line)), "{line}");
    }
    assert!(stack.connect().run("AUTH both b").is_ok());
    assert!(stack.connect().run("GET k").text().starts_with("NOAUTH"));
    assert!(
        here.call(&["EVAL", "return 1", "0"]) == Reply::Integer(1),
        "it may do everything"
    );
}

#[test]
fn there_is_a_bound_on_users() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    let lines: Vec<_> = (0..1001).map(|at| format!("ACL SETUSER u{at}")).collect();
    let replies = client.run_all(&lines);
    assert!(replies[..1000].iter().all(Reply::is_ok));
    assert!(
        replies[1000].text().starts_with("ERR at most 1001 users"),
        "{:?}",
        replies[1000]
    );
    assert!(client.run("ACL SETUSER u1 on").is_ok());
    assert_eq!(client.run("ACL LIST").elements().len(), 1001);
    assert_eq!(client.run("ACL DELUSER u1 u2"), Reply::Integer(2));
    assert!(client.run("ACL SETUSER u1001").is_ok());
}

#[test]
fn passwords_are_masked_where_commands_are_shown() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    client.run("CONFIG SET slowlog-log-slower-than 0");
    client.run("ACL SETUSER hidden on >hunter2");
    client.run("CONFIG SET requirepass hunter2");
    client.run("AUTH hunter2");
    let shown = format!("{:?}", client.run("SLOWLOG GET 10"));
    assert!(shown.contains("SETUSER"), "{shown}");
    assert!(
        !shown.contains("hunter2") && !shown.contains("hidden"),
        "{shown}"
    );
    assert!(!format!("{:?}", client.run("CONFIG GET *")).contains("hunter2"));
}

const PATIENCE: Duration = Duration::from_secs(10);
