//! The HTTP side: health, metrics, counters, the API.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Settings, Stack, eventually};
use crate::reply::Reply;
use crate::servers::{Redis, Tally};

/// An answer: status, headers in lower case, body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Sends one request on a connection of its own, with more header lines if given.
#[track_caller]
pub(crate) fn request(address: SocketAddr, line: &str, more: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let host = if more.contains("Host:") {
        String::new()
    } else {
        format!("Host: {address}\r\n")
    };
    let text = format!("{line} HTTP/1.1\r\n{host}{more}Connection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        headers: head.to_lowercase(),
        body: body.to_owned(),
    }
}

fn tally(stack: &Stack) -> &Tally {
    stack.tally.as_ref().unwrap()
}

#[track_caller]
fn get(stack: &Stack, path: &str) -> Answer {
    request(tally(stack).http_address(), &format!("GET {path}"), "")
}

#[track_caller]
fn post(stack: &Stack, path: &str) -> Answer {
    let more = "Content-Length: 0\r\n";
    request(tally(stack).http_address(), &format!("POST {path}"), more)
}

/// A stack of Tally and two nodes, whatever the target of the suite.
fn stack(settings: Settings<'_>) -> Stack {
    Stack::over(vec![Redis::start(&[]), Redis::start(&[])], settings)
}

#[test]
fn visits_are_counted_with_the_clients_of_redis() {
    for mode in ["\"buffered\"", "\"exact\"", "\"through\""] {
        let stack = stack(&[("counters.mode", mode)]);
        let mut client = stack.connect();
        for visit in 1..=5 {
            let answer = post(&stack, "/visit/home");
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(
                answer.body,
                r#"{"status":"success","message":"Visit recorded for page home"}"#
            );
            assert_eq!(client.run("INCR visits:home").integer(), 2 * visit);
            let count = get(&stack, "/visits/home").json();
            assert_eq!(count["count"], 2 * visit, "{mode}");
        }
        assert_eq!(client.run("SET visits:home 7").text(), "OK");
        assert_eq!(get(&stack, "/visits/home").json()["count"], 7, "{mode}");
        assert_eq!(post(&stack, "/visit/home").status, 200);
        assert_eq!(client.run("GET visits:home").text(), "8");
        assert_eq!(get(&stack, "/visits/nobody").json()["count"], 0);
    }
}

#[test]
fn a_count_says_what_it_was_served_from() {
    let stack = stack(&[]);
    stack.connect().run("SET visits:a 41");
    let first = get(&stack, "/visits/a").json();
    assert_eq!(first["count"], 41);
    let node = first["served_via"].as_str().unwrap();
    assert!(["redis_7070", "redis_7071"].contains(&node), "{node}");
    let warm = eventually(PATIENCE, || {
        get(&stack, "/visits/a").json()["served_via"] == "in_memory"
    });
    assert!(
        warm,
        "a count asked for again and again is served from memory"
    );
    assert_eq!(get(&stack, "/visits/a").json()["count"], 41);
}

#[test]
fn page_ids_are_decoded_and_bounded() {
    let stack = stack(&[("admin.visits_prefix", "\"v/\"")]);
    let mut client = stack.connect();
    let answer = post(&stack, "/visit/caf%C3%A9%2F%20x?utm=1");
    assert_eq!(answer.json()["message"], "Visit recorded for page café/ x");
    assert_eq!(client.call(&["GET", "v/café/ x"]).text(), "1");
    let long = "x".repeat(1025);
    for (line, status) in [
        ("POST /visit/", 404),
        ("POST /visit", 404),
        ("GET /visits/", 404),
        ("GET /visit/a", 405),
        ("POST /visits/a", 405),
        ("POST /visit/a%FF", 400),
        ("GET /visits/a%FF", 400),
        ("GET /api/v1/counters/a%FF", 400),
        ("GET /api/v1/counters?limit=x", 400),
        (&format!("POST /visit/{long}"), 400),
        (&format!("POST /visit/{}", &long[1..]), 200),
    ] {
        let more = "Content-Length: 0\r\n";
        let answer = request(tally(&stack).http_address(), line, more);
        assert_eq!(answer.status, status, "{line}: {}", answer.body);
        if status != 200 {
            assert_eq!(answer.json()["status"], "error", "{line}");
        }
    }
}

#[test]
fn what_is_no_count_is_a_conflict() {
    let stack = stack(&[]);
    let mut client = stack.connect();
    client.run("SET visits:text hello");
    client.run("RPUSH visits:list a");
    for page in ["text", "list"] {
        assert_eq!(get(&stack, &format!("/visits/{page}")).status, 409);
        let answer = post(&stack, &format!("/visit/{page}"));
        assert_eq!(answer.status, 409);
        assert_eq!(answer.json()["status"], "error");
    }
}

#[test]
fn a_node_that_is_away_is_told_everywhere() {
    let mut stack = stack(&[]);
    let page = |index: usize, stack: &Stack| {
        let key = stack.key_on(index, "visits:p");
        key.trim_start_matches("visits:").to_owned()
    };
    let (here, away) = (page(0, &stack), page(1, &stack));
    assert_eq!(
        get(&stack, "/readyz").json()["reasons"],
        serde_json::json!([])
    );
    stack.nodes[1].kill();
    let told = eventually(PATIENCE, || {
        let answer = post(&stack, &format!("/visit/{away}"));
        assert!(
            answer.status == 503 || answer.status == 200,
            "{}",
            answer.body
        );
        answer.status == 503 && answer.body.contains("redis_7071")
    });
    assert!(told, "the error names the node");
    assert_eq!(get(&stack, &format!("/visits/{away}")).status, 503);
    assert_eq!(post(&stack, &format!("/visit/{here}")).status, 200);
    assert_eq!(get(&stack, "/healthz").status, 200);
    let ready = get(&stack, "/readyz");
    assert_eq!(ready.status, 200, "one node of two still serves");
    let ready = ready.json();
    assert_eq!(
        (&ready["nodes_up"], &ready["nodes"]),
        (&1.into(), &2.into())
    );
    assert!(ready["reasons"][0].as_str().unwrap().contains("redis_7071"));
    let metrics = get(&stack, "/metrics").body;
    assert!(metrics.contains("tally_node_up{node=\"redis_7071\"} 0\n"));
    assert!(metrics.contains("tally_node_up{node=\"redis_7070\"} 1\n"));
    let listed = eventually(PATIENCE, || {
        let nodes = get(&stack, "/api/v1/nodes").json();
        nodes[1]["up"] == false && nodes[1]["reason"].is_string() && nodes[0]["up"] == true
    });
    assert!(listed);
    stack.nodes[0].kill();
    let unready = eventually(PATIENCE, || get(&stack, "/readyz").status == 503);
    assert!(unready, "no node serves");
    assert_eq!(get(&stack, "/healthz").status, 200);
    stack.nodes[0].restart();
    stack.nodes[1].restart();
    let back = eventually(PATIENCE, || {
        post(&stack, &format!("/visit/{away}")).status == 200
            && get(&stack, "/readyz").json()["reasons"] == serde_json::json!([])
    });
    assert!(back);
}

#[test]
fn metrics_and_info_tell_the_same() {
    let stack = stack(&[]);
    let mut client = stack.connect();
    for _ in 0..20 {
        client.run("INCR a");
        client.run("GET a");
    }
    client.run("NOSUCH");
    post(&stack, "/visit/a");
    let info = client.run("INFO stats").text();
    // Whoever does not ask for OpenMetrics gets the older format, which every tool can read.
    let classic = get(&stack, "/metrics");
    assert!(
        classic
            .headers
            .contains("content-type: text/plain; version=0.0.4")
    );
    assert!(
        classic
            .body
            .contains("# TYPE tally_commands_total counter\n")
    );
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let metrics = request(tally(&stack).http_address(), "GET /metrics", accept);
    assert!(
        metrics
            .headers
            .contains("content-type: application/openmetrics-text; version=1.0.0")
    );
    let metrics = metrics.body;
    assert!(metrics.ends_with("# EOF\n"));
    let value = |name: &str| {
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name} is missing:\n{metrics}"))
            .parse::<u64>()
            .unwrap()
    };
    for (field, metric) in [
        ("keyspace_hits", "tally_keyspace_hits_total"),
        ("keyspace_misses", "tally_keyspace_misses_total"),
        (
            "total_connections_received",
            "tally_connections_received_total",
        ),
    ] {
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{field}:")));
        let told: u64 = line.unwrap().trim().parse().unwrap();
        assert_eq!(value(metric), told, "{metric}");
    }
    assert_eq!(value("tally_commands_total{cmd=\"incr\"}"), 21);
    assert_eq!(value("tally_commands_total{cmd=\"get\"}"), 20);
    assert_eq!(value("tally_increments_received_total"), 21);
    let each = metrics
        .lines()
        .filter(|line| line.starts_with("tally_commands_total{"));
    let all: u64 = each
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum();
    // NOSUCH is processed, and no command of the table.
    assert_eq!(value("tally_commands_processed_total"), all + 1);
    let answers = metrics.lines().find_map(|line| {
        line.strip_prefix("tally_node_reply_duration_seconds_count{node=\"redis_7070\"} ")
    });
    assert!(answers.unwrap().parse::<u64>().unwrap() > 0);
}

#[test]
fn the_api_knows_counters_of_all_databases() {
    let stack = stack(&[]);
    let mut client = stack.connect();
    for (database, amount) in [(0, 5), (3, 70)] {
        assert!(client.run(&format!("SELECT {database}")).is_ok());
        client.run(&format!("INCRBY page {amount}"));
    }
    let mut got = Value::Null;
    let found = eventually(PATIENCE, || {
        got = get(&stack, "/api/v1/counters").json();
        let counters = got["counters"].as_array().unwrap().iter();
        let pairs = counters.map(|c| (c["database"].as_u64(), c["value"].as_i64()));
        pairs.eq([(Some(3), Some(70)), (Some(0), Some(5))])
    });
    assert!(found, "{got}");
    for (database, value) in [("", 5), ("?database=3", 70)] {
        let one = get(&stack, &format!("/api/v1/counters/page{database}")).json();
        assert_eq!(one["value"], value);
    }
    let other = |number: u32| get(&stack, &format!("/api/v1/counters/page?database={number}"));
    assert_eq!([other(15).status, other(16).status], [404, 400]);
}

#[test]
fn the_api_knows_counters_however_slow() {
    for mode in ["\"buffered\"", "\"exact\"", "\"through\""] {
        let stack = stack(&[("counters.mode", mode)]);
        let mut client = stack.connect();
        assert_eq!(client.run("INCRBY page:a 5").integer(), 5);
        assert_eq!(client.run("INCRBY page:b 70").integer(), 70);
        let listed = |query: &str, want: &[(&str, i64)]| {
            let path = format!("/api/v1/counters?{query}");
            let mut got = Value::Null;
            let found = eventually(PATIENCE, || {
                got = get(&stack, &path).json();
                let counters = got["counters"].as_array().unwrap().iter();
                let pairs = counters.map(|c| (c["key"].as_str().unwrap(), c["value"].as_i64()));
                pairs.eq(want.iter().map(|(key, value)| (*key, Some(*value))))
            });
            assert!(found, "{mode} {query}: {got}");
        };
        listed("sort=value", &[("page:b", 70), ("page:a", 5)]);
        listed("sort=key", &[("page:a", 5), ("page:b", 70)]);
        listed("sort=key&limit=1", &[("page:a", 5)]);
        listed("q=E:B", &[("page:b", 70)]);
        listed("prefix=page:a", &[("page:a", 5)]);
        listed("prefix=a", &[]);
        client.run("INCRBY page:a 1");
        listed("prefix=page:a", &[("page:a", 6)]);
        let one = get(&stack, "/api/v1/counters/page:a").json();
        assert_eq!((&one["value"], &one["ttl_ms"]), (&6.into(), &Value::Null));
        client.run("EXPIRE page:a 100");
        let ttl = get(&stack, "/api/v1/counters/page:a").json()["ttl_ms"].as_i64();
        assert!((90_000..=100_000).contains(&ttl.unwrap()), "{ttl:?}");
        assert_eq!(get(&stack, "/api/v1/counters/nobody").status, 404);
        assert_eq!(get(&stack, "/api/v1/counters?sort=luck").status, 400);
        assert_eq!(get(&stack, "/api/v1/series?step=2").status, 400);
        assert!(get(&stack, "/api/v1/series").json()["points"][0][0].is_u64());
        assert_eq!(get(&stack, "/api/v1/summary").json()["nodes_up"], 2);
    }
}

#[test]
fn the_stream_sends_an_event_a_second() {
    let stack = stack(&[]);
    let mut stream = TcpStream::connect(tally(&stack).http_address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while text.matches("data: {\"summary\"").count() < 3 {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(
        text.to_lowercase()
            .contains("content-type: text/event-stream")
    );
}

#[test]
fn the_page_forbids_everything_from_outside() {
    let stack = stack(&[]);
    let page = get(&stack, "/");
    assert_eq!(page.status, 200);
    for header in [
        "content-security-policy: default-src 'none'",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "content-type: text/html; charset=utf-8",
    ] {
        assert!(page.headers.contains(header), "{header}:\n{}", page.headers);
    }
}

#[test]
fn a_token_guards_changes_and_names_from_outside_are_refused() {
    let open = stack(&[]);
    let evil = "Host: evil.example\r\n";
    let address = tally(&open).http_address();
    assert_eq!(request(address, "GET /api/v1/summary", evil).status, 403);
    let guarded = stack(&[("admin.token", "\"hunter2\"")]);
    let address = tally(&guarded).http_address();
    assert_eq!(request(address, "POST /visit/a", "").status, 401);
    let right = "Authorization: Bearer hunter2\r\n";
    assert_eq!(request(address, "POST /visit/a", right).status, 200);
    assert_eq!(get(&guarded, "/visits/a").json()["count"], 1);
    assert_eq!(request(address, "GET /visits/a", evil).status, 401);
}

#[test]
fn visits_acknowledged_before_a_stop_are_flushed() {
    let mut stack = stack(&[("counters.flush_interval", "\"1m\"")]);
    for _ in 0..10 {
        assert_eq!(post(&stack, "/visit/home").status, 200);
    }
    stack.stop_tally();
    let values = stack
        .nodes
        .iter()
        .map(|node| node.connect().run("GET visits:home"));
    let known: Vec<_> = values.filter(|value| *value != Reply::Nil).collect();
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].text(), "10");
}

#[test]
fn a_taken_port_is_an_error_at_the_start() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("\"{}\"", other.local_addr().unwrap());
    let node = Redis::start(&[]);
    let mut tally = Tally::launch(&[(node.address(), None)], &[("admin.listen", &taken)]);
    let status = tally.wait(PATIENCE).expect("an end");
    assert_eq!(status.code(), Some(1));
    let log = tally.log();
    assert!(
        log.contains(taken.trim_matches('"')) && log.contains("in use"),
        "{log}"
    );
}

#[test]
fn without_an_address_there_is_no_http() {
    let stack = stack(&[("admin.listen", "\"off\"")]);
    assert_eq!(stack.connect().run("INCR a").integer(), 1);
    assert!(TcpStream::connect(tally(&stack).http_address()).is_err());
}

/// Longest wait for anything here, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(15);

#[test]
fn calls_of_limit_scripts_and_hot_keys_are_shown() {
    let stack = stack(&[]);
    let mut client = stack.connect();
    let call = ["EVAL", tally::limit::CANONICAL, "1", "limit:login", "5"];
    for _ in 0..40 {
        client.call(&call);
    }
    client.run_all(&vec!["INCR page"; 100]);
    let mut limits = Value::Null;
    let shown = eventually(Duration::from_secs(5), || {
        limits = get(&stack, "/api/v1/limits").json();
        limits["keys"][0]["count"] == 5
    });
    assert!(shown, "{limits}");
    let key = &limits["keys"][0];
    assert_eq!(
        (&key["key"], &key["limit"]),
        (&"limit:login".into(), &5.into())
    );
    // The first call is forwarded, as a node would have to know the script.
    assert_eq!(limits["calls"], 39);
    assert!(limits["denied"].as_u64() > Some(20), "{limits}");
    assert!(limits["requests"].as_u64() < Some(15), "{limits}");
    let hot = get(&stack, "/api/v1/hotkeys?n=1").json();
    assert_eq!(hot["writes"][0]["key"], "page", "{hot}");
    assert_eq!(hot["writes"].as_array().unwrap().len(), 1);
    assert_eq!(get(&stack, "/api/v1/hotkeys?m=1").status, 400);
    assert!(get(&stack, "/api/v1/slowlog").json().is_array());
}

#[test]
fn the_oldest_pending_increment_is_of_the_last_flushes() {
    let stack = stack(&[("counters.flush_interval", "\"50ms\"")]);
    let mut client = stack.connect();
    let (mut age, mut uptime) = (0.0, 0.0);
    let seen = eventually(Duration::from_secs(20), || {
        client.run_all(&vec!["INCR k"; 50]);
        let text = get(&stack, "/metrics").body;
        let value = |name: &str| {
            let mut lines = text.lines();
            let line = lines.find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse::<f64>().unwrap()
        };
        age = value("tally_oldest_pending_seconds ");
        uptime = value("tally_uptime_in_seconds ");
        uptime > 3.0 && age > 0.0 && age < 1.0
    });
    assert!(seen, "{age} of {uptime} s");
}
