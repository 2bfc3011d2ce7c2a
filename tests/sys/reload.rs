//! The configuration is changed while clients are served.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::connection::Connection;
use crate::harness::{eventually, skipped_on_bare_redis};
use crate::http;
use crate::servers::{Redis, Tally, free_port, loopback};
use crate::tls::{Authority, cli, printed};

/// Changes the file and has it read. Returns what the log says of it.
#[track_caller]
fn change(tally: &Tally, from: &str, to: &str) -> String {
    let file = tally.file();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from:?} is not in:\n{text}");
    fs::write(&file, text.replace(from, to)).unwrap();
    reload(tally)
}

#[track_caller]
fn reload(tally: &Tally) -> String {
    let before = tally.log().len();
    tally.signal("HUP");
    // Up to the line's end: what is logged behind it may not be there yet.
    let mut said = None;
    let is_told = || {
        let log = tally.log()[before..].to_owned();
        let ends = ["was read again", "was refused"].map(|end| log.find(end));
        let line = ends.into_iter().flatten().min();
        let end = line.and_then(|at| Some(at + log[at..].find('\n')?));
        said = end.map(|end| log[..end].to_owned());
        said.is_some()
    };
    assert!(eventually(PATIENCE, is_told), "{}", tally.log());
    said.unwrap_or_default()
}

#[track_caller]
fn start(node: SocketAddr, settings: &[(&str, &str)]) -> Tally {
    Tally::start_before(&[(node, None)], settings)
}

#[test]
fn what_can_change_does_and_the_rest_is_named() {
    if skipped_on_bare_redis() {
        return;
    }
    let node = Redis::start(&[]);
    let settings = [
        ("server.max_clients", "100"),
        ("server.threads", "1"),
        ("log.level", "\"info\""),
    ];
    let tally = start(node.address(), &settings);
    let mut client = Connection::open(tally.address());
    assert!(client.run("SET k v").is_ok());
    let said = change(&tally, "max_clients = 100", "max_clients = 2");
    assert!(said.contains("server.max_clients"), "{said}");
    assert_eq!(
        client.run("CONFIG GET maxclients").elements()[1].text(),
        "2"
    );
    let second = Connection::open(tally.address());
    let mut third = Connection::open(tally.address());
    let full = third.try_read_frame().unwrap();
    assert_eq!(full, b"-ERR max number of clients reached\r\n");
    drop(second);

    let said = change(&tally, "threads = 1", "threads = 2");
    assert!(
        said.contains("need a restart keys=\"server.threads\""),
        "{said}"
    );
    assert_eq!(
        client.run("CONFIG GET io-threads").elements()[1].text(),
        "1"
    );

    let said = change(&tally, "level = \"info\"", "level = \"error\"");
    assert!(!said.contains("ERROR"), "{said}");
    let said = change_quietly(&tally, "max_clients = 2", "max_clients = zwei");
    assert!(said.contains("ERROR"), "{said}");
    assert!(
        said.contains("max_clients") || said.contains("line"),
        "{said}"
    );
    assert_eq!(
        client.run("CONFIG GET maxclients").elements()[1].text(),
        "2"
    );
    assert_eq!(client.run("GET k").bytes(), b"v");
}

/// As [`change`], where nothing below an error is logged.
#[track_caller]
fn change_quietly(tally: &Tally, from: &str, to: &str) -> String {
    let said = change(tally, from, to);
    assert!(!said.contains("INFO"), "{said}");
    said
}

#[test]
fn users_come_change_and_go() {
    if skipped_on_bare_redis() {
        return;
    }
    let node = Redis::start(&[]);
    let users = "[{ name = \"app\", password = \"one\" }, { name = \"old\", password = \"old\" }]";
    let tally = start(node.address(), &[("users", users)]);
    let open = || Connection::open(tally.address());
    let (mut app, mut old) = (open(), open());
    assert!(app.run("AUTH app one").is_ok());
    assert!(old.run("AUTH old old").is_ok());
    assert!(app.run("SET a 1").is_ok());
    let said = change(
        &tally,
        users,
        "[{ name = \"app\", password = \"two\", allow = [\"read\"] }, { name = \"new\", password = \"new\" }]",
    );
    for key in ["users.allow", "users.name", "users.password"] {
        assert!(said.contains(key), "{key}: {said}");
    }
    // Who is in stays in, and may do what it may now.
    assert_eq!(app.run("GET a").bytes(), b"1");
    assert!(app.run("SET a 2").text().starts_with("NOPERM"));
    assert!(open().run("AUTH app one").text().starts_with("WRONGPASS"));
    assert!(open().run("AUTH app two").is_ok());
    assert!(open().run("AUTH new new").is_ok());
    assert!(open().run("AUTH old old").text().starts_with("WRONGPASS"));
    assert!(eventually(PATIENCE, || old.try_call(&["PING"]).is_err()));
}

#[test]
fn an_open_address_keeps_its_password() {
    if skipped_on_bare_redis() {
        return;
    }
    let node = Redis::start(&[]);
    let listen = format!("\"0.0.0.0:{}\"", free_port());
    let tally = Tally::launch(
        &[(node.address(), None)],
        &[("server.listen", &listen), ("server.password", "\"p\"")],
    );
    assert!(eventually(PATIENCE, || tally.log().contains("listens on")));
    let port = listen.trim_matches('"').rsplit(':').next().unwrap();
    let address = loopback(port.parse().unwrap());
    let file = tally.file();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replace("0.0.0.0", "127.0.0.1")
            .replace("password = \"p\"", ""),
    )
    .unwrap();
    let said = reload(&tally);
    assert!(
        said.contains("lets other machines in without a password"),
        "{said}"
    );
    let mut client = Connection::open(address);
    assert!(client.run("PING").text().starts_with("NOAUTH"));
    assert!(client.run("AUTH p").is_ok());
}

#[test]
fn new_certificates_are_shown_to_those_who_come() {
    if skipped_on_bare_redis() {
        return;
    }
    let (old, new) = (Authority::new(), Authority::new());
    old.sign("server", "IP:127.0.0.1", 2);
    new.sign("server", "IP:127.0.0.1", 2);
    let node = Redis::start(&[]);
    let address = loopback(free_port());
    let (listen, cert, key) = (
        format!("\"{address}\""),
        old.toml("server.crt"),
        old.toml("server.key"),
    );
    let tally = start(
        node.address(),
        &[
            ("tls.listen", &listen),
            ("tls.cert_file", &cert),
            ("tls.key_file", &key),
        ],
    );
    let ping = |authority: &Authority| {
        let ca = authority.file("ca.crt");
        printed(&cli(address, &["--cacert", ca.to_str().unwrap(), "PING"]))
    };
    assert_eq!(ping(&old), "PONG");
    assert_ne!(ping(&new), "PONG");
    // A key that does not fit is refused, and the old pair goes on.
    fs::copy(new.file("server.crt"), old.file("server.crt")).unwrap();
    let said = reload(&tally);
    assert!(said.contains("tls.key_file"), "{said}");
    assert_eq!(ping(&old), "PONG");
    fs::copy(new.file("server.key"), old.file("server.key")).unwrap();
    let said = reload(&tally);
    assert!(said.contains("certificates"), "{said}");
    assert_eq!(ping(&new), "PONG");
    assert_ne!(ping(&old), "PONG");
}

#[test]
fn a_node_moves_and_no_count_is_lost() {
    if skipped_on_bare_redis() {
        return;
    }
    let first = Redis::start_durable();
    let second = Redis::start_durable();
    let tally = start(first.address(), &[("server.max_clients", "100")]);
    let stop = AtomicBool::new(false);
    let (stop, address) = (&stop, tally.address());
    let counted: i64 = std::thread::scope(|scope| {
        let count = || {
            let mut client = Connection::open(address);
            let mut counted = 0;
            while !stop.load(Ordering::Relaxed) {
                assert!(!client.run("INCR warm").is_error());
                counted += 1;
            }
            counted
        };
        let threads = [scope.spawn(count), scope.spawn(count)];
        for limit in 0..20 {
            change(
                &tally,
                &format!("max_clients = {}", 100 + limit),
                &format!("max_clients = {}", 101 + limit),
            );
        }
        stop.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    let mut client = Connection::open(address);
    assert!(client.run("TALLY FLUSH").is_ok());
    assert_eq!(first.connect().run("GET warm").text(), counted.to_string());

    // The second takes over as a replica that was promoted.
    let (host, port) = (
        first.address().ip().to_string(),
        first.address().port().to_string(),
    );
    assert!(second.connect().call(&["REPLICAOF", &host, &port]).is_ok());
    let copied = || {
        let mut copy = second.connect();
        let is_there = copy.run("EXISTS warm").integer() == 1;
        is_there && copy.run("GET warm").text() == counted.to_string()
    };
    assert!(eventually(PATIENCE, copied));
    assert!(second.connect().run("REPLICAOF NO ONE").is_ok());
    let said = change(
        &tally,
        &first.address().to_string(),
        &second.address().to_string(),
    );
    assert!(said.contains("nodes.address"), "{said}");
    assert!(eventually(PATIENCE, || {
        let info = client.run("INFO nodes").text();
        info.contains(&second.address().to_string()) && info.contains("state=connected")
    }));
    assert_eq!(client.run("INCR warm").integer(), counted + 1);
    assert!(client.run("TALLY FLUSH").is_ok());
    let got = second.connect().run("GET warm").text();
    assert_eq!(got, (counted + 1).to_string());
    assert_eq!(first.connect().run("GET warm").text(), counted.to_string());
}

#[test]
fn the_http_side_reloads_with_a_token_only() {
    if skipped_on_bare_redis() {
        return;
    }
    let node = Redis::start(&[]);
    let tally = start(node.address(), &[]);
    let post = |headers: &str| {
        let more = format!("{headers}Content-Length: 0\r\n");
        let answer = http::request(tally.http_address(), "POST /api/v1/reload", &more);
        (answer.status, answer.body)
    };
    assert_eq!(post("").0, 403);
    let listen = "[admin]\n";
    change(&tally, listen, "[admin]\ntoken = \"secret\"\n");
    assert_eq!(post("").0, 401);
    let (status, body) = post("Authorization: Bearer secret\r\n");
    assert_eq!(
        (status, body.as_str()),
        (
            200,
            "{\"status\":\"success\",\"applied\":[],\"needs_restart\":[],\"waiting\":[]}"
        )
    );
    let text = fs::read_to_string(tally.file()).unwrap();
    fs::write(
        tally.file(),
        text.replace("[admin]\n", "[admin]\nnonsense = 1\n"),
    )
    .unwrap();
    let (status, body) = post("Authorization: Bearer secret\r\n");
    assert_eq!(status, 422);
    assert!(body.contains("admin.nonsense: unknown key"), "{body}");
    assert!(!body.contains("secret") && !tally.log().contains("secret"));
}

/// Longest wait for what a signal brings.
const PATIENCE: Duration = Duration::from_secs(15);
