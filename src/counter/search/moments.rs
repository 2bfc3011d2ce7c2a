//! Moments within a step of the lane in which another thread may use the table: before the lane
//! locks a shard, and before it delivers a reply.

use std::cell::RefCell;

type Hook = Box<dyn FnMut()>;

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// Has `hook` called at every moment of `run`, but not at those of its own.
pub(super) fn with<R>(hook: impl FnMut() + 'static, run: impl FnOnce() -> R) -> R {
    HOOK.set(Some(Box::new(hook)));
    let result = run();
    HOOK.set(None);
    result
}

/// There is one now.
pub(in crate::counter) fn pass() {
    if let Some(mut hook) = HOOK.take() {
        hook();
        HOOK.set(Some(hook));
    }
}
