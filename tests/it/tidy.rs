//! Rules about the source text that no compiler lint can express.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules, lowest row first: each may use itself, its row and the rows before, never those
/// after. The table in `src/lib.rs` says the same.
const LAYERS: &[&[&str]] = &[
    &[
        "resp", "command", "ring", "key", "glob", "access", "rule", "flush", "counter", "limit",
    ],
    &["config", "journal", "telemetry", "tls"],
    &["node", "router"],
    &["session", "fan_out", "pubsub"],
    &["server", "admin", "dev", "twemproxy", "cli"],
];

/// Longest source file, tests included.
const MAX_FILE_LINES: usize = 650;

#[test]
fn modules_depend_only_downwards() {
    let mut faults = Vec::new();
    for path in sources(&["src"]) {
        let Some(from) = row(&module_of(&path)) else {
            continue; // `main.rs` and `lib.rs` may use everything.
        };
        for used in modules_used(&fs::read_to_string(&path).unwrap()) {
            if row(&used).is_none_or(|to| to > from) {
                faults.push(format!(
                    "{}: uses crate::{used}, which is above it",
                    path.display()
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_module_has_a_layer() {
    let known = |module: &str| matches!(module, "lib" | "main") || row(module).is_some();
    let strays: Vec<_> = sources(&["src"])
        .into_iter()
        .filter(|path| !known(&module_of(path)))
        .collect();
    assert!(strays.is_empty(), "not in LAYERS: {strays:?}");
}

#[test]
fn every_file_is_short_and_says_what_it_is() {
    let mut faults = Vec::new();
    for path in sources(&["src", "tests", "benches"]) {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > MAX_FILE_LINES {
            faults.push(format!("{}: {lines} lines", path.display()));
        }
        if !text.starts_with("//!") {
            faults.push(format!("{}: no `//!` header", path.display()));
        }
        if text.contains(concat!("FIX", "ME")) {
            faults.push(format!(
                "{}: a note to fix something left in",
                path.display()
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn uses_of_modules_are_found_in_every_form() {
    let text = "use crate::resp::Span;\nuse crate::{node::{Lane, Pool}, ring};\ncrate::cli::run()";
    assert_eq!(modules_used(text), ["resp", "node", "ring", "cli"]);
}

/// The modules that `text` names by `crate::module` or `crate::{module, ...}`, as often as it
/// does.
fn modules_used(text: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (_, rest) in text
        .match_indices("crate::")
        .map(|(at, found)| text.split_at(at + found.len()))
    {
        let Some(list) = rest.strip_prefix('{') else {
            used.push(identifier(rest));
            continue;
        };
        let mut depth = 0_usize;
        let mut item = String::new();
        for character in list.chars() {
            match character {
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                '{' => depth += 1,
                ',' if depth == 0 => used.push(identifier(&std::mem::take(&mut item))),
                _ if depth == 0 => item.push(character),
                _ => {}
            }
        }
        used.push(identifier(&item));
    }
    used.retain(|module| !module.is_empty());
    used
}

/// The identifier that `text` starts with, after white space.
fn identifier(text: &str) -> String {
    let part = |c: &char| c.is_alphanumeric() || *c == '_';
    text.trim_start().chars().take_while(part).collect()
}

/// The row of `module` in [`LAYERS`].
fn row(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// Every `.rs` file under `folders` of the package; a folder may be missing.
fn sources(folders: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<_> = folders.iter().map(|folder| root.join(folder)).collect();
    folders.retain(|folder| folder.is_dir());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// Name of the top-level module that the file at `path` belongs to.
fn module_of(path: &Path) -> String {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let top = path.strip_prefix(src).unwrap().components().next().unwrap();
    Path::new(top.as_os_str())
        .file_stem()
        .unwrap()
        .to_string_lossy()
        .into_owned()
}
