//! Reads a file and the environment into one tree of values.

use std::collections::{BTreeMap, HashMap};
use std::iter;
use std::path::Path;

use config::builder::DefaultState;
use config::{ConfigBuilder, ConfigError, Environment, File, FileFormat, Value};

use super::nodes::{VARIABLE as NODES_VARIABLE, node_list};
use super::raw::SECTIONS;
use super::{Config, Fault, Faults, resolve};

/// Start of every variable that is ours.
const PREFIX: &str = "TALLY_";

/// Reads the file at `path` if there is one to read, then the variables of `env` that start with
/// `TALLY_`, which win, and checks the whole.
///
/// `TALLY_COUNTERS__FLUSH_INTERVAL=250ms` sets `counters.flush_interval`;
/// `TALLY_NODES=name=host:port:weight,...` sets the node list, instead of the file's.
///
/// # Errors
///
/// All faults at once, save that nothing can be said about values while the file's syntax is
/// wrong.
pub fn load(
    path: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Config, Faults> {
    let Some(path) = path else {
        return parse("", env);
    };
    let place = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Fault::new(&place, format!("can not be read: {error}")))?;
    parse_named(&place, &text, env)
}

/// Like [`load`], with the text of a file in place of its path.
///
/// # Errors
///
/// As [`load`].
pub fn parse(text: &str, env: impl Iterator<Item = (String, String)>) -> Result<Config, Faults> {
    parse_named("the configuration", text, env)
}

fn parse_named(
    place: &str,
    text: &str,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Config, Faults> {
    let mut faults = Vec::new();
    let variables = Variables::sort(env, &mut faults);
    let mut builder = config::Config::builder();
    match syntax(text) {
        Ok(()) => builder = builder.add_source(File::from_str(text, FileFormat::Toml)),
        Err(problem) => {
            faults.push(Fault::new(place, problem));
            return Err(Faults(faults));
        }
    }
    let (builder, by_path) = variables.apply(builder, &mut faults);
    let tree = builder
        .build()
        .and_then(config::Config::try_deserialize::<Value>)
        .map_err(|error| Fault::new(place, error.to_string()))?;
    resolve::resolve(tree, by_path, faults)
}

/// Says where the file is no TOML, without the line's text, which may hold a password.
fn syntax(text: &str) -> Result<(), String> {
    let Some(problem) = not_toml(text) else {
        return Ok(());
    };
    if problem.contains(" line ") {
        return Err(problem);
    }
    // Of a number beyond 64 bits the parser does not say where it is: at the end of the first lines
    // that have the same fault.
    let ends = text.match_indices('\n').map(|(at, _)| at + 1);
    let mut lines = ends.chain([text.len()]).zip(1..);
    let has_it = |end: usize| text.get(..end).and_then(not_toml).as_ref() == Some(&problem);
    Err(match lines.find(|(end, _)| has_it(*end)) {
        Some((_, line)) => format!("TOML parse error at line {line}: {problem}"),
        None => problem,
    })
}

/// Why the text is no TOML, if it is none.
fn not_toml(text: &str) -> Option<String> {
    let source = File::from_str(text, FileFormat::Toml);
    let parsed = config::Config::builder().add_source(source).build();
    let error = match parsed.err()? {
        ConfigError::FileParse { cause, .. } => cause.to_string(),
        other => other.to_string(),
    };
    // "TOML parse error at line 3, column 9", the excerpt (`3 | ...`, `  | ^`), what is wrong.
    let is_excerpt = |line: &str| {
        let start = line
            .trim_start()
            .trim_start_matches(|c: char| c.is_ascii_digit());
        start.trim_start().starts_with('|')
    };
    let lines: Vec<_> = error.lines().filter(|line| !is_excerpt(line)).collect();
    Some(lines.join(": "))
}

/// The variables that are ours, names checked.
struct Variables {
    /// Path and value, by variable.
    settings: BTreeMap<String, (String, String)>,
    nodes: Option<String>,
}

impl Variables {
    /// Takes what starts with `TALLY_`; names that set nothing are faults.
    fn sort(env: impl Iterator<Item = (String, String)>, faults: &mut Vec<Fault>) -> Self {
        let mut sorted = Self {
            settings: BTreeMap::new(),
            nodes: None,
        };
        let mut unknown = Vec::new();
        for (variable, value) in env {
            let Some(name) = variable.strip_prefix(PREFIX) else {
                continue;
            };
            if variable == NODES_VARIABLE {
                sorted.nodes = Some(value);
            } else if let Some(path) = path_of(name) {
                sorted.settings.insert(variable, (path, value));
            } else {
                let allowed = allowed_variables(name);
                unknown.push(Fault::new(
                    variable.escape_debug().to_string(),
                    format!("unknown variable; allowed: {allowed}"),
                ));
            }
        }
        unknown.sort_by(|a, b| a.place.cmp(&b.place));
        faults.append(&mut unknown);
        sorted
    }

    /// Applies the variables over what `builder` has; returns the variable of each path that was
    /// set.
    fn apply(
        self,
        builder: ConfigBuilder<DefaultState>,
        faults: &mut Vec<Fault>,
    ) -> (ConfigBuilder<DefaultState>, BTreeMap<String, String>) {
        let mut by_path = BTreeMap::new();
        let mut values = HashMap::new();
        for (variable, (path, value)) in self.settings {
            values.insert(variable.clone(), value);
            by_path.insert(path, variable);
        }
        let environment = Environment::with_prefix(PREFIX.trim_end_matches('_'))
            .prefix_separator("_")
            .separator("__")
            .source(Some(values));
        let mut builder = builder.add_source(environment);
        if let Some(list) = self.nodes {
            by_path.insert("nodes".to_owned(), NODES_VARIABLE.to_owned());
            match builder
                .clone()
                .set_override("nodes", node_list(&list, faults))
            {
                Ok(with_nodes) => builder = with_nodes,
                Err(error) => faults.push(Fault::new(NODES_VARIABLE, error.to_string())),
            }
        }
        (builder, by_path)
    }
}

/// `SERVER__LISTEN` -> `server.listen`, if there is such a key.
fn path_of(name: &str) -> Option<String> {
    let (section, key) = name.split_once("__")?;
    // Upper case only: `config` ignores case, and two spellings of one variable would race.
    if name.chars().any(|c| c.is_ascii_lowercase()) {
        return None;
    }
    let (section, key) = (section.to_lowercase(), key.to_lowercase());
    let (_, keys) = settable().find(|(name, _)| *name == section)?;
    keys.contains(&key.as_str())
        .then(|| format!("{section}.{key}"))
}

/// Sections that are lists of tables.
const LISTS: [&str; 5] = ["nodes", "rules", "limit_scripts", "routes", "users"];

/// The sections whose keys a variable can set: all but the lists.
fn settable() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    SECTIONS
        .into_iter()
        .filter(|(section, _)| !LISTS.contains(section))
}

/// Variables with names like `name` that are allowed: the keys of its section, else the sections.
fn allowed_variables(name: &str) -> String {
    let section = name.split("__").next().unwrap_or_default().to_lowercase();
    let variables: Vec<_> =
        if let Some((section, keys)) = settable().find(|(name, _)| *name == section) {
            let variable = |key: &&str| format!("{PREFIX}{section}__{key}").to_uppercase();
            keys.iter().map(variable).collect()
        } else {
            let variable = |section: &str| format!("{PREFIX}{}__<KEY>", section.to_uppercase());
            let sections = settable().map(|(section, _)| variable(section));
            iter::once(NODES_VARIABLE.to_owned())
                .chain(sections)
                .collect()
        };
    variables.join(", ")
}
