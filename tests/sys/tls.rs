//! TLS for clients and to nodes, with certificates that openssl makes and clients that others wrote.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

use crate::clients::Program;
use crate::connection::Connection;
use crate::harness::{eventually, skipped_on_bare_redis};
use crate::servers::{Redis, Tally, free_port, is_other_server, loopback};

/// An authority, and certificates signed by it, as files in a directory.
pub(crate) struct Authority {
    directory: TempDir,
}

impl Authority {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let authority = Self {
            directory: TempDir::new().unwrap(),
        };
        authority.openssl(&format!(
            "req -x509 {NEW_KEY} -keyout ca.key -out ca.crt -subj /CN=authority-{} -days 2",
            authority.directory.path().file_name().unwrap().display()
        ));
        authority
    }

    /// Signs `name`.crt for `alternative` names (`IP:127.0.0.1`), for so many days from now.
    #[track_caller]
    pub(crate) fn sign(&self, name: &str, alternative: &str, days: i32) {
        fs::write(self.file("names"), format!("subjectAltName={alternative}")).unwrap();
        self.openssl(&format!(
            "req {NEW_KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out {name}.crt \
             -extfile names -days {days}"
        ));
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file's path as TOML.
    pub(crate) fn toml(&self, name: &str) -> String {
        format!("{:?}", self.text(name))
    }

    fn text(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.directory.path())
            .output()
            .expect("openssl on the PATH");
        assert!(output.status.success(), "openssl {arguments}: {output:?}");
    }
}

/// Tally with a TLS port before `node`.
#[track_caller]
fn behind_tls(node: &Redis, authority: &Authority, more: &[(&str, &str)]) -> (Tally, SocketAddr) {
    by_tls(Tally::start_before, node, authority, more)
}

type Start = fn(&[(SocketAddr, Option<&str>)], &[(&str, &str)]) -> Tally;

#[track_caller]
fn by_tls(
    start: Start,
    node: &Redis,
    authority: &Authority,
    more: &[(&str, &str)],
) -> (Tally, SocketAddr) {
    let address = loopback(free_port());
    let (listen, cert, key) = (
        format!("\"{address}\""),
        authority.toml("server.crt"),
        authority.toml("server.key"),
    );
    let mut settings = vec![
        ("tls.listen", listen.as_str()),
        ("tls.cert_file", &cert),
        ("tls.key_file", &key),
    ];
    settings.extend(more);
    (start(&[(node.address(), None)], &settings), address)
}

#[track_caller]
pub(crate) fn cli(address: SocketAddr, arguments: &[&str]) -> Output {
    Command::new("redis-cli")
        .args(["-h", &address.ip().to_string()])
        .args(["-p", &address.port().to_string(), "--tls"])
        .args(arguments)
        .output()
        .expect("redis-cli on the PATH")
}

pub(crate) fn printed(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}

#[test]
fn clients_with_tls_and_without_share_the_keys() {
    if skipped_on_bare_redis() {
        return;
    }
    let authority = Authority::new();
    authority.sign("server", "IP:127.0.0.1", 2);
    let node = Redis::start(&[]);
    let (tally, address) = behind_tls(&node, &authority, &[]);
    let ca = authority.text("ca.crt");
    assert_eq!(printed(&cli(address, &["--cacert", &ca, "INCR", "k"])), "1");
    let mut plain = Connection::open(tally.address());
    assert_eq!(plain.run("INCR k").integer(), 2);
    assert_eq!(printed(&cli(address, &["--cacert", &ca, "INCR", "k"])), "3");

    // More than any buffer holds, both ways.
    let file = authority.file("large");
    fs::write(&file, vec![b'x'; 20 << 20]).unwrap();
    let large = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "redis-cli -p {} --tls --cacert {ca} -x SET large < {}",
            address.port(),
            file.display()
        ))
        .output()
        .unwrap();
    assert_eq!(printed(&large), "OK");
    let got = cli(address, &["--cacert", &ca, "GET", "large"]);
    assert_eq!(got.stdout.len(), (20 << 20) + 1);

    let counted = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &address.port().to_string()])
        .args(["--tls", "--cacert", &ca, "-q", "-n", "20000", "-P", "50"])
        .args(["INCR", "hot"])
        .output()
        .unwrap();
    assert!(counted.status.success(), "{counted:?}");
    let mut client = Connection::open(tally.address());
    assert_eq!(client.run("GET hot").bytes(), b"20000");
}

#[test]
fn what_can_not_be_trusted_is_not_spoken_to() {
    if skipped_on_bare_redis() {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.sign("server", "IP:127.0.0.1", 2);
    authority.sign("friend", "DNS:friend", 2);
    authority.sign("late", "DNS:late", -1);
    stranger.sign("unknown", "DNS:unknown", 2);
    let node = Redis::start(&[]);
    let ca = authority.toml("ca.crt");
    let (tally, address) = behind_tls(&node, &authority, &[("tls.client_ca_file", &ca)]);
    let ca = authority.text("ca.crt");
    let with = |of: &Authority, name: &str| {
        let (cert, key) = (
            of.text(&format!("{name}.crt")),
            of.text(&format!("{name}.key")),
        );
        cli(
            address,
            &["--cacert", &ca, "--cert", &cert, "--key", &key, "PING"],
        )
    };
    assert_eq!(printed(&with(&authority, "friend")), "PONG");
    for (refused, why) in [
        (cli(address, &["--cacert", &ca, "PING"]), "no certificate"),
        (with(&authority, "late"), "expired"),
        (with(&stranger, "unknown"), "another authority"),
        (
            cli(address, &["--cacert", &stranger.text("ca.crt"), "PING"]),
            "a client that does not trust us",
        ),
    ] {
        assert!(!refused.status.success(), "{why}: {refused:?}");
        assert!(!printed(&refused).contains("PONG"), "{why}: {refused:?}");
    }
    let said = |text: &str| tally.log().contains(text);
    assert!(eventually(Duration::from_secs(5), || said("Expired")
        && said("UnknownIssuer")
        && said("peer sent no certificates")));

    // Without TLS there is no answer, and nothing hangs.
    let mut plain = Connection::open(address);
    assert!(plain.try_call(&["PING"]).is_err());
    // A client that says nothing does not hold up others.
    let _silent = Connection::open(address);
    assert_eq!(printed(&with(&authority, "friend")), "PONG");
}

#[test]
fn a_client_certificate_may_be_optional() {
    if skipped_on_bare_redis() {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.sign("server", "IP:127.0.0.1", 2);
    stranger.sign("unknown", "DNS:unknown", 2);
    let node = Redis::start(&[]);
    let ca = authority.toml("ca.crt");
    let optional = [
        ("tls.client_ca_file", ca.as_str()),
        ("tls.client_auth", "\"optional\""),
        ("server.listen", "\"off\""),
    ];
    // It listens with TLS only, so the harness can not ask it whether it is ready.
    let (tally, address) = by_tls(Tally::launch, &node, &authority, &optional);
    let ca = authority.text("ca.crt");
    assert!(eventually(Duration::from_secs(15), || {
        printed(&cli(address, &["--cacert", &ca, "PING"])) == "PONG"
    }));
    assert!(
        tally
            .log()
            .contains(&format!("listens on rediss://{address}\n"))
    );
    assert!(Connection::try_open(tally.address()).is_err());
    let (cert, key) = (stranger.text("unknown.crt"), stranger.text("unknown.key"));
    let refused = cli(
        address,
        &["--cacert", &ca, "--cert", &cert, "--key", &key, "PING"],
    );
    assert!(!printed(&refused).contains("PONG"), "{refused:?}");
}

#[test]
fn redis_py_connects_by_rediss() {
    let program = Program::python("clients/tls.py");
    if skipped_on_bare_redis() || !program.is_installed() {
        return;
    }
    let authority = Authority::new();
    authority.sign("server", "IP:127.0.0.1", 2);
    let node = Redis::start(&[]);
    let (_tally, address) = behind_tls(&node, &authority, &[]);
    let output = Command::new(&program.interpreter)
        .arg(&program.script)
        .arg(format!("rediss://{address}/0"))
        .arg(authority.file("ca.crt"))
        .output()
        .unwrap();
    assert_eq!(printed(&output), "1 2000 refused");
}

/// The Valkey of the Python package is built without TLS.
fn is_without_tls() -> bool {
    is_other_server()
}

/// A node that listens with TLS beside its plain port, and wants clients' certificates.
fn tls_node(authority: &Authority, certificate: &str) -> (Redis, SocketAddr) {
    let address = loopback(free_port());
    let node = Redis::start(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--tls-port",
        &address.port().to_string(),
        "--tls-cert-file",
        &authority.text(&format!("{certificate}.crt")),
        "--tls-key-file",
        &authority.text(&format!("{certificate}.key")),
        "--tls-ca-cert-file",
        &authority.text("ca.crt"),
    ]);
    (node, address)
}

#[test]
fn a_node_with_tls_is_cut_and_restarted_without_a_lost_count() {
    if skipped_on_bare_redis() || is_without_tls() {
        return;
    }
    let authority = Authority::new();
    authority.sign("node", "DNS:node.example", 2);
    authority.sign("tally", "DNS:tally", 2);
    let (mut node, address) = tls_node(&authority, "node");
    let files = ["ca.crt", "tally.crt", "tally.key"].map(|name| authority.toml(name));
    let settings = [
        ("nodes.tls", "true"),
        ("nodes.tls_ca_file", files[0].as_str()),
        ("nodes.tls_cert_file", &files[1]),
        ("nodes.tls_key_file", &files[2]),
        ("nodes.tls_server_name", "\"node.example\""),
        ("upstream.backoff_max", "\"100ms\""),
    ];
    let tally = Tally::start_before(&[(address, None)], &settings);
    let mut client = Connection::open(tally.address());
    for count in 1..=1000 {
        assert_eq!(client.run("INCR k").integer(), count);
    }
    // Larger than any buffer, both ways, over the lane.
    let large = "y".repeat(20 << 20);
    assert!(client.call(&["SET", "large", &large]).is_ok());
    assert_eq!(client.run("STRLEN large").integer(), 20 << 20);
    assert_eq!(client.run("GETRANGE large 0 -1").bytes(), large.as_bytes());

    node.connect().run("CLIENT KILL TYPE normal");
    for count in 1001..=2000 {
        assert_eq!(client.run("INCR k").integer(), count);
    }
    node.restart();
    assert!(eventually(PATIENCE, || client.run("TALLY FLUSH").is_ok()));
    assert_eq!(node.connect().run("GET k").bytes(), b"2000");
    assert_eq!(client.run("INCR k").integer(), 2001);
    // WAIT has connections of its own.
    assert_eq!(client.run("WAIT 0 100").integer(), 0);
}

#[test]
fn a_node_that_can_not_be_trusted_gets_no_command() {
    if skipped_on_bare_redis() || is_without_tls() {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.sign("node", "DNS:node.example", 2);
    authority.sign("late", "IP:127.0.0.1", -1);
    authority.sign("sound", "IP:127.0.0.1", 2);
    authority.sign("tally", "DNS:tally", 2);
    let check = |ca: &str, certificate: &str, shows: bool, why: &str| {
        let (node, address) = tls_node(&authority, certificate);
        let identity = ["tally.crt", "tally.key"].map(|name| authority.toml(name));
        let mut settings = vec![("nodes.tls", "true"), ("nodes.tls_ca_file", ca)];
        if shows {
            settings.push(("nodes.tls_cert_file", &identity[0]));
            settings.push(("nodes.tls_key_file", &identity[1]));
        }
        let tally = Tally::start_before(&[(address, None)], &settings);
        let mut client = Connection::open(tally.address());
        let error = client.run("SET k secret").text();
        assert!(error.contains("is unreachable"), "{why}: {error}");
        assert!(error.contains(why), "{error}");
        assert_eq!(node.connect().run("EXISTS k").integer(), 0, "{why}");
    };
    let own = authority.toml("ca.crt");
    check(&own, "node", true, "certificate not valid for name");
    check(&own, "late", true, "Expired");
    check(&stranger.toml("ca.crt"), "sound", true, "UnknownIssuer");
    check(&own, "sound", false, "CertificateRequired");
}

/// Key of a new certificate: small, and as fast to make as any.
const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// Longest wait for a node's return.
const PATIENCE: Duration = Duration::from_secs(15);

#[test]
fn a_key_of_another_certificate_is_a_fault() {
    let authority = Authority::new();
    authority.sign("one", "DNS:one", 2);
    authority.sign("two", "DNS:two", 2);
    let text = format!(
        "[tls]\nlisten = \"127.0.0.1:0\"\ncert_file = {}\nkey_file = {}\n[[nodes]]\nname = \"a\"\n\
         address = \"h:1\"",
        authority.toml("one.crt"),
        authority.toml("two.key")
    );
    let faults = tally::config::parse(&text, std::iter::empty()).unwrap_err();
    assert_eq!(faults.0.len(), 1, "{faults}");
    assert_eq!(faults.0[0].place, "tls.key_file", "{faults}");
    assert!(
        faults.0[0].problem.contains("can not be used together"),
        "{faults}"
    );
}

#[test]
fn other_machines_need_a_password_or_a_certificate() {
    let authority = Authority::new();
    authority.sign("server", "DNS:server", 2);
    let loads = |more: &str| {
        let text = format!(
            "[tls]\nlisten = \"0.0.0.0:0\"\ncert_file = {}\nkey_file = {}\n{more}\n[[nodes]]\n\
             name = \"a\"\naddress = \"h:1\"",
            authority.toml("server.crt"),
            authority.toml("server.key")
        );
        tally::config::parse(&text, std::iter::empty()).map_err(|faults| faults.to_string())
    };
    let open = loads("").unwrap_err();
    assert!(
        open.starts_with("tls.listen: \"0.0.0.0:0\" lets other machines in without a password"),
        "{open}"
    );
    let ca = format!("client_ca_file = {}", authority.toml("ca.crt"));
    assert!(loads(&ca).is_ok());
    assert!(loads(&format!("{ca}\nclient_auth = \"optional\"")).is_err());
    let config = loads("[server]\npassword = \"p\"").unwrap();
    // What is printed loads again, but for the password.
    let printed = config.to_toml();
    assert!(printed.contains(&format!("key_file = {}", authority.toml("server.key"))));
    assert!(!printed.contains("PRIVATE"), "{printed}");
    assert!(!format!("{config:?}").contains("PRIVATE"));
    assert!(tally::config::parse(&printed, std::iter::empty()).is_ok());
}

/// Asks for a path by HTTPS, and prints status and body; a certificate that is not trusted is an
/// error on standard error.
const HTTPS: &str = "
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile=sys.argv[1])
headers = {'Authorization': 'Bearer t'} if sys.argv[3] == 'POST' else {}
request = urllib.request.Request(sys.argv[2], method=sys.argv[3], headers=headers)
with urllib.request.urlopen(request, context=context, timeout=10) as answer:
    print(answer.status, answer.read().decode())
";

#[test]
fn the_http_side_speaks_tls_where_it_has_a_certificate() {
    if skipped_on_bare_redis() {
        return;
    }
    let (authority, other) = (Authority::new(), Authority::new());
    authority.sign("http", "IP:127.0.0.1", 2);
    let (cert, key) = (authority.toml("http.crt"), authority.toml("http.key"));
    let node = Redis::start(&[]);
    let settings = [
        ("admin.tls_cert_file", cert.as_str()),
        ("admin.tls_key_file", &key),
        ("admin.token", "\"t\""),
    ];
    let tally = Tally::start_before(&[(node.address(), None)], &settings);
    let ask = |authority: &Authority, path: &str, method: &str| {
        let url = format!("https://{}{path}", tally.http_address());
        let output = Command::new("python3")
            .args(["-c", HTTPS, &authority.text("ca.crt"), &url, method])
            .output()
            .expect("python3 on the PATH");
        printed(&output)
    };
    // A guest that never speaks holds up nobody.
    let _silent = std::net::TcpStream::connect(tally.http_address()).unwrap();
    assert_eq!(
        ask(&authority, "/healthz", "GET"),
        "200 {\"status\":\"alive\"}"
    );
    assert!(ask(&authority, "/visit/a", "POST").starts_with("200 "));
    let counted = ask(&authority, "/visits/a", "GET");
    assert!(counted.starts_with("200 {\"count\":1,"), "{counted}");
    assert!(ask(&authority, "/", "GET").starts_with("200 <!doctype html>"));
    let untrusted = ask(&other, "/healthz", "GET");
    assert!(
        untrusted.contains("certificate verify failed"),
        "{untrusted}"
    );
    // Without TLS nothing is said.
    let mut plain = std::net::TcpStream::connect(tally.http_address()).unwrap();
    let mut said = Vec::new();
    plain
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    plain
        .write_all(b"GET /api/v1/summary HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    plain.read_to_end(&mut said).ok();
    assert!(!said.windows(4).any(|part| part == b"HTTP"), "{said:?}");
    // A new certificate holds for who comes after a reload.
    other.sign("http", "IP:127.0.0.1", 2);
    for file in ["http.crt", "http.key"] {
        fs::copy(other.file(file), authority.file(file)).unwrap();
    }
    let answer = ask(&authority, "/api/v1/reload", "POST");
    assert!(answer.contains("certificates"), "{answer}");
    assert_eq!(ask(&other, "/healthz", "GET"), "200 {\"status\":\"alive\"}");
}
