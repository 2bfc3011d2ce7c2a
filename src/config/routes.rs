//! Which node some keys are on: `[[routes]]`.

use config::Value;

use super::raw;
use super::reader::Reader;
use super::{Node, Route};
use crate::glob::MAX_PATTERN_BYTES;

/// Most routes; a bound for what a key is compared with.
const MAX_ROUTES: usize = 255;

/// Checks the routes; each names one of `nodes` or none.
pub(super) fn routes(reader: &mut Reader, value: Option<Value>, nodes: &[Node]) -> Vec<Route> {
    let raw_routes: Vec<raw::Route> = reader.sections("routes", value);
    let given = raw_routes.len();
    if given > MAX_ROUTES {
        let problem = format!("{given} routes; allowed: at most {MAX_ROUTES}");
        reader.fault("routes", problem);
    }
    let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
    let routes = raw_routes.into_iter().enumerate();
    routes
        .map(|(at, raw)| route(reader, at, raw, &names))
        .collect()
}

fn route(reader: &mut Reader, at: usize, raw: raw::Route, names: &[&str]) -> Route {
    let path = |key: &str| format!("routes[{at}].{key}");
    let allowed =
        format!("a pattern as in KEYS, such as \"jobs:*\", of 1 to {MAX_PATTERN_BYTES} bytes");
    if raw.pattern.is_none() {
        reader.fault(&path("match"), format!("missing; allowed: {allowed}"));
    }
    let is_pattern = |text: &str| (1..=MAX_PATTERN_BYTES).contains(&text.len());
    let pattern = reader.text(
        &path("match"),
        raw.pattern,
        String::new(),
        &allowed,
        |text| is_pattern(text).then(|| text.to_owned()),
    );
    let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
    let allowed = format!(
        "the name of a node ({}), or \"\" for the ring",
        quoted.join(", ")
    );
    let node = reader.text(&path("node"), raw.node, None, &allowed, |text| match text {
        "" => Some(None),
        name => names.contains(&name).then(|| Some(name.to_owned())),
    });
    Route { pattern, node }
}
