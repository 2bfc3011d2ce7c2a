//! Users: what they may do, and that Redis with the same ACL says the same.

use std::net::SocketAddr;

use crate::connection::Connection;
use crate::harness::{Settings, Stack, now, pause, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::{Redis, is_other_server};

/// The users of these tests, each with its name as password.
const USERS: &str = r#"[
    { name = "reader", password = "reader", allow = ["read"] },
    { name = "writer", password = "writer", allow = ["write"], keys = ["a:*", "b:?"] },
    { name = "app", password = "app", keys = ["a:*"] },
    { name = "scripts", password = "scripts", allow = ["read", "write", "script"], keys = ["a:*"] },
    { name = "boss", password = "boss", allow = ["read", "write", "script", "admin"] },
    { name = "hashed", password_sha256 = "8e35c2cd3bf6641bdb0e2050b76932cbb2e6034a0ddacc1d9bea82a6ba57f7cf" },
    { name = "few", password = "few", max_connections = 2 },
    { name = "slow", password = "slow", max_commands_per_second = 5 },
]"#;

/// The same of those that a twin is asked for.
const ACL: &[&str] = &[
    "ACL SETUSER reader on >reader +@read +@connection +acl|whoami +@transaction -@dangerous ~*",
    "ACL SETUSER writer on >writer +@write +@connection +acl|whoami +@transaction ~a:* -@dangerous ~b:?",
    "ACL SETUSER app on >app +@read +@write -@scripting +@connection +acl|whoami +@transaction -@dangerous ~a:*",
];

fn one_line(users: &str) -> String {
    users.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn start(more: Settings<'_>) -> Stack {
    let users = one_line(USERS).replace(", ]", "]");
    let settings = [&[("users", users.as_str())], more].concat();
    Stack::start(&settings)
}

#[track_caller]
fn log_in(address: SocketAddr, name: &str) -> Connection {
    let mut client = Connection::open(address);
    assert!(client.call(&["AUTH", name, name]).is_ok(), "{name}");
    client
}

#[test]
fn a_redis_with_the_same_acl_says_the_same() {
    if skipped_on_bare_redis() || is_other_server() {
        return;
    }
    let stack = start(&[]);
    let redis = Redis::start(&[]);
    for line in ACL {
        assert!(redis.connect().run(line).is_ok(), "{line}");
    }
    for user in ["reader", "writer", "app"] {
        let mut here = log_in(stack.address(), user);
        let mut there = log_in(redis.address(), user);
        for line in [
            "ACL WHOAMI",
            "PING",
            "SET a:1 1",
            "INCR a:1",
            "INCR a:1",
            "GET a:1",
            "GET c",
            "INCR c",
            "SET b:1 x",
            "SET b:12 x",
            "MSET a:1 1 a:2 2",
            "MSET a:1 1 c 2",
            "MGET a:1 c",
            "DEL a:1 c",
            "EXISTS a:1 c",
            "RENAME {a:1} c",
            "LMPOP 1 c LEFT",
            "XREAD STREAMS c 0",
            "OBJECT ENCODING c",
            "CONFIG GET maxmemory",
            "CLIENT LIST",
            "CLIENT GETNAME",
            "EVAL return 1",
            "NOSUCH x",
            "MULTI",
            "SET c 1",
            "GET c",
            "SET a:1 1",
            "EXEC",
            "GET",
            "RESET",
            "GET a:1",
            "ACL WHOAMI",
        ] {
            let (got, want) = (here.run(line), there.run(line));
            // Redis's connections are of its default user, who needs no password there.
            if line == "RESET" {
                assert!(there.call(&["AUTH", user, user]).is_ok());
                assert_eq!(
                    here.run("GET a:1").text(),
                    "NOAUTH Authentication required."
                );
                assert!(here.call(&["AUTH", user, user]).is_ok());
            }
            assert_eq!(got, want, "{user}: {line}");
        }
    }
}

#[test]
fn a_redis_takes_the_users_as_they_are_listed() {
    if skipped_on_bare_redis() || is_other_server() {
        return;
    }
    let stack = start(&[("server.password", "\"boss\"")]);
    let redis = Redis::start(&[]);
    let (mut here, mut there) = (log_in(stack.address(), "boss"), redis.connect());
    // Redis has no fixed order for single commands, does not know Tally's own, and `reset` gives a
    // user a flag.
    let is_redis = |word: &str| {
        !word.contains("|no-touch") && !word.contains("|setinfo") && !word.contains("tally")
    };
    let sorted = |reply: Reply| {
        let text = |part: &Reply| match part {
            Reply::Bulk(text) => {
                let text = String::from_utf8_lossy(text).into_owned();
                let words = text.split(' ').filter(|word| *word != "sanitize-payload");
                let words = words.filter(|word| is_redis(word));
                let mut words: Vec<_> = words.map(str::to_owned).collect();
                words.sort();
                words.join(" ")
            }
            other => format!("{other:?}").replace(", \"sanitize-payload\"", ""),
        };
        reply.elements().iter().map(text).collect::<Vec<_>>()
    };
    let listed = here.run("ACL LIST");
    for line in listed.elements() {
        let rules = line.text();
        let rules = rules.strip_prefix("user ").expect("a line of a user");
        let (name, rules) = rules.split_once(' ').expect("a name");
        let rules: Vec<_> = rules.split(' ').filter(|word| is_redis(word)).collect();
        let rules = rules.join(" ");
        assert!(
            there
                .run(&format!("ACL SETUSER {name} reset {rules}"))
                .is_ok()
        );
        let told = format!("ACL GETUSER {name}");
        let (told, want) = (here.run(&told), there.run(&told));
        assert_eq!(sorted(told), sorted(want), "{name}");
    }
    assert_eq!(sorted(there.run("ACL LIST")), sorted(listed));
    assert_eq!(here.run("ACL USERS"), there.run("ACL USERS"));
    for line in [
        "ACL DRYRUN reader get k",
        "ACL DRYRUN reader set k v",
        "ACL DRYRUN writer set a:1 v",
        "ACL DRYRUN writer mset a:1 1 c 2",
        "ACL DRYRUN default flushall",
        "ACL GETUSER nobody",
        "ACL DELUSER nobody",
        "ACL DELUSER nobody none",
        "ACL DELUSER default",
        "ACL DELUSER nobody default",
    ] {
        assert_eq!(here.run(line), there.run(line), "{line}");
    }
    // To see them is for those who may.
    let seen = log_in(stack.address(), "app").run("ACL LIST").text();
    assert!(seen.starts_with("NOPERM"), "{seen}");
}

#[test]
fn nobody_is_let_in_without_a_user() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = start(&[]);
    let mut client = stack.connect();
    let no_auth = "NOAUTH Authentication required.";
    let wrong = "WRONGPASS invalid username-password pair or user is disabled.";
    for (line, want) in [
        ("PING", no_auth),
        ("GET a", no_auth),
        ("AUTH reader", wrong),
        ("AUTH default reader", wrong),
        ("AUTH reader writer", wrong),
        ("AUTH nobody reader", wrong),
        ("HELLO 3 AUTH reader writer", wrong),
        ("TALLY STATS", no_auth),
        (
            "EXEC",
            "EXECABORT Transaction discarded because of: NOAUTH Authentication required.",
        ),
    ] {
        assert_eq!(client.run(line).text(), want, "{line}");
    }
    assert!(!client.run("HELLO 3 AUTH reader reader").is_error());
    assert_eq!(client.run("ACL WHOAMI").text(), "reader");
    let list = log_in(stack.address(), "boss").run("CLIENT LIST").text();
    assert!(list.contains(" user=reader "), "{list}");
    assert!(list.contains(" user=boss "), "{list}");
    assert!(client.call(&["AUTH", "hashed", "q"]).is_ok());
    assert_eq!(client.run("ACL WHOAMI").text(), "hashed");
    // A failed attempt leaves a client as it was.
    assert!(client.run("AUTH reader no").is_error());
    assert_eq!(client.run("ACL WHOAMI").text(), "hashed");
}

#[test]
fn the_default_user_with_a_password_may_everything() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = start(&[("server.password", "\"secret\"")]);
    let mut client = stack.connect();
    assert!(client.run("AUTH secret").is_ok());
    assert_eq!(client.run("ACL WHOAMI").text(), "default");
    assert!(client.run("FLUSHALL").is_ok());
    assert!(client.run("AUTH reader reader").is_ok());
    assert!(client.run("FLUSHALL").text().starts_with("NOPERM"));
    assert!(client.run("AUTH default secret").is_ok());
    assert!(client.run("TALLY FLUSH").is_ok());
    for line in ["CONFIG GET requirepass", "INFO", "TALLY STATS"] {
        assert!(
            !format!("{:?}", client.run(line)).contains("secret"),
            "{line}"
        );
    }
    assert!(!stack.tally.as_ref().unwrap().log().contains("secret"));
}

#[test]
fn scripts_and_what_tally_adds_are_checked_too() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = start(&[]);
    let check = |user: &str, request: &[&str], denied: Option<&str>| {
        let reply: Reply = log_in(stack.address(), user).call(request);
        match denied {
            None => assert!(!reply.is_error(), "{user} {request:?}: {reply:?}"),
            Some(what) => {
                let text = reply.text();
                assert!(text.starts_with("NOPERM"), "{user} {request:?}: {text}");
                assert!(text.contains(what), "{user} {request:?}: {text}");
            }
        }
    };
    let incr = "return redis.call('INCR', KEYS[1])";
    let keys = "one of the keys";
    check("scripts", &["EVAL", incr, "1", "a:s"], None);
    check("scripts", &["EVAL", incr, "1", "c"], Some(keys));
    check("app", &["EVAL", incr, "1", "a:s"], Some("'eval'"));
    check("app", &["SCRIPT", "LOAD", incr], Some("'script|load'"));
    check("scripts", &["SCRIPT", "LOAD", incr], None);
    check("scripts", &["SCRIPT", "FLUSH"], Some("'script|flush'"));
    check("boss", &["SCRIPT", "FLUSH"], None);
    check("app", &["TALLY", "WHERE", "a:1"], None);
    check("app", &["TALLY", "WHERE", "c"], Some(keys));
    for what in ["FLUSH", "STATS", "DEADLETTERS"] {
        let name = format!("'tally|{}'", what.to_ascii_lowercase());
        check("app", &["TALLY", what], Some(&name));
        check("boss", &["TALLY", what], None);
    }
    for request in [
        &["KEYS", "*"][..],
        &["SCAN", "0"],
        &["DBSIZE"],
        &["RANDOMKEY"],
    ] {
        let name = format!("'{}'", request[0].to_ascii_lowercase());
        check("app", request, Some(&name));
        check("reader", request, None);
    }
    check("boss", &["FLUSHALL"], None);
    check("reader", &["SET", "a:1", "x"], Some("'set'"));
    // A warm counter is guarded as a cold one.
    let mut boss = log_in(stack.address(), "boss");
    for _ in 0..20 {
        boss.run("INCR c");
    }
    check("app", &["INCR", "c"], Some(keys));
    check("app", &["GET", "c"], Some(keys));
    check("reader", &["INCR", "c"], Some("'incr'"));
    assert_eq!(boss.run("GET c").bytes(), b"20");
}

#[test]
fn limits_of_a_user_hold_over_all_its_connections() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = start(&[]);
    let _first = log_in(stack.address(), "few");
    let mut second = log_in(stack.address(), "few");
    let mut third = stack.connect();
    let full = "ERR max number of clients of this user reached";
    assert_eq!(third.run("AUTH few few").text(), full);
    assert_eq!(third.run("PING").text(), "NOAUTH Authentication required.");
    // Again as oneself is no further connection, as another gives it back.
    assert!(second.run("AUTH few few").is_ok());
    assert!(second.run("AUTH reader reader").is_ok());
    assert!(third.run("AUTH few few").is_ok());
    drop(third);
    let again = now();
    while stack.connect().run("AUTH few few").is_error() {
        assert!(
            again.elapsed().as_secs() < 10,
            "a connection that ended counts"
        );
        pause(std::time::Duration::from_millis(3));
    }

    let mut slow = log_in(stack.address(), "slow");
    let mut other = log_in(stack.address(), "slow");
    let replies: Vec<_> = (0..20)
        .map(|at| if at % 2 == 0 { &mut slow } else { &mut other }.run("PING"))
        .collect();
    let refused = replies.iter().filter(|reply| reply.is_error()).count();
    // Twenty commands meet at most a few seconds, even on a loaded machine.
    assert!(refused > 0, "{replies:?}");
    let text = "ERR this user has used up its commands of this second";
    assert!(
        replies
            .iter()
            .all(|reply| !reply.is_error() || reply.text() == text)
    );
    assert!(replies.iter().any(|reply| !reply.is_error()));
    pause(std::time::Duration::from_millis(1100));
    assert_eq!(slow.run("PING").text(), "PONG");
}

/// Argon2id of "slow-secret", made by the argon2 tool of Debian with the least costs.
const ARGON2: &str = "$argon2id$v=19$m=1024,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$hbpAbqUIdbDt+I4axji0g3FLBAIDxPKtprIzPSt2kbE";

#[test]
fn clients_are_closed_by_the_name_of_their_user() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = start(&[("server.password", r#""secret""#)]);
    let mut reader = log_in(stack.address(), "reader");
    let mut writer = log_in(stack.address(), "writer");
    let mut boss = log_in(stack.address(), "boss");
    let unknown = boss.run("CLIENT KILL USER nobody");
    assert_eq!(unknown.text(), "ERR No such user 'nobody'");
    assert_eq!(boss.run("CLIENT KILL USER hashed"), Reply::Integer(0));
    assert_eq!(boss.run("CLIENT KILL USER reader"), Reply::Integer(1));
    assert!(!reader.is_alive());
    assert!(writer.run("SET a:1 1").is_ok(), "another user");
    assert_eq!(boss.run("CLIENT KILL USER boss"), Reply::Integer(0));
    let own = boss.run("CLIENT KILL USER boss SKIPME no");
    assert_eq!(own, Reply::Integer(1));
}

#[test]
fn a_password_kept_as_argon2_lets_in_whoever_has_it_and_nobody_else() {
    if skipped_on_bare_redis() {
        return;
    }
    let users = format!(
        "[{{ name = \"app\", password_argon2 = \"{ARGON2}\", max_connections = 3 }}, {{ name = \
         \"fast\", password = \"fast\" }}]"
    );
    let stack = Stack::start(&[("users", &users)]);
    let mut client = stack.connect();
    let wrong = "WRONGPASS invalid username-password pair or user is disabled.";
    for (user, password) in [
        ("app", "other"),
        ("nobody", "slow-secret"),
        ("fast", "slow"),
    ] {
        assert_eq!(
            client.call(&["AUTH", user, password]).text(),
            wrong,
            "{user}"
        );
    }
    assert!(client.run("GET k").text().starts_with("NOAUTH"));
    // What is behind it in the pipeline meets a client that is let in.
    let replies = client.run_all(&[
        "AUTH app slow-secret".to_owned(),
        "SET k v".to_owned(),
        "GET k".to_owned(),
        "AUTH app other".to_owned(),
        "ACL WHOAMI".to_owned(),
    ]);
    assert!(replies[0].is_ok() && replies[1].is_ok(), "{replies:?}");
    assert_eq!(replies[2].bytes(), b"v");
    assert_eq!(replies[3].text(), wrong);
    assert_eq!(replies[4].text(), "app");
    // Once known to be right it is told at once, inside MULTI too; a wrong one is not.
    client.run("MULTI");
    client.run("AUTH app slow-secret");
    client.run("AUTH app other");
    let replies = client.run("EXEC");
    assert!(replies.elements()[0].is_ok(), "{replies:?}");
    assert!(
        replies.elements()[1].text().contains("inside MULTI"),
        "{replies:?}"
    );
    let mut second = stack.connect();
    let hello = second.run("HELLO 3 AUTH app other");
    assert_eq!(hello.text(), wrong);
    assert!(
        !second
            .run("HELLO 2 AUTH app slow-secret SETNAME two")
            .is_error()
    );
    assert_eq!(second.run("CLIENT GETNAME").text(), "two");
    let mut third = stack.connect();
    assert!(third.run("AUTH app slow-secret").is_ok());
    let many = stack.connect().run("AUTH app slow-secret").text();
    assert_eq!(many, "ERR max number of clients of this user reached");
    assert!(stack.connect().run("AUTH fast fast").is_ok());
}

#[test]
fn clients_are_served_while_passwords_are_checked() {
    if skipped_on_bare_redis() {
        return;
    }
    let users = format!("[{{ name = \"app\", password_argon2 = \"{ARGON2}\" }}]");
    let settings = [("users", users.as_str()), ("server.password", "\"p\"")];
    let stack = Stack::start(&settings);
    let mut served = stack.connect();
    assert!(served.run("AUTH p").is_ok());
    // More than wait their turn: the last are told so.
    let mut guests: Vec<_> = (0..100).map(|_| stack.connect()).collect();
    for guest in &mut guests {
        guest.send(&["AUTH", "app", "guess"]);
    }
    assert!(served.run("SET k v").is_ok());
    for guest in &mut guests {
        let answer = guest.read_reply().text();
        let is_busy = answer == "ERR too many passwords are being checked, try again";
        assert!(is_busy || answer.starts_with("WRONGPASS"), "{answer}");
    }
    assert!(stack.connect().run("AUTH app slow-secret").is_ok());
}
