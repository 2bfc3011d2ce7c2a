//! What is in a journal, as text.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use super::JournalError;
use super::file::{HEADER_WORDS, Header, SERIES, SERIES_WORDS, Series};
use crate::flush::{Slots, Stage};

/// Says what is in the journal at `path`, which may be in use meanwhile: then some of it may have
/// changed between two lines. Databases of nodes that were never connected to are left out. Nothing
/// is written.
///
/// # Errors
///
/// The file can not be read, or is no journal.
pub fn inspect(path: &Path) -> Result<String, JournalError> {
    let bytes = fs::read(path).map_err(|source| JournalError::Io {
        path: path.to_owned(),
        what: "can not be read",
        source,
    })?;
    let words = bytes.as_chunks::<8>().0.iter();
    let words = words.map(|word| AtomicU64::new(u64::from_le_bytes(*word)));
    // The process ends right after.
    let words: &'static [AtomicU64] = Box::leak(words.collect());
    describe(words).map_err(|what| JournalError::Foreign {
        path: path.to_owned(),
        what,
    })
}

fn describe(words: &'static [AtomicU64]) -> Result<String, String> {
    let header = Header::of(words);
    let instance = header.check()?;
    let start = HEADER_WORDS + SERIES * SERIES_WORDS;
    let slots = words.get(start..).ok_or("it was cut short")?;
    let slots = Slots::new(slots);
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("instance {instance}"));
    line(format!("epoch    {}", header.epoch()));
    line(format!(
        "slots    {} taken of {}",
        slots.taken(),
        slots.capacity()
    ));
    let found: Vec<_> = slots.read().collect();
    let holding = found
        .iter()
        .flatten()
        .map(|found| usize::from(found.series));
    let holding: BTreeSet<_> = holding.collect();
    let mut names = Vec::new();
    for number in 0..SERIES {
        let Some(series) = Series::at(words, number) else {
            break;
        };
        let Some((node, database)) = series.read()? else {
            break;
        };
        let mut text = format!("series   {number}: node {node}, database {database}");
        if let Some((run_id, client_id)) = series.connection() {
            write!(text, ", last connection {client_id} of run {run_id}").unwrap_or_default();
            line(text);
        } else if holding.contains(&number) {
            line(text);
        }
        names.push(node);
    }
    for found in found {
        let found = match found {
            Ok(found) => found,
            Err(damaged) => {
                line(damaged.to_string());
                continue;
            }
        };
        let increment = found.increment;
        let node = names.get(usize::from(found.series));
        let mut text = match found.stage {
            Stage::Sealed(number) => format!("batch {number}"),
            Stage::Pending => "pending".to_owned(),
            Stage::InDoubt => "in doubt".to_owned(),
        };
        write!(
            text,
            "  {}  {:?}  {:+}",
            node.map_or("?", String::as_str),
            increment.key,
            increment.delta
        )
        .unwrap_or_default();
        if let Some(deadline) = increment.deadline {
            let due = if increment.due { " to be set" } else { "" };
            write!(text, "  ends at {deadline} ms{due}").unwrap_or_default();
        }
        line(text);
    }
    Ok(out)
}
