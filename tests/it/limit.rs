//! N calls as one do what N calls one after the other do: the same replies, the same key after.
//!
//! Each script runs as it is on one key and combined on another, from random states. The bodies
//! are written here anew, with the meaning of those of the libraries; `library_bodies` adds those
//! of the libraries where they are installed (`scripts/install.sh clients`).

mod scripts;

use std::path::Path;
use std::process::Command;

use tally::flush::Deadline;
use tally::limit::{
    Answers, Bundle, CANONICAL, CANONICAL_WITH_TTL, Call, Catalogue, Combined, Definition, Dialect,
    Kind, MAX_BUNDLE, Part, Parts, Rule, Settlement, Source,
};
use tally::resp::{parse_i64, reply};

use self::scripts::{Script, own_scripts};
use crate::random::Random;
use crate::redis_server::{Client, RedisServer, with_request};

#[test]
fn combined_calls_do_what_the_calls_one_by_one_do() {
    let (scripts, catalogue) = scripts_and_catalogue();
    let seed = Random::seed_or(20_261_121);
    let mut pair = Pair::start();
    for script in &scripts {
        let mut random = Random::new(seed);
        for round in 0..ROUNDS {
            let args = script.args.make(&mut random);
            let what = format!("{}, seed {seed}, round {round}", script.name);
            pair.check(
                &catalogue,
                script.body.as_bytes(),
                &args,
                &mut random,
                &what,
            );
        }
    }
    // Both outcomes were seen.
    assert!(pair.answered > 1000 && pair.alone > 100, "{pair:?}");
}

#[test]
fn the_calls_of_a_bundle_do_what_each_own_script_does() {
    let (scripts, catalogue) = scripts_and_catalogue();
    let seed = Random::seed_or(20_261_123);
    let mut pair = Pair::start();
    let mut bundled = 0;
    for script in &scripts {
        let mut random = Random::new(seed);
        for round in 0..ROUNDS / 10 {
            let args = script.args.make(&mut random);
            let what = format!("{}, seed {seed}, round {round}", script.name);
            let call = read_call(&catalogue, script.body.as_bytes(), &args);
            if !Bundle::new(call).is_full() {
                bundled += 1;
                let script = (script.body.as_bytes(), args.as_slice());
                pair.check_bundle(&catalogue, script, &mut random, &what);
            }
        }
    }
    // All but the one that only reads.
    assert_eq!(bundled, (scripts.len() - 1) * (ROUNDS / 10));
    assert!(pair.answered > 500 && pair.alone > 100, "{pair:?}");
}

#[test]
fn the_scripts_of_installed_libraries_are_recognised_and_combined() {
    let catalogue = Catalogue::new([]).unwrap();
    let seed = Random::seed_or(20_261_122);
    let mut pair = Pair::start();
    for (name, body) in library_bodies() {
        let script = catalogue.recognise_body(&body);
        let script = script.unwrap_or_else(|| panic!("{name} is not recognised"));
        let mut tests = own_scripts().into_iter();
        let args = tests.find(|test| test.name == script.name()).unwrap().args;
        // The exact body is known, not just its normal form.
        let digest = pair.client.call(&[b"SCRIPT".as_slice(), b"LOAD", &body]);
        let sha = reply::text(&digest).unwrap().to_vec();
        assert_eq!(catalogue.recognise_sha(&sha), Some(script), "{name}");
        let reformatted = [b"-- \n ".as_slice(), &body, b"\n"].concat();
        assert_eq!(
            catalogue.recognise_body(&reformatted),
            Some(script),
            "{name}"
        );
        let mut random = Random::new(seed);
        for round in 0..ROUNDS {
            let args = args.make(&mut random);
            let what = format!("{name}, seed {seed}, round {round}");
            pair.check(&catalogue, &body, &args, &mut random, &what);
        }
    }
}

#[test]
fn a_node_that_does_not_know_the_script_says_so() {
    let mut pair = Pair::start();
    let catalogue = Catalogue::new([]).unwrap();
    let combined = Combined::new(read_call(
        &catalogue,
        CANONICAL.as_bytes(),
        &["5".to_owned()],
    ));
    let mut settled = Vec::new();
    for dialect in [Dialect::Sha, Dialect::Body, Dialect::Sha] {
        let mut wire = Vec::new();
        combined.encode(dialect, &mut wire);
        settled.push(combined.settle(&pair.client.send(&wire)).unwrap());
    }
    assert_eq!(settled[0], Settlement::Unknown);
    let value = |settlement: &Settlement| match settlement {
        Settlement::Answered(answers) => answers.value(),
        other => panic!("{other:?}"),
    };
    assert_eq!((value(&settled[1]), value(&settled[2])), (Some(1), Some(2)));
}

#[test]
fn a_node_out_of_memory_writes_nothing_and_counts_nothing() {
    let mut pair = Pair::start();
    let client = &mut pair.client;
    client.call(&["SET", COMBINED, "3"]);
    client.call(&["CONFIG", "SET", "maxmemory", "1"]);
    let catalogue = Catalogue::new([]).unwrap();
    for body in [CANONICAL, CANONICAL_WITH_TTL] {
        let args = ["5".to_owned(), "10".to_owned()];
        let combined = Combined::new(read_call(&catalogue, body.as_bytes(), &args));
        let mut wire = Vec::new();
        combined.encode(Dialect::Body, &mut wire);
        let settled = combined.settle(&client.send(&wire)).unwrap();
        assert_eq!(settled, Settlement::Alone);
        let bundle = Bundle::new(combined.call().clone());
        let mut wire = Vec::new();
        bundle.encode(Dialect::Body, &mut wire);
        let settled = bundle.settle(&client.send(&wire)).unwrap();
        assert_eq!(settled, Parts::Each(vec![Part::Alone]));
    }
    assert_eq!(client.call(&["GET", COMBINED]), b"$1\r\n3\r\n");
}

/// After an answer the node reports the next change by somebody else, although the answer came
/// from a script that wrote.
#[test]
fn an_answer_arms_tracking() {
    let mut pair = Pair::start();
    let catalogue = Catalogue::new([]).unwrap();
    let mut other = pair.server.connect();
    pair.client.call(&["CLIENT", "TRACKING", "ON", "NOLOOP"]);
    for (body, args) in [
        (CANONICAL, ["5".to_owned(), String::new()]),
        (CANONICAL, ["1".to_owned(), String::new()]),
        (CANONICAL_WITH_TTL, ["5".to_owned(), "10".to_owned()]),
    ] {
        let combined = Combined::new(read_call(&catalogue, body.as_bytes(), &args));
        let mut wire = Vec::new();
        combined.encode(Dialect::Body, &mut wire);
        let settled = combined.settle(&pair.client.send(&wire)).unwrap();
        assert!(matches!(settled, Settlement::Answered(_)), "{settled:?}");
        other.call(&["INCR", COMBINED]);
        let push = pair.client.read_frame();
        assert!(reply::is_push(&push), "{}", push.escape_ascii());
    }
}

/// Every script of the tests, known.
fn scripts_and_catalogue() -> (Vec<Script>, Catalogue) {
    let scripts = own_scripts();
    let definitions = scripts.iter().map(|script| Definition {
        name: script.name.to_owned(),
        source: Source::Body(script.body.to_owned()),
        kind: script.kind,
    });
    let catalogue = Catalogue::new(definitions).unwrap();
    (scripts, catalogue)
}

/// One server, one key for the calls one by one and one for the combined call.
#[derive(Debug)]
struct Pair {
    server: RedisServer,
    client: Client,
    answered: usize,
    alone: usize,
}

impl Pair {
    fn start() -> Self {
        let server = RedisServer::start();
        let mut client = server.connect();
        client.call(&["HELLO", "3"]);
        Self {
            server,
            client,
            answered: 0,
            alone: 0,
        }
    }

    #[track_caller]
    fn check(
        &mut self,
        catalogue: &Catalogue,
        body: &[u8],
        args: &[String],
        random: &mut Random,
        what: &str,
    ) {
        let start = Start::random(random, args);
        let calls = 1 + random.below(40);
        let what = format!("{what}: {calls} calls {args:?} from {start:?}");
        for key in [ONE_BY_ONE, COMBINED] {
            start.set(&mut self.client, key);
        }
        let untouched = self.client.call(&["DUMP", COMBINED]);

        let one = eval(body, ONE_BY_ONE, args);
        let requests: Vec<&[Vec<u8>]> = (0..calls).map(|_| one.as_slice()).collect();
        let expected = self.client.pipeline(&requests);

        let call = read_call(catalogue, body, args);
        let reads = call.is_read();
        let mut combined = Combined::new(call.clone());
        for _ in 1..calls {
            assert!(combined.join(&call), "{what}");
        }
        let mut wire = Vec::new();
        combined.encode(Dialect::Body, &mut wire);
        let reply = self.client.send(&wire);
        let settled = combined.settle(&reply);
        let kind = catalogue.recognise_body(body).unwrap().kind();
        let restarts = matches!(
            kind,
            Kind::Increment { ttl: Some(ttl), .. } if ttl.rule == Rule::Restart
        );
        match settled {
            Ok(Settlement::Answered(answers)) => {
                assert!(!start.is_odd(reads, restarts), "{what}");
                self.answered += 1;
                let replies: Vec<_> = answers.replies().collect();
                assert_eq!(replies.len(), expected.len(), "{what}");
                for (reply, expected) in replies.iter().zip(&expected) {
                    check_reply(reply, expected, &what);
                }
                self.check_state(&answers, &what);
                let written = self.client.call(&["DUMP", COMBINED]) != untouched;
                assert!(answers.wrote() || !written, "{what}");
                let denied = call.limit().is_some() && !answers.wrote();
                assert_eq!(answers.denial().is_some(), denied, "{what}");
            }
            Ok(Settlement::Alone) => {
                assert!(start.is_odd(reads, restarts), "{what}");
                self.alone += 1;
                assert_eq!(self.client.call(&["DUMP", COMBINED]), untouched, "{what}");
            }
            other => panic!("{what}: {other:?} for {}", reply.escape_ascii()),
        }
    }

    /// The script runs as it is on each of some keys, and on as many others as a bundle.
    #[track_caller]
    fn check_bundle(
        &mut self,
        catalogue: &Catalogue,
        (body, args): (&[u8], &[String]),
        random: &mut Random,
        what: &str,
    ) {
        let call = |key: &str| read_call_of(catalogue, body, key, args);
        let mut bundle = Bundle::new(call("bundled 0"));
        let keys = 1 + random.below(MAX_BUNDLE);
        let mut expected = Vec::new();
        let mut untouched = Vec::new();
        for index in 0..keys {
            let (own, bundled) = (format!("own {index}"), format!("bundled {index}"));
            let start = Start::random(random, args);
            start.set(&mut self.client, &own);
            start.set(&mut self.client, &bundled);
            untouched.push(self.client.call(&["DUMP", &bundled]));
            expected.push(
                self.client
                    .pipeline(&[eval(body, &own, args).as_slice()])
                    .remove(0),
            );
            assert!(index == 0 || bundle.join(&call(&bundled)), "{what}");
        }
        let mut wire = Vec::new();
        bundle.encode(Dialect::Body, &mut wire);
        let parts = match bundle.settle(&self.client.send(&wire)) {
            Ok(Parts::Each(parts)) => parts,
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(parts.len(), keys, "{what}");
        for (index, (part, expected)) in parts.into_iter().zip(&expected).enumerate() {
            let (own, bundled) = (format!("own {index}"), format!("bundled {index}"));
            let what = format!("{what}: {args:?}, key {index}");
            match part {
                Part::Answered(reply) => {
                    self.answered += 1;
                    check_reply(&reply, expected, &what);
                    let mut state = |key: &str| {
                        let replies = self.client.pipeline(&[&["GET", key], &["PTTL", key]]);
                        (replies[0].clone(), reply::integer(&replies[1]).unwrap())
                    };
                    let (own, bundled) = (state(&own), state(&bundled));
                    assert_eq!(bundled.0, own.0, "{what}");
                    assert!(is_near(bundled.1, own.1), "{what}: {own:?} {bundled:?}");
                }
                Part::Alone => {
                    self.alone += 1;
                    // Where there is no key, and a limit that nothing is below, it might have said
                    // so at once.
                    let denied = bundle.is_denial(expected);
                    assert!(reply::is_error(expected) || denied, "{what}");
                    let now = self.client.call(&["DUMP", &bundled]);
                    assert_eq!(now, untouched[index], "{what}");
                }
            }
        }
    }

    /// Both keys hold the same, and the answers know what.
    #[track_caller]
    fn check_state(&mut self, answers: &Answers, what: &str) {
        let mut state = |key: &str| {
            let requests: [&[&str]; 2] = [&["GET", key], &["PTTL", key]];
            let replies = self.client.pipeline(&requests);
            let ttl = reply::integer(&replies[1]).unwrap();
            (replies[0].clone(), ttl)
        };
        let (expected, actual) = (state(ONE_BY_ONE), state(COMBINED));
        assert_eq!(actual.0, expected.0, "{what}");
        assert!(
            is_near(actual.1, expected.1),
            "{what}: {actual:?} {expected:?}"
        );
        let known = match answers.ttl().unwrap() {
            Deadline::NoKey => -2,
            Deadline::Never => -1,
            Deadline::Ms(ms) => i64::try_from(ms).unwrap(),
        };
        assert!(is_near(known, actual.1), "{what}: {known} {actual:?}");
        if let Some(value) = answers.value() {
            assert_eq!(
                reply::text(&actual.0).and_then(parse_i64),
                Some(value),
                "{what}"
            );
        }
    }
}

/// What is in the key before.
#[derive(Debug)]
struct Start {
    value: Option<String>,
    ttl: bool,
}

impl Start {
    fn random(random: &mut Random, args: &[String]) -> Self {
        let limit = args.first().and_then(|arg| arg.parse::<i64>().ok());
        let near = |by: i64| (limit.unwrap_or(10) + by).to_string();
        let within = i64::try_from(random.below(60)).unwrap() - 40;
        let value = match random.below(16) {
            0 | 1 => None,
            2 => Some("0".to_owned()),
            3 => Some(near(0)),
            4 => Some(near(-1)),
            5 => Some(near(3)),
            6..=11 => Some(within.to_string()),
            12 | 13 => Some((*random.pick(&[&"007", &"-0", &"1.5", &" 5", &"", &"x"])).to_owned()),
            14 => {
                let far = [
                    &i64::MAX,
                    &(i64::MAX - 7),
                    &i64::MIN,
                    &((1 << 53) + 1),
                    &(1 << 52),
                    &((1 << 52) - 1),
                    &(-(1 << 52)),
                    &(1 - (1 << 52)),
                ];
                Some(random.pick(&far).to_string())
            }
            _ => Some(LIST.to_owned()),
        };
        let ttl = value.is_some() && random.one_in(2);
        Self { value, ttl }
    }

    fn set(&self, client: &mut Client, key: &str) {
        client.call(&["DEL", key]);
        match &self.value {
            None => {}
            Some(value) if value == LIST => {
                client.call(&["RPUSH", key, "element"]);
            }
            Some(value) => {
                client.call(&["SET", key, value]);
            }
        }
        if self.ttl {
            client.call(&["PEXPIRE", key, "100000"]);
        }
    }

    /// Whether the calls have to run one by one.
    fn is_odd(&self, reads: bool, restarts: bool) -> bool {
        let Some(value) = &self.value else {
            return false;
        };
        if restarts && !self.ttl {
            return false; // It is overwritten.
        }
        if reads {
            return value == LIST;
        }
        let number = parse_i64(value.as_bytes());
        number.is_none_or(|number| number.unsigned_abs() >= 1 << 52)
    }
}

/// Equal, but for a time to live, which may be a little later.
#[track_caller]
fn check_reply(actual: &[u8], expected: &[u8], what: &str) {
    if actual == expected {
        return;
    }
    let parts = |frame| -> Vec<&[u8]> { reply::elements(frame).into_iter().flatten().collect() };
    let (actual_parts, expected_parts) = (parts(actual), parts(expected));
    let near = match (actual_parts.as_slice(), expected_parts.as_slice()) {
        ([value, ttl], [expected_value, expected_ttl]) => {
            let ttls = (reply::integer(ttl), reply::integer(expected_ttl));
            value == expected_value
                && matches!(ttls, (Some(ttl), Some(expected)) if is_near(ttl, expected))
        }
        _ => false,
    };
    let (actual, expected) = (actual.escape_ascii(), expected.escape_ascii());
    assert!(near, "{what}: {actual} instead of {expected}");
}

/// Whether two times to live are of the same class, and not far apart.
fn is_near(one: i64, other: i64) -> bool {
    one == other || (one >= 0 && other >= 0 && one.abs_diff(other) < SLACK_MS)
}

fn eval(body: &[u8], key: &str, args: &[String]) -> Vec<Vec<u8>> {
    let mut request = vec![b"EVAL".to_vec(), body.to_vec(), b"1".to_vec()];
    request.push(key.as_bytes().to_vec());
    request.extend(args.iter().map(|arg| arg.clone().into_bytes()));
    request
}

fn read_call(catalogue: &Catalogue, body: &[u8], args: &[String]) -> Call {
    read_call_of(catalogue, body, COMBINED, args)
}

#[track_caller]
fn read_call_of(catalogue: &Catalogue, body: &[u8], key: &str, args: &[String]) -> Call {
    with_request(&eval(body, key, args), |request| {
        let script = catalogue.recognise_body(body).expect("the script is known");
        script.kind().call(request).expect("the call is plain")
    })
}

/// Bodies of the installed libraries, with names to show.
fn library_bodies() -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let clients = root.join("tests/clients");
    let python = root.join(".venv/bin/python");
    let programs = [
        (
            Path::new("node"),
            "limiters/bodies.mjs",
            clients.join("node_modules/rate-limit-redis"),
        ),
        (&python, "limiters/bodies.py", python.clone()),
    ];
    let mut bodies = Vec::new();
    for (interpreter, program, package) in programs {
        if !package.exists() {
            assert!(
                std::env::var_os("CI").is_none(),
                "{} is missing",
                package.display()
            );
            continue;
        }
        let output = Command::new(interpreter)
            .arg(clients.join(program))
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let (name, hex) = line.split_once('\t').unwrap();
            let pairs = hex.as_bytes().chunks(2);
            let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            bodies.push((name.to_owned(), pairs.map(byte).collect()));
        }
    }
    bodies
}

/// Random states for each script.
const ROUNDS: usize = 250;
/// How much later the second run may be.
const SLACK_MS: u64 = 5_000;

const ONE_BY_ONE: &str = "one by one";
const COMBINED: &str = "combined";
/// Stands for a list.
const LIST: &str = "(list)";
