//! Who may ask for what, and the headers of every response.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State as Extract};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::connection::Peer;
use super::{Failure, State};
use crate::config::{Admin, Secret};

/// Lets a request through, or refuses it.
pub(super) async fn guard(
    Extract(state): Extract<Arc<State>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let config = state.shared.live();
    let caller = Caller {
        method: request.method(),
        uri: request.uri(),
        headers: request.headers(),
        peer: peer.ip().to_canonical(),
    };
    let mut response = match caller.check(&config.admin, config.server.protected) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if response.status() == StatusCode::UNAUTHORIZED {
        // Basic, because that is what browsers ask their users for.
        let challenge = HeaderValue::from_static("Basic realm=\"Tally: any name, the token\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

struct Caller<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    peer: IpAddr,
}

impl Caller<'_> {
    fn check(&self, admin: &Admin, protected: bool) -> Result<(), Failure> {
        // An orchestrator's probe has no token, and learns nothing here that it could not see
        // otherwise.
        if matches!(self.uri.path(), "/healthz" | "/readyz") {
            return Ok(());
        }
        let Some(token) = &admin.token else {
            let open = admin
                .listen
                .is_some_and(|at| !at.ip().to_canonical().is_loopback());
            return if open || !protected || self.names_this_machine() {
                Ok(())
            } else {
                // A page on the internet whose host name was made to point here must not read this
                // machine's counters (DNS rebinding).
                Err(Failure::new(
                    StatusCode::FORBIDDEN,
                    "the Host header names neither an address nor localhost; use one of them, set \
                     admin.token, or set server.protected = false",
                ))
            };
        };
        let reads = matches!(*self.method, Method::GET | Method::HEAD);
        if (reads && self.peer.is_loopback() && self.names_this_machine()) || self.knows(token) {
            return Ok(());
        }
        Err(Failure::new(
            StatusCode::UNAUTHORIZED,
            "the token of admin.token is needed: Authorization: Bearer TOKEN",
        ))
    }

    /// Whether `Host` is an address or `localhost`.
    fn names_this_machine(&self) -> bool {
        let host = self.headers.get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let address = name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
    }

    /// Whether it brings the token, as `Bearer` or as the password of `Basic`.
    fn knows(&self, token: &Secret) -> bool {
        let given = self.headers.get(header::AUTHORIZATION);
        let Some((scheme, given)) = given
            .and_then(|given| given.to_str().ok())
            .and_then(|given| given.split_once(' '))
        else {
            return false;
        };
        let given = given.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return is_same(given.as_bytes(), token.reveal().as_bytes());
        }
        let Some(pair) = Some(given)
            .filter(|_| scheme.eq_ignore_ascii_case("basic"))
            .and_then(decode_base64)
        else {
            return false;
        };
        let mut parts = pair.splitn(2, |byte| *byte == b':');
        let password = parts.nth(1).unwrap_or_default();
        is_same(password, token.reveal().as_bytes())
    }
}

/// Compares in a time that depends on the lengths only.
fn is_same(given: &[u8], want: &[u8]) -> bool {
    let differences = given.iter().zip(want).fold(0, |all, (a, b)| all | (a ^ b));
    given.len() == want.len() && std::hint::black_box(differences) == 0
}

/// RFC 4648, with padding or without. Own code: one use, no dependency.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from((bits >> held) & 0xff).ok()?);
        }
    }
    Some(out)
}

/// Headers of every response. The page has its style and its script inline, and asks nobody but us.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice::from_ref;

    /// Status of the refusal of a request, 200 when it is let through.
    #[track_caller]
    fn check(
        (listen, token, protected): (&str, Option<&str>, bool),
        request: &str,
        peer: &str,
        headers: &[(HeaderName, &str)],
        want: u16,
    ) {
        let admin = Admin {
            tls: None,
            listen: Some(listen.parse().unwrap()),
            token: token.map(|token| Secret::new(token.to_owned())),
            visits_prefix: String::new(),
        };
        let (method, path) = request.split_once(' ').unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(name, value.parse().unwrap());
        }
        let caller = Caller {
            method: &method.parse().unwrap(),
            uri: &path.parse().unwrap(),
            headers: &map,
            peer: peer.parse().unwrap(),
        };
        let got = caller
            .check(&admin, protected)
            .map_err(|refusal| refusal.status.as_u16());
        assert_eq!(got.err().unwrap_or(200), want, "{request} {headers:?}");
    }

    const HERE: &str = "127.0.0.1:9380";
    const ALL: &str = "0.0.0.0:9380";

    #[test]
    fn without_a_token_only_names_of_this_machine_are_answered() {
        let loopback = (HERE, None, true);
        for host in ["127.0.0.1:9380", "localhost:9380", "LOCALHOST", "[::1]:1"] {
            check(
                loopback,
                "POST /visit/a",
                "127.0.0.1",
                &[(header::HOST, host)],
                200,
            );
        }
        for host in ["evil.example:9380", "localhost.evil.example", ""] {
            check(loopback, "GET /", "127.0.0.1", &[(header::HOST, host)], 403);
            check(
                loopback,
                "GET /healthz",
                "127.0.0.1",
                &[(header::HOST, host)],
                200,
            );
            check(
                (HERE, None, false),
                "GET /",
                "127.0.0.1",
                &[(header::HOST, host)],
                200,
            );
        }
        check(
            (ALL, None, false),
            "GET /",
            "10.0.0.1",
            &[(header::HOST, "tally.lan")],
            200,
        );
    }

    #[test]
    fn a_token_is_needed_to_change_and_from_elsewhere() {
        let guarded = (ALL, Some("hunter2"), true);
        let local = (header::HOST, "localhost");
        check(guarded, "GET /", "127.0.0.1", from_ref(&local), 200);
        check(
            guarded,
            "GET /",
            "127.0.0.1",
            &[(header::HOST, "evil.example")],
            401,
        );
        check(guarded, "POST /visit/a", "127.0.0.1", from_ref(&local), 401);
        check(guarded, "GET /", "10.0.0.1", from_ref(&local), 401);
        check(guarded, "GET /readyz", "10.0.0.1", &[], 200);
        for (given, want) in [
            ("Bearer hunter2", 200),
            ("bearer  hunter2", 200),
            ("Bearer hunter", 401),
            ("Bearer hunter22", 401),
            ("Bearer", 401),
            ("Basic YW55Omh1bnRlcjI=", 200), // any:hunter2
            ("Basic Omh1bnRlcjI", 200),      // :hunter2
            ("Basic aHVudGVyMg==", 401),     // hunter2
            ("Basic !", 401),
            ("Digest hunter2", 401),
        ] {
            let headers = [(header::AUTHORIZATION, given)];
            check(guarded, "POST /visit/a", "10.0.0.1", &headers, want);
        }
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        for (text, want) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8", "fo"),
            ("Zm9vYmE=", "fooba"),
        ] {
            assert_eq!(decode_base64(text).unwrap(), want.as_bytes());
        }
    }
}
