//! How keys are treated: `[counters]`, `[cache]`, and `[[rules]]` for some of them.

use std::time::Duration;

use config::Value;

use super::raw;
use super::reader::Reader;
use super::resolve::{HOUR_MS, MINUTE_MS, SECOND_MS};
use super::units::{GIB, KIB, MIB};
use super::{Cache, Counters, Mode, Rule};
use crate::counter::Rules;
use crate::glob::MAX_PATTERN_BYTES;

pub(super) fn counters(reader: &mut Reader, value: Option<Value>) -> Counters {
    let raw: raw::Counters = reader.section("counters", value);
    Counters {
        mode: mode(reader, "counters.mode", raw.mode, Mode::Buffered),
        flush_interval: flush_interval(
            reader,
            "counters.flush_interval",
            raw.flush_interval,
            SECOND_MS,
        ),
        window: window(reader, "counters.window", raw.window, 0),
        local_grants: reader.boolean("counters.local_grants", raw.local_grants, false),
        max_keys: reader.number(
            "counters.max_keys",
            raw.max_keys,
            1_000_000,
            &(1..=100_000_000),
        ),
    }
}

pub(super) fn cache(reader: &mut Reader, value: Option<Value>) -> Cache {
    let raw: raw::Cache = reader.section("cache", value);
    Cache {
        ttl: cache_ttl(reader, "cache.ttl", raw.ttl, 5 * SECOND_MS),
        max_bytes: reader.size(
            "cache.max_bytes",
            raw.max_bytes,
            256 * MIB,
            &(64 * KIB..=1024 * GIB),
        ),
    }
}

/// Checks the rules; what one does not say is as in `counters` and `cache`.
pub(super) fn rules(
    reader: &mut Reader,
    value: Option<Value>,
    counters: &Counters,
    cache: &Cache,
) -> Vec<Rule> {
    let raw_rules: Vec<raw::Rule> = reader.sections("rules", value);
    let given = raw_rules.len();
    if given > Rules::MAX {
        reader.fault(
            "rules",
            format!("{given} rules; allowed: at most {}", Rules::MAX),
        );
    }
    let rules = raw_rules.into_iter().enumerate();
    rules
        .map(|(at, raw)| rule(reader, at, raw, counters, cache))
        .collect()
}

fn rule(
    reader: &mut Reader,
    at: usize,
    raw: raw::Rule,
    counters: &Counters,
    cache: &Cache,
) -> Rule {
    let path = |key: &str| format!("rules[{at}].{key}");
    let allowed =
        format!("a pattern as in KEYS, such as \"api:*\", of 1 to {MAX_PATTERN_BYTES} bytes");
    if raw.pattern.is_none() {
        reader.fault(&path("match"), format!("missing; allowed: {allowed}"));
    }
    let is_pattern = |text: &str| (1..=MAX_PATTERN_BYTES).contains(&text.len());
    let own_window = raw.window.is_some();
    let own_grants = raw.local_grants.is_some();
    let rule = Rule {
        pattern: reader.text(
            &path("match"),
            raw.pattern,
            String::new(),
            &allowed,
            |text| is_pattern(text).then(|| text.to_owned()),
        ),
        mode: mode(reader, &path("mode"), raw.mode, counters.mode),
        flush_interval: flush_interval(
            reader,
            &path("flush_interval"),
            raw.flush_interval,
            ms(counters.flush_interval),
        ),
        cache_ttl: cache_ttl(reader, &path("cache_ttl"), raw.cache_ttl, ms(cache.ttl)),
        window: window(reader, &path("window"), raw.window, ms(counters.window)),
        local_grants: reader.boolean(
            &path("local_grants"),
            raw.local_grants,
            counters.local_grants,
        ),
    };
    if own_window && rule.mode != Mode::Exact && !rule.window.is_zero() {
        reader.fault(&path("window"), "is for the mode \"exact\" only");
    }
    if own_grants && rule.mode != Mode::Buffered && rule.local_grants {
        reader.fault(&path("local_grants"), "is for the mode \"buffered\" only");
    }
    rule
}

fn mode(reader: &mut Reader, path: &str, value: Option<Value>, default: Mode) -> Mode {
    let allowed = "\"buffered\", \"exact\", \"through\"";
    let modes = [Mode::Buffered, Mode::Exact, Mode::Through];
    reader.text(path, value, default, allowed, |text| {
        modes.into_iter().find(|mode| mode.name() == text)
    })
}

fn flush_interval(
    reader: &mut Reader,
    path: &str,
    value: Option<Value>,
    default_ms: u64,
) -> Duration {
    reader.duration(path, value, default_ms, &(10..=MINUTE_MS), None)
}

fn cache_ttl(reader: &mut Reader, path: &str, value: Option<Value>, default_ms: u64) -> Duration {
    reader.duration(path, value, default_ms, &(1..=HOUR_MS), Some("off"))
}

fn window(reader: &mut Reader, path: &str, value: Option<Value>, default_ms: u64) -> Duration {
    reader.duration(path, value, default_ms, &(1..=10), Some("off"))
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
