//! Durations and sizes as people write them: `250ms`, `5m`, `64MiB`.
//!
//! Own code rather than the crates humantime and bytesize: a dozen units, and exactly one spelling
//! each. bytesize takes `64mb` for 64,000,000 bytes where Redis's own file means 67,108,864;
//! here a lower-case suffix is refused instead of guessed.

use std::time::Duration;

/// Bytes of a `KiB`.
pub(super) const KIB: usize = 1 << 10;
/// Bytes of a `MiB`.
pub(super) const MIB: usize = 1 << 20;
/// Bytes of a `GiB`.
pub(super) const GIB: usize = 1 << 30;

/// Suffix and milliseconds, largest first.
const DURATIONS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Suffix and bytes, largest first among those that [`size_text`] writes.
const SIZES: [(&str, usize); 8] = [
    ("GiB", GIB),
    ("MiB", MIB),
    ("KiB", KIB),
    ("", 1),
    ("B", 1),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Reads a whole number with one of the units `ms`, `s`, `m`, `h`; a bare `0` needs none.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_number(text)?;
    if number == 0 && unit.is_empty() {
        return Some(Duration::ZERO);
    }
    let (_, unit_ms) = DURATIONS.iter().find(|(suffix, _)| *suffix == unit)?;
    number.checked_mul(*unit_ms).map(Duration::from_millis)
}

/// Reads a whole number of bytes, or with one of the units `B`, `KB`, `MB`, `GB`, `KiB`,
/// `MiB`, `GiB`.
pub(super) fn size(text: &str) -> Option<usize> {
    let (number, unit) = split_number(text)?;
    let (_, unit_bytes) = SIZES.iter().find(|(suffix, _)| *suffix == unit)?;
    usize::try_from(number).ok()?.checked_mul(*unit_bytes)
}

/// Writes `duration` in the largest unit that holds it exactly; [`duration()`] reads it back.
/// Parts of a millisecond are cut: no configured duration has any.
pub(super) fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    let exact = |unit_ms: u64| ms.is_multiple_of(u128::from(unit_ms));
    let unit = DURATIONS.iter().find(|(_, unit_ms)| exact(*unit_ms));
    let (suffix, unit_ms) = unit.unwrap_or(&("ms", 1));
    format!("{}{suffix}", ms / u128::from(*unit_ms))
}

/// Writes `bytes` in the largest binary unit that holds it exactly; [`size`] reads it back.
pub(super) fn size_text(bytes: usize) -> String {
    let exact = |unit_bytes: usize| bytes != 0 && bytes.is_multiple_of(unit_bytes);
    let unit = SIZES.iter().find(|(_, unit_bytes)| exact(*unit_bytes));
    let (suffix, unit_bytes) = unit.unwrap_or(&("", 1));
    format!("{}{suffix}", bytes / unit_bytes)
}

/// Splits `250ms` into 250 and `ms`.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at_checked(end.unwrap_or(text.len()))?;
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_a_whole_number() {
        for (text, want_ms) in [
            ("250ms", 250),
            ("1s", 1000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("0", 0),
            ("0s", 0),
        ] {
            let want = Some(Duration::from_millis(want_ms));
            assert_eq!(duration(text), want, "{text:?}");
        }
        for text in [
            "",
            "1",
            "s",
            "1.5s",
            "-1s",
            "1 s",
            "1S",
            "1d",
            "1sms",
            "99999999999999999h",
        ] {
            assert_eq!(duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_exact_in_case_and_unit() {
        for (text, want) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("64KB", 64_000),
            ("64MB", 64_000_000),
            ("64KiB", 65_536),
            ("256MiB", 268_435_456),
            ("1GiB", 1_073_741_824),
        ] {
            assert_eq!(size(text), Some(want), "{text:?}");
        }
        for text in [
            "",
            "MiB",
            "64mb",
            "64Mib",
            "1.5GiB",
            "-1",
            "1 MiB",
            "99999999999999GiB",
        ] {
            assert_eq!(size(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for ms in [
            0, 1, 250, 999, 1000, 1500, 60_000, 90_000, 3_600_000, 86_400_000,
        ] {
            let want = Duration::from_millis(ms);
            assert_eq!(duration(&duration_text(want)), Some(want), "{ms} ms");
        }
        for bytes in [
            0,
            1,
            1000,
            1024,
            1025,
            65_536,
            1 << 20,
            1 << 30,
            1_000_000,
            usize::MAX,
        ] {
            assert_eq!(size(&size_text(bytes)), Some(bytes), "{bytes} bytes");
        }
        assert_eq!(duration_text(Duration::from_millis(1500)), "1500ms");
        assert_eq!(size_text(512 << 20), "512MiB");
    }
}
