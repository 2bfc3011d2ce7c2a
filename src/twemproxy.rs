//! `tally import-twemproxy`: a pool of twemproxy's `nutcracker.yml` as a configuration of Tally that
//! places every key where twemproxy does, and what differs. Pure: text in, text out.
//!
//! Placement depends on names, weights, hash and hash tag (`nc_conf.c`, `nc_ketama.c`). A server
//! without a name is called by its address there, without the port if that is 11211.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use yaml_rust2::{Yaml, YamlLoader};

use crate::config;

/// What became of a pool.
#[derive(Debug)]
pub struct Import {
    /// A configuration file of Tally, which loads.
    pub toml: String,
    /// What is not as it was, in a sentence each.
    pub differs: Vec<String>,
}

/// Why a pool can not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file is no YAML, or not a map of pools.
    #[error("not a nutcracker.yml: {0}")]
    Syntax(String),
    /// There are several pools: one Tally serves one.
    #[error("there are several pools, and one Tally serves one: choose with --pool {}", .0.join(" | "))]
    Several(Vec<String>),
    /// There is no such pool.
    #[error("there is no pool \"{name}\"; there are: {}", .pools.join(", "))]
    NoPool {
        /// The one asked for.
        name: String,
        /// Those of the file.
        pools: Vec<String>,
    },
    /// All reasons why Tally can not do what the pool asks for.
    #[error("pool \"{pool}\" can not be imported:\n{}", .reasons.join("\n"))]
    Refused {
        /// Its name.
        pool: String,
        /// A line each.
        reasons: Vec<String>,
    },
}

/// Reads `text` and converts the pool with this name, or the only one.
///
/// # Errors
///
/// See [`ImportError`].
pub fn import(text: &str, pool: Option<&str>) -> Result<Import, ImportError> {
    let documents = YamlLoader::load_from_str(text);
    let documents = documents.map_err(|error| ImportError::Syntax(error.to_string()))?;
    let pools: Vec<(&str, &Yaml)> = documents
        .first()
        .and_then(Yaml::as_hash)
        .ok_or_else(|| ImportError::Syntax("a map of pools is expected".to_owned()))?
        .iter()
        .filter_map(|(name, pool)| Some((name.as_str()?, pool)))
        .filter(|(name, _)| *name != "global")
        .collect();
    let names = || pools.iter().map(|(name, _)| (*name).to_owned()).collect();
    let chosen = match (pool, pools.as_slice()) {
        (Some(name), _) => pools.iter().find(|(known, _)| *known == name),
        (None, [only]) => Some(only),
        (None, []) => return Err(ImportError::Syntax("there is no pool in it".to_owned())),
        (None, _) => return Err(ImportError::Several(names())),
    };
    let Some((name, yaml)) = chosen else {
        let name = pool.unwrap_or_default().to_owned();
        return Err(ImportError::NoPool {
            name,
            pools: names(),
        });
    };
    let mut reader = Reader::default();
    let toml = reader.pool(name, yaml);
    if reader.reasons.is_empty() {
        // What twemproxy allows and Tally does not (names, weights) is found by Tally's own checks.
        if let Err(faults) = config::parse(&toml, std::iter::empty()) {
            reader.reasons.push(faults.to_string());
        }
    }
    if !reader.reasons.is_empty() {
        return Err(ImportError::Refused {
            pool: (*name).to_owned(),
            reasons: reader.reasons,
        });
    }
    let mut head = format!(
        "# Made by tally import-twemproxy from the pool {name:?} of a nutcracker.yml.\n\
         # Keys are where twemproxy puts them. What differs:\n"
    );
    for line in &reader.differs {
        writeln!(head, "# - {line}").unwrap_or_default();
    }
    Ok(Import {
        toml: format!("{head}\n{toml}"),
        differs: reader.differs,
    })
}

#[derive(Debug, Default)]
struct Reader {
    reasons: Vec<String>,
    differs: Vec<String>,
}

/// One of `servers`.
struct Server {
    name: String,
    address: String,
    weight: i64,
}

impl Reader {
    fn pool(&mut self, name: &str, yaml: &Yaml) -> String {
        self.unknown_keys(yaml);
        if yaml["redis"].as_bool() != Some(true) {
            self.refuse("redis is not true: it is a pool of memcached servers");
        }
        match text_of(&yaml["distribution"]).as_deref() {
            None | Some("ketama") => {}
            Some(other) => self.refuse(&format!(
                "distribution {other} is not supported: keys would move. Only ketama is"
            )),
        }
        let hash = text_of(&yaml["hash"]).unwrap_or_else(|| "fnv1a_64".to_owned());
        let servers = self.servers(&yaml["servers"]);
        let listen = self.listen(&yaml["listen"]);
        let password = text_of(&yaml["redis_auth"]);
        self.differences(yaml);

        let mut out = String::new();
        let mut line = |text: String| {
            out.push_str(&text);
            out.push('\n');
        };
        line("[server]".to_owned());
        line(format!("listen = {}", quoted(&listen.to_string())));
        match &password {
            Some(password) => line(format!("password = {}", quoted(password))),
            None if !listen.ip().is_loopback() => line("protected = false".to_owned()),
            None => {}
        }
        if let Some(clients) = yaml["client_connections"].as_i64().filter(|n| *n > 0) {
            line(format!("max_clients = {clients}"));
        }
        line("\n[ring]\ndistribution = \"ketama\"".to_owned());
        line(format!("hash = {}", quoted(&hash)));
        // Tally's default is "{}", twemproxy's is none.
        let hash_tag = text_of(&yaml["hash_tag"]).unwrap_or_default();
        line(format!("hash_tag = {}", quoted(&hash_tag)));
        line("families = \"spread\"".to_owned());
        if let Some(ms) = yaml["timeout"].as_i64().filter(|ms| *ms > 0) {
            let hard = ms.saturating_mul(6);
            line(format!(
                "\n[upstream]\nrequest_timeout = \"{ms}ms\"\nhard_timeout = \"{hard}ms\""
            ));
        }
        for server in &servers {
            line(format!("\n[[nodes]]\nname = {}", quoted(&server.name)));
            line(format!("address = {}", quoted(&server.address)));
            line(format!("weight = {}", server.weight));
            if let Some(database) = yaml["redis_db"].as_i64().filter(|db| *db != 0) {
                line(format!("database = {database}"));
            }
            if let Some(password) = &password {
                line(format!("password = {}", quoted(password)));
            }
        }
        if servers.is_empty() && self.reasons.is_empty() {
            self.refuse(&format!("pool {name} has no servers"));
        }
        out
    }

    /// Where clients connect.
    fn listen(&mut self, yaml: &Yaml) -> SocketAddr {
        let text = text_of(yaml).unwrap_or_default();
        let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, 22121));
        if text.starts_with('/') {
            self.differ("listen: Tally has no Unix sockets; it listens on 127.0.0.1:22121");
            return usual;
        }
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let ip = match host {
                "localhost" => Some(IpAddr::from(Ipv4Addr::LOCALHOST)),
                host => host.trim_matches(['[', ']']).parse().ok(),
            };
            Some(SocketAddr::new(ip?, port.parse().ok()?))
        });
        parsed.unwrap_or_else(|| {
            self.differ(&format!(
                "listen: \"{text}\" is no IP address and port; Tally listens on {usual}"
            ));
            usual
        })
    }

    fn servers(&mut self, yaml: &Yaml) -> Vec<Server> {
        let list = yaml.as_vec().map_or(&[][..], Vec::as_slice);
        let texts: Vec<String> = list.iter().filter_map(text_of).collect();
        let read = texts.iter().filter_map(|text| {
            let server = server(text);
            if server.is_none() {
                let is_socket = text.starts_with('/') || text.starts_with("unix:");
                let form = if is_socket {
                    "a Unix socket, and Tally reaches nodes by TCP: let the server listen on a \
                     port, and give that with the name that it has here, which places its keys"
                } else {
                    "host:port:weight, and a name if wanted, is expected"
                };
                self.reasons.push(format!("servers: \"{text}\": {form}"));
            }
            server
        });
        read.collect()
    }

    /// What has no counterpart, or another meaning.
    fn differences(&mut self, yaml: &Yaml) {
        self.differ(
            "hot counters are answered from memory and written every second (counters.mode = \
             \"buffered\"); mode = \"through\" forwards every command, as twemproxy does. Several \
             Tallies before the same nodes want \"exact\" where a reply has to count everybody's \
             increments",
        );
        if yaml["auto_eject_hosts"].as_bool() == Some(true) {
            self.differ(
                "auto_eject_hosts, server_failure_limit, server_retry_timeout: Tally never takes a \
                 node off the ring, because its counters would be split in two. Commands on the \
                 keys of a node that is away fail until it is back",
            );
        }
        for (key, why) in [
            (
                "server_connections",
                "Tally has one pipelined connection to each node",
            ),
            (
                "preconnect",
                "Tally connects at its start, whatever this says",
            ),
            ("backlog", "Tally's backlog is that of its system"),
            ("tcpkeepalive", "Tally always asks for it"),
            ("reuseport", "Tally deals clients to its threads itself"),
        ] {
            if !yaml[key].is_badvalue() {
                self.differ(&format!("{key}: {why}"));
            }
        }
        match yaml["timeout"].as_i64() {
            Some(ms) if ms > 0 => self.differ(
                "timeout: the client gets an error after it, as before; the connection to the \
                 node is closed only when nothing came for six times as long",
            ),
            _ => self.differ("timeout: twemproxy waits for ever, Tally for 5 s"),
        }
        if text_of(&yaml["redis_auth"]).is_some() {
            self.differ(
                "redis_auth: the password is in this file; server.password_file and \
                 nodes.password_file take it from others",
            );
        } else if !text_of(&yaml["listen"])
            .unwrap_or_default()
            .starts_with("127.")
        {
            self.differ(
                "listen: if other machines reach it they need no password, as before \
                 (server.protected = false); server.password asks for one",
            );
        }
        if text_of(&yaml["hash_tag"]).is_none() {
            self.differ("hash_tag: none, as before; Tally's own default is \"{}\"");
        }
        self.differ(
            "ring.families: \"spread\", as before; Tally's own default keeps the keys of job \
             queues that it knows on one node each",
        );
    }

    fn unknown_keys(&mut self, yaml: &Yaml) {
        for key in yaml.as_hash().into_iter().flat_map(|map| map.keys()) {
            let name = key.as_str().unwrap_or_default();
            if !KNOWN.contains(&name) {
                self.differ(&format!("{name}: not known, and left out"));
            }
        }
    }

    fn refuse(&mut self, reason: &str) {
        self.reasons.push(reason.to_owned());
    }

    fn differ(&mut self, difference: &str) {
        self.differs.push(difference.to_owned());
    }
}

/// Reads `host:port:weight name`.
fn server(text: &str) -> Option<Server> {
    let mut words = text.split_ascii_whitespace();
    let (place, name) = (words.next()?, words.next());
    let (address, weight) = place.rsplit_once(':')?;
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let weight = weight.parse().ok()?;
    // `conf_add_server` in twemproxy's `nc_conf.c`: what libmemcached did.
    let given = name.unwrap_or(if port == MEMCACHED_PORT {
        host
    } else {
        address
    });
    (words.next().is_none() && !host.is_empty()).then(|| Server {
        name: given.to_owned(),
        address: address.to_owned(),
        weight,
    })
}

/// A scalar as it was written.
fn text_of(yaml: &Yaml) -> Option<String> {
    match yaml {
        Yaml::String(text) | Yaml::Real(text) => Some(text.clone()),
        Yaml::Integer(number) => Some(number.to_string()),
        Yaml::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => write!(out, "\\u{:04X}", u32::from(c)).unwrap_or_default(),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// twemproxy's `CONF_DEFAULT_KETAMA_PORT`.
const MEMCACHED_PORT: u16 = 11211;

/// What a pool may say in nutcracker 0.5.0 (`conf_commands` in `nc_conf.c`).
const KNOWN: [&str; 19] = [
    "listen",
    "hash",
    "hash_tag",
    "distribution",
    "timeout",
    "backlog",
    "client_connections",
    "tcpkeepalive",
    "reuseport",
    "redis",
    "redis_auth",
    "redis_db",
    "preconnect",
    "auto_eject_hosts",
    "server_connections",
    "server_retry_timeout",
    "server_failure_limit",
    "servers",
    "name",
];
