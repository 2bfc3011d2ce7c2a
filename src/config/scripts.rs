//! `[[limit_scripts]]`: increment-with-limit scripts besides those that Tally knows.

use config::Value;

use super::LimitScript;
use super::raw;
use super::reader::Reader;
use crate::limit::{MAX_ARGUMENT, MAX_DEFINITIONS, Unit};

pub(super) fn limit_scripts(reader: &mut Reader, value: Option<Value>) -> Vec<LimitScript> {
    let given: Vec<raw::LimitScript> = reader.sections("limit_scripts", value);
    if given.len() > MAX_DEFINITIONS {
        let problem = format!(
            "{} scripts; allowed: at most {MAX_DEFINITIONS}",
            given.len()
        );
        reader.fault("limit_scripts", problem);
    }
    let mut scripts: Vec<LimitScript> = Vec::with_capacity(given.len());
    for (at, raw) in given.into_iter().enumerate() {
        let script = limit_script(reader, at, raw);
        let same = |other: &LimitScript| !script.sha1.is_empty() && other.sha1 == script.sha1;
        if let Some(other) = scripts.iter().position(same) {
            let problem = format!("the same as limit_scripts[{other}].sha1");
            reader.fault(&format!("limit_scripts[{at}].sha1"), problem);
        }
        scripts.push(script);
    }
    scripts
}

fn limit_script(reader: &mut Reader, at: usize, raw: raw::LimitScript) -> LimitScript {
    let path = |key: &str| format!("limit_scripts[{at}].{key}");
    let allowed = "the SHA-1 of the body, 40 hexadecimal digits";
    if raw.sha1.is_none() {
        reader.fault(&path("sha1"), format!("missing; allowed: {allowed}"));
    }
    if raw.limit.is_none() {
        let problem = format!("missing; allowed: a whole number from 1 to {MAX_ARGUMENT}");
        reader.fault(&path("limit"), problem);
    }
    let is_sha = |text: &str| text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let units = [("s", Unit::Seconds), ("ms", Unit::Milliseconds)];
    LimitScript {
        sha1: reader.text(&path("sha1"), raw.sha1, String::new(), allowed, |text| {
            is_sha(text).then(|| text.to_ascii_lowercase())
        }),
        limit: reader.number(&path("limit"), raw.limit, 1, &(1..=MAX_ARGUMENT)),
        ttl: reader.number(&path("ttl"), raw.ttl, 0, &(0..=MAX_ARGUMENT)),
        ttl_unit: reader.text(
            &path("ttl_unit"),
            raw.ttl_unit,
            Unit::Seconds,
            "\"s\", \"ms\"",
            |text| {
                units
                    .into_iter()
                    .find(|(name, _)| *name == text)
                    .map(|(_, unit)| unit)
            },
        ),
        denied: reader.number(&path("denied"), raw.denied, -1, &(MIN_DENIED..=-MIN_DENIED)),
    }
}

/// Replies that Lua's numbers hold exactly.
const MIN_DENIED: i64 = -(1 << 53);
