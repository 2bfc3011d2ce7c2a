//! What `CONFIG SET` sets of Tally's own.

use std::ops::RangeInclusive;
use std::task::Waker;
use std::time::Duration;

use super::{Local, argument};
use crate::access::NewChannels;
use crate::resp::parse_i64;
use crate::telemetry::{Percentiles, log};

/// A change of a parameter, checked.
pub(super) type Change = Box<dyn FnOnce(&Local<'_>)>;

/// The change that sets this parameter; or why there is none, in Redis's words. `None`: the
/// parameter can not be set.
pub(super) fn settable(name: &str, value: &[u8]) -> Option<Result<Change, String>> {
    Some(match name {
        "acl-pubsub-default" => choice(value, &NEW_CHANNELS, set_new_channels),
        "latency-tracking" => choice(value, &YES_NO, |local, is_on| {
            local.stats.commands.tell_durations(is_on);
        }),
        "latency-tracking-info-percentiles" => match Percentiles::parse(value) {
            Ok(percentiles) => Ok(Box::new(move |local| {
                local.stats.commands.set_percentiles(percentiles);
            })),
            Err(error) => Err(error.to_string()),
        },
        "loglevel" => choice(value, &LOG_LEVELS, set_log_level),
        _ => return number_settable(name, value),
    })
}

/// The same of those that are numbers.
fn number_settable(name: &str, value: &[u8]) -> Option<Result<Change, String>> {
    let (set, range): (fn(&Local<'_>, i64), _) = match name {
        "latency-monitor-threshold" => (
            |local, ms| local.stats.latency.set_threshold_ms(ms),
            0..=i64::MAX,
        ),
        "slowlog-log-slower-than" => (
            |local, us| local.stats.slow_log.set_slower_than_us(us),
            -1..=i64::MAX,
        ),
        "acllog-max-len" => (
            |local, len| {
                let len = usize::try_from(len).unwrap_or(0);
                local.directory.log.set_max_len(len);
            },
            0..=65_536,
        ),
        "slowlog-max-len" => (
            |local, len| local.stats.slow_log.set_max_len(len),
            0..=65_536,
        ),
        // The bounds of server.idle_timeout.
        "timeout" => (set_timeout, 0..=86_400),
        "tracking-table-max-keys" => (
            |local, most| {
                let mut wakes = Vec::new();
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                local.tracking.set_max_keys(most, &mut wakes);
                wakes.into_iter().for_each(Waker::wake);
            },
            0..=i64::MAX,
        ),
        _ => return None,
    };
    Some(number(value, range, set))
}

fn number(
    value: &[u8],
    range: RangeInclusive<i64>,
    set: fn(&Local<'_>, i64),
) -> Result<Change, String> {
    let number = parse_i64(value).ok_or("argument couldn't be parsed into an integer")?;
    if !range.contains(&number) {
        let (least, most) = range.into_inner();
        return Err(format!(
            "argument must be between {least} and {most} inclusive"
        ));
    }
    Ok(Box::new(move |local| set(local, number)))
}

/// One of some words, each with what it stands for.
fn choice<T: Copy + 'static>(
    value: &[u8],
    words: &[(&str, T)],
    set: fn(&Local<'_>, T),
) -> Result<Change, String> {
    let chosen = words.iter().find(|(word, _)| argument::is(value, word));
    if let Some((_, meaning)) = chosen {
        let meaning = *meaning;
        return Ok(Box::new(move |local| set(local, meaning)));
    }
    let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    if words == ["yes", "no"] {
        return Err("argument must be 'yes' or 'no'".to_owned());
    }
    let words = words.join(", ");
    Err(format!("argument(s) must be one of the following: {words}"))
}

const YES_NO: [(&str, bool); 2] = [("yes", true), ("no", false)];

const NEW_CHANNELS: [(&str, NewChannels); 2] = [
    ("allchannels", NewChannels::All),
    ("resetchannels", NewChannels::None),
];

/// Redis's words for what is logged, and ours, the most first.
const LOG_LEVELS: [(&str, &str); 4] = [
    ("debug", "trace"),
    ("verbose", "debug"),
    ("notice", "info"),
    ("warning", "warn"),
];

fn set_new_channels(local: &Local<'_>, new: NewChannels) {
    let changed = local
        .directory
        .change(local.registry, local.client, |users| {
            Ok::<_, ()>((users.with_new_channels(new), ()))
        });
    debug_assert!(changed.is_ok(), "{changed:?}");
}

fn set_timeout(local: &Local<'_>, seconds: i64) {
    let timeout = u64::try_from(seconds).map(Duration::from_secs);
    let timeout = timeout.ok().filter(|timeout| !timeout.is_zero());
    (local.change_config)(&|config| config.server.idle_timeout = timeout);
}

/// Logs so much of every module from now on.
fn set_log_level(local: &Local<'_>, level: &'static str) {
    (local.change_config)(&|config| level.clone_into(&mut config.log_level));
    log::set(level);
}

/// Redis's word for which channels new users may use.
pub(super) fn new_channels(new: NewChannels) -> &'static str {
    let known = NEW_CHANNELS.iter().find(|(_, meaning)| *meaning == new);
    known.map_or("resetchannels", |(word, _)| word)
}

/// Redis's word for what is logged of modules that `log.level` does not name.
pub(super) fn log_level(directives: &str) -> &'static str {
    let of_all = directives.split(',').find(|one| !one.contains('='));
    match of_all {
        Some("trace") => "debug",
        Some("debug") => "verbose",
        Some("warn" | "error" | "off") => "warning",
        _ => "notice",
    }
}
