//! What is under `deploy/` and beside it agrees with the program: it parses, names files that are
//! there, and waits longer for a stop than a stop takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tally::config::{self, Config};
use yaml_rust2::{Yaml, YamlLoader};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[track_caller]
fn text(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[track_caller]
fn yaml(path: &str) -> Vec<Yaml> {
    YamlLoader::load_from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[track_caller]
fn load(text: &str, env: &[(&str, &str)]) -> Config {
    let env = env
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    config::parse(text, env).unwrap_or_else(|faults| panic!("{faults}"))
}

/// `15s` or a bare number of seconds.
fn seconds(text: &str) -> Duration {
    let digits = text.trim_end_matches('s');
    Duration::from_secs(digits.parse().unwrap_or_else(|_| panic!("{text}")))
}

fn texts(yaml: &Yaml) -> impl Iterator<Item = &str> {
    yaml.as_vec().into_iter().flatten().filter_map(Yaml::as_str)
}

#[test]
fn compose_mounts_what_is_there_and_waits_for_the_last_flush() {
    let file = yaml("docker-compose.yml").remove(0);
    let config = load(&text("config/docker.toml"), &[]);
    let tally = &file["services"]["tally"];
    let grace = seconds(tally["stop_grace_period"].as_str().unwrap());
    assert!(grace > config.server.drain_timeout, "{grace:?}");
    let ports: Vec<_> = texts(&tally["ports"]).collect();
    for listen in [config.server.listen, config.admin.listen] {
        let port = listen.unwrap().port();
        assert!(
            ports.contains(&&*format!("127.0.0.1:{port}:{port}")),
            "{ports:?}"
        );
    }
    let services = file["services"].as_hash().unwrap();
    let volumes = file["volumes"].as_hash().unwrap();
    let mut mounted = 0;
    for (name, service) in services {
        for volume in texts(&service["volumes"]) {
            let source = volume.split(':').next().unwrap_or_default();
            let is_known = if source.starts_with("./") {
                root(source).exists()
            } else {
                volumes.contains_key(&Yaml::String(source.to_owned()))
            };
            assert!(is_known, "{name:?}: {volume}");
            mounted += 1;
        }
    }
    assert!(mounted > 5, "{mounted}");
    for node in &config.nodes {
        let (host, _) = node.address.rsplit_once(':').unwrap();
        let service = &file["services"][host];
        assert!(!service.is_badvalue(), "{host}");
    }
}

#[test]
fn kubernetes_gives_a_configuration_that_loads_and_probes_that_answer() {
    let documents = yaml("deploy/kubernetes/tally.yaml");
    let of = |kind: &str| {
        let found = documents
            .iter()
            .find(|one| one["kind"].as_str() == Some(kind));
        found.unwrap_or_else(|| panic!("no {kind}"))
    };
    for document in &documents {
        assert!(document["apiVersion"].as_str().is_some());
        assert_eq!(document["metadata"]["name"].as_str(), Some("tally"));
    }
    let pod = &of("StatefulSet")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    // Every variable is one that Tally knows, and comes from a key of the Secret.
    let mut env = Vec::new();
    for variable in container["env"].as_vec().unwrap() {
        let secret = &variable["valueFrom"]["secretKeyRef"];
        let key = secret["key"].as_str().unwrap();
        assert_eq!(secret["name"].as_str(), Some("tally"));
        let value = of("Secret")["stringData"][key].as_str();
        env.push((variable["name"].as_str().unwrap(), value.unwrap()));
    }
    let file = of("ConfigMap")["data"]["tally.toml"].as_str().unwrap();
    let config = load(file, &env);
    let grace = pod["terminationGracePeriodSeconds"].as_i64().unwrap();
    assert!(Duration::from_secs(grace.unsigned_abs()) > config.server.drain_timeout);
    let ports: Vec<_> = container["ports"]
        .as_vec()
        .unwrap()
        .iter()
        .map(|port| {
            (
                port["name"].as_str().unwrap(),
                port["containerPort"].as_i64().unwrap(),
            )
        })
        .collect();
    let port = |listen: Option<std::net::SocketAddr>| i64::from(listen.unwrap().port());
    let want = [
        ("redis", port(config.server.listen)),
        ("http", port(config.admin.listen)),
    ];
    assert_eq!(ports, want);
    for port in of("Service")["spec"]["ports"].as_vec().unwrap() {
        let pair = (
            port["name"].as_str().unwrap(),
            port["port"].as_i64().unwrap(),
        );
        assert!(want.contains(&pair), "{pair:?}");
    }
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["path"].as_str(), Some(path));
        assert_eq!(get["port"].as_str(), Some("http"));
    }
    let mounts: Vec<_> = container["volumeMounts"]
        .as_vec()
        .unwrap()
        .iter()
        .filter_map(|mount| mount["mountPath"].as_str())
        .collect();
    let journal = config.journal.path.unwrap();
    assert!(
        mounts.iter().any(|mount| journal.starts_with(mount)),
        "{mounts:?}"
    );
    let arguments: Vec<_> = texts(&container["args"]).collect();
    assert_eq!(arguments[0], "--config");
    assert!(mounts.iter().any(|mount| arguments[1].starts_with(mount)));
}

#[test]
fn the_unit_waits_for_the_last_flush_and_does_not_restart_a_faulty_configuration() {
    let unit = text("deploy/systemd/tally.service");
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("no {key}"))
    };
    let config = load(&text("config/default.toml"), &[]);
    let start = seconds(value("TimeoutStartSec="));
    assert!(seconds(value("TimeoutStopSec=")) > config.server.drain_timeout);
    assert!(start > config.upstream.connect_timeout);
    assert_eq!(value("RestartPreventExitStatus="), "2 78");
    assert_eq!(value("Type="), "notify");
    // Without the machine's boot_id a power cut is taken for the end of the process.
    assert!(!unit.contains("\nProcSubset=pid"));
    for line in ["ExecStart=", "ExecStartPre="] {
        assert!(
            value(line).contains(" --config /etc/tally/tally.toml"),
            "{line}"
        );
    }
}

#[test]
fn prometheus_reads_rules_that_are_there() {
    let file = yaml("deploy/prometheus/prometheus.yml").remove(0);
    let rules: Vec<_> = texts(&file["rule_files"]).collect();
    assert_eq!(rules, ["alerts.yml"]);
    let job = file["scrape_configs"][0]["job_name"].as_str().unwrap();
    let alerts = yaml("deploy/prometheus/alerts.yml").remove(0);
    let rules = alerts["groups"][0]["rules"].as_vec().unwrap();
    assert!(rules.len() > 3);
    for rule in rules {
        assert!(rule["alert"].as_str().unwrap().starts_with("Tally"));
        assert!(rule["annotations"]["summary"].as_str().is_some());
        let expression = rule["expr"].as_str().unwrap();
        assert!(!expression.contains("job=") || expression.contains(&format!("job=\"{job}\"")));
    }
}
