//! `CLIENT TRACKING` and its kin: checked and answered here, done by
//! [`Tracking`](crate::session::Tracking).

use super::argument::{self, NOT_AN_INTEGER, SYNTAX_ERROR};
use super::{After, Local};
use crate::resp::{Request, encode, parse_i64};
use crate::session::{Client, Tracks};
use crate::telemetry::NodeState;

/// `CLIENT TRACKING ON|OFF [REDIRECT id] [BCAST] [PREFIX prefix ...] [OPTIN] [OPTOUT] [NOLOOP]`.
/// Checked in Redis's order (`clientCommand` in `networking.c`).
pub(super) fn tracking(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) -> After {
    match begin(local, request) {
        Ok(true) => return After::Broadcast,
        Ok(false) => encode::simple(out, "OK"),
        Err(text) => encode::error(out, text),
    }
    After::Continue
}

/// What the arguments ask for.
struct Options<'a> {
    tracks: Tracks,
    redirect: u64,
    prefixes: Vec<&'a [u8]>,
}

/// Whether the nodes have to be asked first.
fn begin(local: &Local<'_>, request: &Request<'_>) -> Result<bool, Vec<u8>> {
    let Options {
        tracks,
        redirect,
        mut prefixes,
    } = options(local, request)?;
    let word = request.arg(2);
    if argument::is(word, "off") {
        local.tracking.end(local.client);
        return Ok(false);
    }
    if !argument::is(word, "on") {
        return Err(SYNTAX_ERROR.into());
    }
    let now = local.client.tracks();
    let either = Tracks::OPTIN.with(Tracks::OPTOUT);
    let text = if !tracks.bcast() && !prefixes.is_empty() {
        "ERR PREFIX option requires BCAST mode to be enabled"
    } else if now.is_on() && now.bcast() != tracks.bcast() {
        "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and \
         then re-enabling it with a different mode."
    } else if tracks.bcast() && tracks.has(either) {
        "ERR OPTIN and OPTOUT are not compatible with BCAST"
    } else if tracks.has(Tracks::OPTIN) && tracks.has(Tracks::OPTOUT) {
        "ERR You can't specify both OPTIN mode and OPTOUT mode"
    } else if tracks.has(Tracks::OPTIN) && now.has(Tracks::OPTOUT)
        || tracks.has(Tracks::OPTOUT) && now.has(Tracks::OPTIN)
    {
        "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and \
         then re-enabling it with a different mode."
    } else {
        ""
    };
    if !text.is_empty() {
        return Err(text.into());
    }
    if tracks.bcast() {
        check_prefixes(local, &prefixes)?;
        if prefixes.is_empty() {
            prefixes.push(b"");
        }
    }
    let Some(client) = local.registry.get(local.client.id) else {
        return Err(b"ERR CLIENT TRACKING needs a connection".into());
    };
    let nodes = (local.nodes)();
    let mut nodes = nodes.iter();
    if nodes.any(|node| node.state == NodeState::Connected && !node.tracking) {
        return Err(NODES_TELL_NOTHING.into());
    }
    let caching = if now.has(Tracks::CACHING) {
        Tracks::CACHING
    } else {
        Tracks::default()
    };
    local.client.set_tracks(tracks.with(caching), redirect);
    local.tracking.begin(&client, &prefixes);
    Ok(tracks.bcast())
}

fn options<'a>(local: &Local<'_>, request: &Request<'a>) -> Result<Options<'a>, Vec<u8>> {
    let mut options = Options {
        tracks: Tracks::ON,
        redirect: 0,
        prefixes: Vec::new(),
    };
    let mut args = request.args().skip(3);
    while let Some(option) = args.next() {
        let flags = [
            ("bcast", Tracks::BCAST),
            ("optin", Tracks::OPTIN),
            ("optout", Tracks::OPTOUT),
            ("noloop", Tracks::NOLOOP),
        ];
        if let Some((_, flag)) = flags.iter().find(|(name, _)| argument::is(option, name)) {
            options.tracks = options.tracks.with(*flag);
        } else if argument::is(option, "redirect") && args.len() > 0 {
            if options.redirect != 0 {
                return Err(b"ERR A client can only redirect to a single other client".into());
            }
            let id = args.next().and_then(parse_i64).ok_or(NOT_AN_INTEGER)?;
            let target = u64::try_from(id).ok().and_then(|id| local.registry.get(id));
            let target = target.ok_or("ERR The client ID you want redirect to does not exist")?;
            options.redirect = target.id;
        } else if argument::is(option, "prefix")
            && let Some(prefix) = args.next()
        {
            if options.prefixes.len() == MAX_PREFIXES || prefix.len() > MAX_PREFIX_BYTES {
                return Err(b"ERR too many or too long prefixes".into());
            }
            options.prefixes.push(prefix);
        } else {
            return Err(SYNTAX_ERROR.into());
        }
    }
    Ok(options)
}

/// No two prefixes of a client may match the same key (`checkPrefixCollisionsOrReply` in Redis's
/// `tracking.c`).
fn check_prefixes(local: &Local<'_>, prefixes: &[&[u8]]) -> Result<(), Vec<u8>> {
    let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
    let before = local.tracking.prefixes(local.client.id);
    if before.len() + prefixes.len() > MAX_PREFIXES {
        return Err(b"ERR too many or too long prefixes".into());
    }
    for (at, prefix) in prefixes.iter().enumerate() {
        let existing = before.iter().map(|known| &**known);
        let mut existing = existing.map(|known| (known, "an existing"));
        let given = prefixes.iter().skip(at + 1);
        let mut given = given.map(|other| (*other, "another provided"));
        let found = existing.find(|(known, _)| overlap(known, prefix));
        let found = found.or_else(|| given.find(|(other, _)| overlap(other, prefix)));
        if let Some((other, which)) = found {
            return Err([
                b"ERR Prefix '",
                *prefix,
                b"' overlaps with ",
                which.as_bytes(),
                b" prefix '",
                other,
                b"'. Prefixes for a single client must not overlap.",
            ]
            .concat());
        }
    }
    Ok(())
}

/// `CLIENT CACHING YES|NO`
pub(super) fn caching(client: &Client, request: &Request<'_>, out: &mut Vec<u8>) {
    let (now, word) = (client.tracks(), request.arg(2));
    let text = if !now.is_on() {
        CACHING_WITHOUT_TRACKING
    } else if argument::is(word, "yes") {
        if now.has(Tracks::OPTIN) {
            ""
        } else {
            "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode."
        }
    } else if argument::is(word, "no") {
        if now.has(Tracks::OPTOUT) {
            ""
        } else {
            "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode."
        }
    } else {
        SYNTAX_ERROR
    };
    if !text.is_empty() {
        return encode::error(out, text);
    }
    client.set_tracks(now.with(Tracks::CACHING), client.redirect());
    encode::simple(out, "OK");
}

/// `CLIENT GETREDIR`
pub(super) fn get_redirect(client: &Client, out: &mut Vec<u8>) {
    encode::integer(out, redirect(client));
}

fn redirect(client: &Client) -> i64 {
    if client.tracks().is_on() {
        i64::try_from(client.redirect()).unwrap_or(i64::MAX)
    } else {
        -1
    }
}

/// `CLIENT TRACKINGINFO`
pub(super) fn info(local: &Local<'_>, out: &mut Vec<u8>) {
    let (protocol, client) = (local.protocol(), local.client);
    let tracks = client.tracks();
    let caching = |option| tracks.has(option) && tracks.has(Tracks::CACHING);
    let flags: Vec<&str> = [
        (!tracks.is_on(), "off"),
        (tracks.is_on(), "on"),
        (tracks.bcast(), "bcast"),
        (tracks.has(Tracks::OPTIN), "optin"),
        (caching(Tracks::OPTIN), "caching-yes"),
        (tracks.has(Tracks::OPTOUT), "optout"),
        (caching(Tracks::OPTOUT), "caching-no"),
        (tracks.noloop(), "noloop"),
        (tracks.has(Tracks::BROKEN), "broken_redirect"),
    ]
    .into_iter()
    .filter_map(|(set, flag)| set.then_some(flag))
    .collect();
    encode::map(out, protocol, 3);
    encode::bulk(out, b"flags");
    encode::set(out, protocol, flags.len());
    for flag in flags {
        encode::bulk(out, flag.as_bytes());
    }
    encode::bulk(out, b"redirect");
    encode::integer(out, redirect(client));
    let mut prefixes = local.tracking.prefixes(client.id);
    prefixes.sort_unstable();
    encode::bulk(out, b"prefixes");
    encode::array(out, prefixes.len());
    for prefix in prefixes {
        encode::bulk(out, &prefix);
    }
}

const CACHING_WITHOUT_TRACKING: &str = "ERR CLIENT CACHING can be called only when the client is \
    in tracking mode with OPTIN or OPTOUT mode enabled";

const NODES_TELL_NOTHING: &str = "ERR CLIENT TRACKING needs nodes that tell of changes: Redis 7.0 \
    or newer, where Tally's user may use CLIENT TRACKING";

/// Most prefixes of a client, and bytes of one. Redis has no bound.
const MAX_PREFIXES: usize = 128;
const MAX_PREFIX_BYTES: usize = 1024;
