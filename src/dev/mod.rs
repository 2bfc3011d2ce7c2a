//! `tally --dev`: two Redis servers of our own, so that nothing has to be set up.
//!
//! [`Nodes::start`] returns when both answer, [`Nodes::stop`] when both have saved and exited.
//! Whatever happens to Tally, even SIGKILL, no server outlives it (see `guard.sh`).

mod node;

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{self, Config, Fault, Faults};
use node::Guarded;

/// Where the nodes are, and where they keep their data.
#[derive(Clone, Debug)]
pub struct Options {
    /// Loopback ports; a node is named after its port.
    pub ports: [u16; 2],
    /// Directory that holds one directory a node.
    pub data: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ports: [7070, 7071],
            data: PathBuf::from("data"),
        }
    }
}

impl Options {
    /// The default configuration with these two nodes, and with what the variables of `env` say.
    ///
    /// # Errors
    ///
    /// As [`config::load`]; and a node list in `env`, which would not be used.
    pub fn config(&self, env: impl Iterator<Item = (String, String)>) -> Result<Config, Faults> {
        let node = |port| {
            let name = name(port);
            format!("[[nodes]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\n")
        };
        let is_list = |(variable, _): &(String, String)| variable == "TALLY_NODES";
        let (lists, env): (Vec<_>, Vec<_>) = env.partition(is_list);
        let config = config::parse(&self.ports.map(node).concat(), env.into_iter());
        if lists.is_empty() {
            return config;
        }
        let mut faults = config.map_or_else(|Faults(faults)| faults, |_| Vec::new());
        faults.push(Fault {
            place: "TALLY_NODES".to_owned(),
            problem: "--dev starts nodes of its own; leave out one of the two".to_owned(),
        });
        Err(Faults(faults))
    }
}

/// Name of the node on `port`.
fn name(port: u16) -> String {
    format!("redis_{port}")
}

/// Why there are no nodes. None is left running.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no program to run.
    #[error("{INSTALL}")]
    NotInstalled,
    /// Another process has the port.
    #[error(
        "port {port} is taken: {holder} listens there. Stop it, or give Redis servers of your own \
         with --config FILE"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// Who has it, as far as can be told, and how to find out.
        holder: String,
    },
    /// The port can't be used for another reason.
    #[error("port {port} can not be used: {source}")]
    Port {
        /// The port.
        port: u16,
        /// The system's reason.
        source: io::Error,
    },
    /// The data directory or its log file can't be written.
    #[error("{} can not be written: {source}", path.display())]
    Data {
        /// The directory or file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The guard or the runtime that watches it can't be started.
    #[error("the Redis servers can not be started: {0}")]
    Start(#[source] io::Error),
    /// A server exited, or did not answer in time.
    #[error("{name} {what}. The end of {}:\n{tail}", log.display())]
    NotReady {
        /// The node.
        name: String,
        /// What it did instead.
        what: &'static str,
        /// Its log file.
        log: PathBuf,
        /// Last lines of the log.
        tail: String,
    },
    /// A server did not stop cleanly; what it acknowledged in its last second may be lost.
    #[error("{name} did not stop cleanly; see {}", log.display())]
    Stop {
        /// The node.
        name: String,
        /// Its log file.
        log: PathBuf,
    },
}

/// What to say when there is no Redis.
const INSTALL: &str = "\
neither redis-server nor valkey-server is on the PATH; --dev needs one of them. Install it with
  Debian, Ubuntu   sudo apt-get install redis-server
  Fedora, RHEL     sudo dnf install valkey     (older releases: redis)
  Arch             sudo pacman -S valkey
  macOS            brew install redis
or give Redis servers of your own with --config FILE";

/// Two running Redis servers. Dropped without [`Self::stop`], they are told to stop and not
/// waited for.
#[derive(Debug)]
pub struct Nodes {
    /// Drives the children's pipes and exits; nothing runs on it between our calls.
    runtime: tokio::runtime::Runtime,
    nodes: Vec<Guarded>,
}

impl Nodes {
    /// Starts both servers and waits until they answer.
    ///
    /// # Errors
    ///
    /// See [`Error`]; servers started before the error are stopped.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let program = find_server().ok_or(Error::NotInstalled)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Start)?;
        let nodes = runtime.block_on(async {
            // All ports before any server: a failure then leaves nothing behind.
            for port in options.ports {
                node::check_port(port).await?;
            }
            let mut nodes = Vec::new();
            for port in options.ports {
                nodes.push(Guarded::spawn(&program, port, &options.data)?);
            }
            for node in &mut nodes {
                node.ready().await?;
            }
            Ok(nodes)
        })?;
        Ok(Self { runtime, nodes })
    }

    /// Tells both servers to save and exit, and waits for it.
    ///
    /// # Errors
    ///
    /// [`Error::Stop`] for the first that did not; both are gone all the same.
    pub fn stop(mut self) -> Result<(), Error> {
        self.runtime.block_on(async {
            for node in &mut self.nodes {
                node.tell_to_stop();
            }
            let mut result = Ok(());
            for node in &mut self.nodes {
                result = result.and(node.stopped().await);
            }
            result
        })
    }
}

/// The first of redis-server and valkey-server that the PATH has.
fn find_server() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    ["redis-server", "valkey-server"].iter().find_map(|name| {
        let candidates = env::split_paths(&path).map(|folder| folder.join(name));
        candidates
            .into_iter()
            .find(|candidate| is_program(candidate))
    })
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
