//! What the system says about this process. Zero where there is no `/proc` (macOS).

use std::collections::hash_map::RandomState;
use std::fmt::Write;
use std::fs;
use std::hash::BuildHasher;
use std::time::Duration;

/// Memory and processor time of this process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ProcessUsage {
    /// Memory in RAM, in bytes (`VmRSS`).
    pub resident_bytes: u64,
    /// The most there ever was, in bytes (`VmHWM`).
    pub peak_resident_bytes: u64,
    /// Processor time outside the kernel.
    pub cpu_user: Duration,
    /// Processor time inside the kernel.
    pub cpu_system: Duration,
}

impl ProcessUsage {
    /// Reads `/proc/self`; costs two system files, about 50 microseconds.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self::parse(&status, &stat)
    }

    fn parse(status: &str, stat: &str) -> Self {
        // The command name stands in parentheses and may hold spaces and parentheses itself.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut fields = after_name.split_ascii_whitespace().skip(11);
        let mut ticks = || {
            let ticks: u64 = fields.next().and_then(|field| field.parse().ok())?;
            Some(Duration::from_millis(ticks.saturating_mul(TICK_MS)))
        };
        Self {
            resident_bytes: kilobytes(status, "VmRSS:"),
            peak_resident_bytes: kilobytes(status, "VmHWM:"),
            cpu_user: ticks().unwrap_or_default(),
            cpu_system: ticks().unwrap_or_default(),
        }
    }
}

/// Release of the running kernel (`6.1.0-44-amd64`), where `/proc` tells it.
pub fn kernel_release() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(text.trim().to_owned())
}

/// Memory of the machine, in bytes.
pub fn system_memory_bytes() -> u64 {
    kilobytes(
        &fs::read_to_string("/proc/meminfo").unwrap_or_default(),
        "MemTotal:",
    )
}

/// A name for this run: 40 random hexadecimal digits, as `run_id` has in Redis. Not a secret.
pub fn random_run_id() -> String {
    let mut id = String::with_capacity(48);
    // Every `RandomState` hashes with other keys, seeded by the system.
    while id.len() < 40 {
        let word = RandomState::new().hash_one(id.len());
        write!(id, "{word:016x}").unwrap_or_default();
    }
    id.truncate(40);
    id
}

fn kilobytes(status: &str, label: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(label));
    let number = line.and_then(|rest| rest.split_ascii_whitespace().next());
    let kilobytes: u64 = number.and_then(|text| text.parse().ok()).unwrap_or(0);
    kilobytes.saturating_mul(1024)
}

/// Milliseconds of one clock tick: `USER_HZ` is 100 in Linux's interface to programs (`proc(5)`).
const TICK_MS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 31 0 0";
        let usage = ProcessUsage::parse("VmHWM:\t 20 kB\nVmRSS:\t    12 kB\n", stat);
        assert_eq!(usage.resident_bytes, 12 * 1024);
        assert_eq!(usage.peak_resident_bytes, 20 * 1024);
        assert_eq!(usage.cpu_user, Duration::from_millis(2500));
        assert_eq!(usage.cpu_system, Duration::from_millis(310));
    }

    #[test]
    fn without_proc_everything_is_zero() {
        assert_eq!(ProcessUsage::parse("", ""), ProcessUsage::default());
    }

    #[test]
    fn run_ids_are_40_hexadecimal_digits_and_differ() {
        let (one, other) = (random_run_id(), random_run_id());
        assert_eq!(one.len(), 40);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one, other);
    }
}
