//! The page at `/`.

use axum::response::Html;

/// One page with all it needs; it asks only the API.
pub(super) async fn page() -> Html<&'static str> {
    Html(PAGE)
}

const PAGE: &str = include_str!("page.html");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_asks_nobody_else() {
        assert!(PAGE.len() < 100 * 1024, "{} bytes", PAGE.len());
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            let at = PAGE.match_indices(outside).map(|(at, _)| at);
            // The SVG namespace is a name, not an address.
            let asked: Vec<_> = at
                .filter(|at| !PAGE[*at..].starts_with("http://www.w3.org/2000/svg"))
                .collect();
            assert!(asked.is_empty(), "{outside} at {asked:?}");
        }
    }

    #[test]
    fn the_page_writes_no_markup_from_data() {
        for sink in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!PAGE.contains(sink), "{sink}");
        }
    }
}
