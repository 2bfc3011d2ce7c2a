//! What an increment adds.

use crate::command::Increment;
use crate::resp::parse_i64;

/// What an increment adds, or the text of the error.
pub(super) fn delta(kind: Increment, amount: &[u8]) -> Result<i64, &'static str> {
    let amount = match kind {
        Increment::Incr => return Ok(1),
        Increment::Decr => return Ok(-1),
        Increment::IncrBy | Increment::DecrBy => {
            parse_i64(amount).ok_or("ERR value is not an integer or out of range")?
        }
    };
    match kind {
        Increment::DecrBy => amount.checked_neg().ok_or("ERR decrement would overflow"),
        _ => Ok(amount),
    }
}
