//! The command line: which configuration, what to do with it, and the exit code.

use std::env;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Argon2Hash, Config, Fault, Faults};
use crate::dev;
use crate::journal;
use crate::server::{Addresses, Load};
use crate::twemproxy;

/// Exit code when the configuration is at fault: `EX_CONFIG` of BSD's `sysexits.h`.
const EXIT_CONFIG: u8 = 78;
/// The file used when the command line names none.
const DEFAULT_FILE: &str = "config/default.toml";

/// A Redis-protocol sharding proxy that makes hot counters cheap and keeps them exact.
///
/// Without an option: config/default.toml if there is such a file, else the nodes of the variable
/// `TALLY_NODES` if it is set, else as --dev.
#[derive(Clone, Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Configuration file (TOML); variables such as `TALLY_SERVER__LISTEN` win over it
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Start two Redis servers on ports 7070 and 7071, with their data under data/
    #[arg(long, conflicts_with = "config")]
    dev: bool,

    /// List all faults of the configuration and exit: 0 if there are none, else 78
    #[arg(long, conflicts_with = "print_config")]
    check_config: bool,

    /// Print the effective configuration, passwords masked, and exit
    #[arg(long)]
    print_config: bool,

    /// Ports of the two servers of --dev
    #[arg(long, hide = true, requires = "dev", value_name = "PORT,PORT", value_parser = two_ports)]
    dev_ports: Option<[u16; 2]>,

    #[command(subcommand)]
    command: Option<Command>,
}

/// What else than serving there is to do.
#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// About the file that keeps acknowledged increments until Redis has them
    #[command(subcommand)]
    Journal(JournalCommand),

    /// Print the argon2 hash of the password on standard input (up to the end of its first line),
    /// for `password_argon2` of a user
    HashPassword,

    /// Print a configuration that places keys as a pool of twemproxy does, and say what differs
    ImportTwemproxy {
        /// The file nutcracker.yml
        file: PathBuf,

        /// Which of its pools, if there are several
        #[arg(long)]
        pool: Option<String>,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum JournalCommand {
    /// Print what is in it; it may be in use
    Inspect {
        /// The file that `journal.path` names
        file: PathBuf,
    },
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Action {
    /// Serve with the nodes that the configuration names.
    Run(Config),
    /// Start two nodes, serve, stop them.
    Dev(Config, dev::Options),
    /// Print this and exit.
    Print(String),
}

/// Called once when clients can connect.
pub type Ready = Box<dyn FnOnce(Addresses) + Send>;

impl Cli {
    /// Loads the configuration and says what to do; `env` are the environment's variables.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the configuration.
    pub fn action(&self, env: Vec<(String, String)>) -> Result<Action, Faults> {
        let has_nodes = env.iter().any(|(variable, _)| variable == "TALLY_NODES");
        let file = self.file();
        let action = if file.is_none() && (self.dev || !has_nodes) {
            let mut options = dev::Options::default();
            options.ports = self.dev_ports.unwrap_or(options.ports);
            Action::Dev(options.config(env.into_iter())?, options)
        } else {
            Action::Run(config::load(file, env.into_iter())?)
        };
        let (Action::Run(config) | Action::Dev(config, _)) = &action else {
            return Ok(action);
        };
        Ok(if self.print_config {
            Action::Print(config.to_toml())
        } else if self.check_config {
            Action::Print("the configuration is valid\n".to_owned())
        } else {
            action
        })
    }

    /// The configuration that is to be in force now.
    fn config(&self, env: Vec<(String, String)>) -> Result<Config, Faults> {
        match self.action(env)? {
            Action::Run(config) | Action::Dev(config, _) => Ok(config),
            // Only a process that serves asks for this, so nothing was to be printed.
            Action::Print(text) => Err(Fault::new("the command line", text).into()),
        }
    }

    /// The file to load: the one given, else the usual one if it is there and wanted.
    fn file(&self) -> Option<&Path> {
        let usual = || Some(Path::new(DEFAULT_FILE)).filter(|file| !self.dev && file.exists());
        self.config.as_deref().or_else(usual)
    }
}

/// The whole program: does what the command line asks for, with `run` to serve until told to stop.
///
/// Exit codes: 0; 1 when something failed while running; 2 for a wrong command line; 78 for a
/// faulty configuration.
pub fn main<E: Display>(run: impl FnOnce(Config, Load, Ready) -> Result<(), E>) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // `--help` and `--version` come here too, for stdout and with code 0.
            usage.print().ok();
            return u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    if let Some(Command::Journal(JournalCommand::Inspect { file })) = &cli.command {
        return ended(journal::inspect(file).map(|text| print(&text)));
    }
    if let Some(Command::HashPassword) = &cli.command {
        return ended(hash_password().map(|line| print(&line)));
    }
    if let Some(Command::ImportTwemproxy { file, pool }) = &cli.command {
        return import_twemproxy(file, pool.as_deref());
    }
    let action = cli.action(variables());
    let again = cli.clone();
    let load: Load = Box::new(move || again.config(variables()));
    match action {
        Ok(Action::Print(text)) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Ok(Action::Run(config)) => ended(run(config, load, Box::new(print_addresses))),
        Ok(Action::Dev(config, options)) => {
            run_dev(config, &options, |config, ready| run(config, load, ready))
        }
        Err(faults) => {
            let file = cli
                .file()
                .map_or_else(|| "the configuration".into(), Path::to_string_lossy);
            complain(&format!("{file} is at fault:\n{faults}"));
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// The hash of a password from stdin, as a line.
fn hash_password() -> Result<String, String> {
    let mut password = String::new();
    let read = io::stdin().read_line(&mut password);
    read.map_err(|error| format!("standard input: {error}"))?;
    let password = password.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err("give the password on standard input".to_owned());
    }
    let mut salt = [0; 16];
    let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut salt));
    random.map_err(|error| format!("/dev/urandom: {error}"))?;
    let hash = Argon2Hash::of(password.as_bytes(), &salt)?;
    Ok(format!("{}\n", hash.as_str()))
}

/// The configuration to stdout, what differs to stderr.
fn import_twemproxy(file: &Path, pool: Option<&str>) -> ExitCode {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return ended(Err(format!("{}: {error}", file.display()))),
    };
    match twemproxy::import(&text, pool) {
        Ok(import) => {
            print(&import.toml);
            for line in import.differs {
                complain(&line);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!("{}: {error}", file.display()));
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// Serves between the start and the stop of two nodes.
fn run_dev<E: Display>(
    config: Config,
    options: &dev::Options,
    run: impl FnOnce(Config, Ready) -> Result<(), E>,
) -> ExitCode {
    let nodes = match dev::Nodes::start(options) {
        Ok(nodes) => nodes,
        Err(error) => return ended(Err(error)),
    };
    let banner = dev_banner(&config, options);
    let ready: Ready = Box::new(move |addresses| {
        print_addresses(addresses);
        let (address, tls) = match addresses.plain {
            Some(plain) => (Some(plain), ""),
            None => (addresses.tls, " --tls"),
        };
        let port = address.map_or(0, |address| address.port());
        print(&banner.replace("{port}", &format!("{port}{tls}")));
    });
    let served = ended(run(config, ready));
    let stopped = ended(nodes.stop());
    if served == ExitCode::SUCCESS {
        stopped
    } else {
        served
    }
}

/// What to try, where the data is, how to stop. `{port}` stands for Tally's.
fn dev_banner(config: &Config, options: &dev::Options) -> String {
    let nodes = config.nodes.iter();
    let nodes: Vec<_> = nodes
        .map(|node| format!("{} on {}", node.name, node.address))
        .collect();
    let data = std::path::absolute(&options.data).unwrap_or_else(|_| options.data.clone());
    let page = config.admin.listen;
    let scheme = config.admin.tls.as_ref().map_or("http", |_| "https");
    let page = page.map_or_else(|| "off".to_owned(), |page| format!("{scheme}://{page}/"));
    let auth = match config.server.password {
        Some(_) => " -a PASSWORD",
        None => "",
    };
    format!(
        "  nodes  {}
  data   {}
  page   {page}
  try    redis-cli -p {{port}}{auth} INCR visits
         redis-cli -p {{port}}{auth} GET visits
         redis-benchmark -p {{port}}{auth} -t incr,get -r 10000 -P 16 -q
  stop   Ctrl-C
",
        nodes.join(", "),
        data.display(),
    )
}

fn print_addresses(addresses: Addresses) {
    let version = env!("CARGO_PKG_VERSION");
    let plain = addresses.plain.map(|plain| format!("redis://{plain}"));
    let tls = addresses.tls.map(|tls| format!("rediss://{tls}"));
    let urls: Vec<_> = plain.into_iter().chain(tls).collect();
    print(&format!(
        "Tally {version} listens on {}\n",
        urls.join(" and ")
    ));
}

/// The exit code of a run, after its error was told.
fn ended<E: Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// The environment. A value that is no Unicode becomes one that the checks refuse and show.
fn variables() -> Vec<(String, String)> {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    env::vars_os()
        .map(|(variable, value)| (lossy(variable), lossy(value)))
        .collect()
}

/// Reads `7070,7071`.
fn two_ports(text: &str) -> Result<[u16; 2], String> {
    let two = text
        .split_once(',')
        .and_then(|(first, second)| Some([first.parse().ok()?, second.parse().ok()?]));
    two.ok_or_else(|| "two ports, such as 7070,7071".to_owned())
}

/// Writes to stdout; nobody is left to tell when that fails.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .ok();
}

fn complain(text: &str) {
    writeln!(io::stderr(), "tally: {text}").ok();
}
