//! The apps of `tests/apps`: they run unchanged on a plain Redis and on Tally, only the URL differs.
//!
//! Each has a check of its own that holds its answers to its document; both servers pass the same.

use crate::clients::Program;

#[test]
fn the_visit_counter_runs_on_either() {
    let mut app = Program::python("apps/visits/check.py");
    app.needs.push(app.interpreter.with_file_name("uvicorn"));
    app.check();
}

#[test]
fn the_analytics_app_runs_on_either() {
    let mut app = Program::node("apps/analytics/check.js");
    // Fewer than the document's 100,000 increments that await each other: debug builds are slow.
    app.arguments = &["20000"];
    app.check();
}
