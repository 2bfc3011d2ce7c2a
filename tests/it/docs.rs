//! Cheap truths about the documents: what they name is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_code_map_names_what_is_there_and_every_module() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let map = section(&text, "## Code map");
    let mut named = BTreeSet::new();
    let mut missing = Vec::new();
    let mut folder = String::new();
    for code in code_spans(map) {
        let is_source = Path::new(code).extension().is_some_and(|end| end == "rs");
        let is_folder = code.ends_with('/') && !root().join(code).exists();
        let path =
            if root().join(code).exists() || code.starts_with("src/") || code.starts_with("tests/")
            {
                code.to_owned()
            } else if is_source || is_folder {
                // A bare name belongs to the folder named before it.
                format!("{folder}{code}")
            } else {
                continue;
            };
        if path.ends_with('/') && path.starts_with("src/") && code == path {
            folder.clone_from(&path);
        }
        if !root().join(&path).exists() {
            missing.push(path.clone());
        }
        named.insert(path);
    }
    assert!(missing.is_empty(), "named and not there: {missing:?}");
    assert!(named.len() > 40, "the map was not understood: {named:?}");
    let modules: Vec<_> = entries(&root().join("src"))
        .into_iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let slash = if path.is_dir() { "/" } else { "" };
            format!("src/{name}{slash}")
        })
        .filter(|module| !named.contains(module))
        .collect();
    assert!(modules.is_empty(), "not in the code map: {modules:?}");
}

#[test]
fn the_readme_names_the_two_commands_that_the_makefile_has() {
    let (readme, makefile) = (
        read(&root().join("README.md")),
        read(&root().join("Makefile")),
    );
    for target in ["run", "test"] {
        assert!(readme.contains(&format!("make {target}")), "{target}");
        assert!(makefile.contains(&format!("\n{target}:")), "{target}");
    }
}

#[test]
fn the_table_of_failures_names_tests_that_there_are() {
    let text = read(&root().join("docs/operations.md"));
    let table = section(&text, "## What fails, and what is kept");
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let last = rows.map(|row| row.trim_end_matches(" |").rsplit("| ").next().unwrap());
    let tests = last.flat_map(|cell| cell.split(", "));
    let tests: Vec<_> = tests.collect();
    assert!(tests.len() > 20, "{tests:?}");
    // A test without a file is in that of the one before.
    let mut source = String::new();
    for test in tests {
        let (file, name) = test.split_once("`: ").unwrap_or(("", test));
        if !file.is_empty() {
            let file = root().join("tests").join(file.trim_start_matches('`'));
            source = read(&file);
        }
        assert!(source.contains(&format!("#[test]\nfn {name}()")), "{test}");
    }
}

#[test]
fn links_to_files_and_headings_resolve() {
    let mut broken = Vec::new();
    let mut links = 0;
    for page in pages() {
        let text = read(&page);
        for target in targets(&text) {
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let linked = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            let resolves = linked.exists()
                && (heading.is_empty() || headings(&read(&linked)).contains(heading));
            if !resolves {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(links > 10, "the links were not found");
}

#[test]
fn links_and_headings_are_found() {
    let text = "# A `B` c, d\n[one](a.md) and [two](b.md#x) `[no](c.md)`\n```\n# [no](d.md)\n```\n";
    assert_eq!(targets(text), ["a.md", "b.md#x"]);
    assert_eq!(headings(text), BTreeSet::from(["a-b-c-d".to_owned()]));
}

/// Every Markdown file of the project: at the top and in its own folders.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in ["", "docs", "benches", "tests", "fuzz", "config"] {
        let folder = root().join(folder);
        let is_page = |path: &PathBuf| path.extension().is_some_and(|end| end == "md");
        pages.extend(entries(&folder).into_iter().filter(is_page));
    }
    pages
}

/// Where the links of a page lead, code left out.
fn targets(text: &str) -> Vec<&str> {
    prose(text)
        .flat_map(|line| {
            // Odd pieces lie between backticks.
            let pieces = line.split('`').step_by(2);
            pieces.flat_map(|piece| {
                let links = piece.split("](").skip(1);
                links.filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
            })
        })
        .collect()
}

/// The headings of a page, as links name them.
fn headings(text: &str) -> BTreeSet<String> {
    let titles = prose(text).filter(|line| line.starts_with('#'));
    titles
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            });
            kept.collect()
        })
        .collect()
}

/// The lines that stand outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// The text from a heading to the next one of its rank.
#[track_caller]
fn section<'t>(text: &'t str, heading: &str) -> &'t str {
    let (_, rest) = text.split_once(heading).unwrap();
    rest.split("\n## ").next().unwrap()
}

/// What stands between backticks.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[track_caller]
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
