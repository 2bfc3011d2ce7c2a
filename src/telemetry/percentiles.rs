//! Which percentiles of the durations of commands are told.

use std::fmt;

/// Shares of all calls, in millionths of a percent, in the order in which they were asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Percentiles(Vec<u64>);

/// Why a text names no percentiles; the first two in Redis's words.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoPercentiles {
    /// Something in it is no number.
    #[error("Invalid latency-tracking-info-percentiles parameters")]
    NoNumber,
    /// One is past the hundredth.
    #[error("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]")]
    Outside,
    /// There is a bound.
    #[error("at most {MOST} percentiles")]
    TooMany,
}

impl Percentiles {
    /// Reads numbers with a space between each two; an empty text is none.
    ///
    /// # Errors
    ///
    /// See [`NoPercentiles`].
    pub fn parse(text: &[u8]) -> Result<Self, NoPercentiles> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let each = text.split(|byte| *byte == b' ');
        let read: Vec<u64> = each.map(millionths).collect::<Result<_, _>>()?;
        if read.len() > MOST {
            return Err(NoPercentiles::TooMany);
        }
        Ok(Self(read))
    }

    /// Each of them.
    pub fn each(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }
}

impl Default for Percentiles {
    /// Redis's default.
    fn default() -> Self {
        Self(vec![50_000_000, 99_000_000, 99_900_000])
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.each().map(shown).collect();
        f.write_str(&shown.join(" "))
    }
}

/// Millionths of a percent as a decimal number, without zeros at its end.
pub fn shown(millionths: u64) -> String {
    let text = format!("{}.{:06}", millionths / PERCENT, millionths % PERCENT);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `99.9`; digits behind the sixth are dropped.
fn millionths(text: &[u8]) -> Result<u64, NoPercentiles> {
    let point = text.iter().position(|byte| *byte == b'.');
    let (whole, part) = text
        .split_at_checked(point.unwrap_or(text.len()))
        .unwrap_or_default();
    let part = part.get(1..).unwrap_or_default();
    let is_number = |digits: &[u8]| digits.iter().all(u8::is_ascii_digit);
    if !is_number(whole) || !is_number(part) || whole.is_empty() && part.is_empty() {
        return Err(NoPercentiles::NoNumber);
    }
    let digit = |byte: &u8| u64::from(byte - b'0');
    let percents = whole.iter().fold(0_u64, |sum, byte| {
        sum.saturating_mul(10).saturating_add(digit(byte))
    });
    let zeros = std::iter::repeat(&b'0');
    let sixth = part.iter().chain(zeros).take(6);
    let behind = sixth.fold(0, |sum, byte| sum * 10 + digit(byte));
    let all = percents.saturating_mul(PERCENT).saturating_add(behind);
    if all > 100 * PERCENT {
        return Err(NoPercentiles::Outside);
    }
    Ok(all)
}

/// One percent, in millionths of it.
const PERCENT: u64 = 1_000_000;

/// Most percentiles: each line of `INFO` holds them all.
const MOST: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Result<&str, NoPercentiles>) {
        let got = Percentiles::parse(text.as_bytes()).map(|read| read.to_string());
        assert_eq!(got, want.map(str::to_owned), "{text}");
    }

    #[test]
    fn they_are_told_without_zeros_at_the_end() {
        assert_eq!(Percentiles::default().to_string(), "50 99 99.9");
        check("0.0 50.0 100.0", Ok("0 50 100"));
        check("99.990", Ok("99.99"));
        check(".5", Ok("0.5"));
        check("12.34567891", Ok("12.345678"));
        check("", Ok(""));
    }

    #[test]
    fn what_is_no_percentile_is_refused() {
        for text in ["a", "50  99", "50.0 a", ".", "1.2.3", "-1"] {
            check(text, Err(NoPercentiles::NoNumber));
        }
        check("10.0 100.1", Err(NoPercentiles::Outside));
        check("99999999999999999999999", Err(NoPercentiles::Outside));
        check(&"1 ".repeat(101)[..201], Err(NoPercentiles::TooMany));
    }
}
