//! Rules of the counting core that its own tests may switch off, one at a time, to see that the
//! search for a fault finds one (`counter/search`). Outside of tests every rule holds, and asking
//! costs nothing.

/// One rule of the core.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rule {
    /// A barrier waits until the key's batches are answered.
    BatchesFirst,
    /// A barrier waits for a run of several in flight.
    RunFirst,
    /// Nothing on a key passes what waits there.
    QueueFirst,
    /// A command on several keys takes its place at all of them in one step.
    AllKeysAtOnce,
    /// A GET in flight is not joined across a barrier.
    FetchCut,
    /// A reply that was requested before a change is not kept.
    Generations,
    /// A reply that was requested before somebody else's change is not kept.
    InvalidateFetches,
    /// A cached value goes when somebody else changes the key.
    InvalidateCached,
    /// A clean counter goes when somebody else changes the key.
    InvalidateWarm,
    /// A clean counter is answered for the time of its lease only.
    Lease,
    /// Clean counters are forgotten with the connection.
    ForgetOnLoss,
    /// Counters with something pending are not.
    KeepOnLoss,
    /// The members of a run have one sign.
    OneSign,
    /// A run that was refused is sent again one by one.
    RunSplit,
    /// An increment here is checked on the value.
    ValueChecked,
    /// An increment here is checked on the pending sum too.
    PendingChecked,
    /// An answer settles every batch up to the marker's number.
    SettleUpTo,
    /// What was not acknowledged is sent again.
    SendAgain,
    /// A command on the whole node goes when nothing is pending or in flight.
    WholeNodeAlone,
}

/// Whether the rule is kept: always, but in a test that has switched it off.
#[cfg(not(test))]
#[inline]
pub(crate) const fn holds(_: Rule) -> bool {
    true
}

#[cfg(test)]
pub(crate) use switch::{holds, without};

#[cfg(test)]
mod switch {
    use std::cell::Cell;

    use super::Rule;

    thread_local! {
        static OFF: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    pub(crate) fn holds(rule: Rule) -> bool {
        OFF.get() != Some(rule)
    }

    /// Does `work` in this thread with one rule switched off.
    pub(crate) fn without<R>(rule: Option<Rule>, work: impl FnOnce() -> R) -> R {
        OFF.set(rule);
        let result = work();
        OFF.set(None);
        result
    }
}
