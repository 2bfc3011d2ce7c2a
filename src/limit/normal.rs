//! The normal form of a script: its tokens, without what can not change its meaning.
//!
//! White space and comments are left out, strings are quoted one way, the command of a
//! `redis.call` is in capitals, and local variables are numbered in the order in which they
//! appear. Two scripts with the same normal form do the same: renaming is one-to-one, and only
//! names that are declared local somewhere and are nothing else in Redis (see [`TAKEN`]) are
//! renamed. A name used outside of its variable's scope is then an undefined global, which is an
//! error in Redis whatever the name.

/// Longest script that is normalised, in bytes. The longest of the catalogue has 330.
pub const MAX_BODY_BYTES: usize = 4096;

/// The normal form of `body`; `None` for what is longer than [`MAX_BODY_BYTES`] or can not be
/// normalised with certainty. Linear in the length, but for one search among the local names for
/// each name.
pub(super) fn normal_form(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() > MAX_BODY_BYTES {
        return None;
    }
    let tokens = tokens(body)?;
    let locals = locals(&tokens)?;
    let mut form = Vec::with_capacity(body.len());
    let mut seen: Vec<&[u8]> = Vec::new();
    let mut braces = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Name(name) if !is_field(&tokens, at) && locals.contains(name) => {
                // `{name = value}` names a field, which a local's new name must not change.
                if braces > 0 && tokens.get(at + 1) == Some(&Token::Symbol(b"=")) {
                    return None;
                }
                let number = seen.iter().position(|known| known == name);
                let number = number.unwrap_or_else(|| {
                    seen.push(name);
                    seen.len() - 1
                });
                form.push(b'#');
                form.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            }
            Token::Name(word) | Token::Number(word) => form.extend_from_slice(word),
            Token::Text(text) => {
                form.push(b'"');
                if is_command(&tokens, at) {
                    form.extend(text.iter().map(u8::to_ascii_uppercase));
                } else {
                    form.extend_from_slice(text);
                }
                form.push(b'"');
            }
            Token::Symbol(symbol) => {
                match *symbol {
                    b"{" => braces += 1,
                    b"}" => braces = braces.saturating_sub(1),
                    _ => {}
                }
                form.extend_from_slice(symbol);
            }
        }
        // No token holds a line end, so that none can look like two.
        form.push(b'\n');
    }
    Some(form)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Token<'a> {
    Name(&'a [u8]),
    Number(&'a [u8]),
    /// What is between the quotes; without escapes, so both quotes mean the same.
    Text(&'a [u8]),
    Symbol(&'a [u8]),
}

fn tokens(body: &[u8]) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = skip_blank(body)?;
    while let Some(first) = rest.first() {
        let (token, len) = match first {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let name = rest.get(..run(rest, is_word))?;
                // A function's parameters have a scope that would have to be followed.
                if name == b"function" {
                    return None;
                }
                (Token::Name(name), name.len())
            }
            b'0'..=b'9' => {
                let number = rest.get(..run(rest, is_word))?;
                // Hexadecimal, or with an exponent.
                if !number.iter().all(u8::is_ascii_digit) {
                    return None;
                }
                (Token::Number(number), number.len())
            }
            // A long string.
            b'[' if matches!(rest.get(1), Some(b'[' | b'=')) => return None,
            b'\'' | b'"' => {
                let text = quoted(rest)?;
                (Token::Text(text), text.len() + 2)
            }
            _ => {
                let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(symbol))?;
                (Token::Symbol(symbol), symbol.len())
            }
        };
        tokens.push(token);
        rest = skip_blank(rest.get(len..)?)?;
    }
    Some(tokens)
}

/// What is left behind white space and comments; `None` within a comment that does not end, or a
/// long one, which would need more rules than it is worth.
fn skip_blank(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        rest = rest.trim_ascii_start();
        let Some(comment) = rest.strip_prefix(b"--") else {
            return Some(rest);
        };
        if comment.starts_with(b"[[") {
            let end = comment.windows(2).position(|pair| pair == b"]]")?;
            rest = comment.get(end + 2..)?;
        } else if comment.starts_with(b"[=") {
            return None;
        } else {
            // Lua ends a line at either.
            let end = run(comment, |byte| !matches!(byte, b'\n' | b'\r'));
            rest = comment.get(end..)?;
        }
    }
}

/// The text of the string that `rest` starts with; `None` if it has escapes, quotes of the other
/// kind or line ends, or does not end.
fn quoted(rest: &[u8]) -> Option<&[u8]> {
    let (quote, rest) = rest.split_first()?;
    let end = rest.iter().position(|byte| byte == quote)?;
    let text = rest.get(..end)?;
    let plain = |byte: &u8| !matches!(byte, b'\\' | b'\'' | b'"' | b'\n' | b'\r');
    text.iter().all(plain).then_some(text)
}

/// The names that are declared local somewhere, loop variables included; `None` if one of them is
/// taken.
fn locals<'a>(tokens: &[Token<'a>]) -> Option<Vec<&'a [u8]>> {
    let mut names = Vec::new();
    let mut declares = false;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Name(b"local" | b"for") => declares = true,
            Token::Name(name) if declares => {
                if TAKEN.contains(name) {
                    return None;
                }
                if !names.contains(name) {
                    names.push(*name);
                }
                declares = tokens.get(at + 1) == Some(&Token::Symbol(b","));
            }
            _ => {}
        }
    }
    Some(names)
}

/// Whether the name at `at` is a field's or a method's.
fn is_field(tokens: &[Token<'_>], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| tokens.get(before));
    matches!(before, Some(Token::Symbol(b"." | b":")))
}

/// Whether the string at `at` is the command in `redis.call("command"` or `redis.pcall`.
fn is_command(tokens: &[Token<'_>], at: usize) -> bool {
    let before = at.checked_sub(4).and_then(|start| tokens.get(start..at));
    matches!(
        before,
        Some([
            Token::Name(b"redis"),
            Token::Symbol(b"."),
            Token::Name(b"call" | b"pcall"),
            Token::Symbol(b"("),
        ])
    )
}

/// Length of the part at the start of `text` in which all bytes are `part`.
fn run(text: &[u8], part: impl Fn(u8) -> bool) -> usize {
    let end = text.iter().position(|byte| !part(*byte));
    end.unwrap_or(text.len())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Lua's symbols, longer ones before their beginnings.
const SYMBOLS: &[&[u8]] = &[
    b"...", b"..", b"==", b"~=", b"<=", b">=", b"+", b"-", b"*", b"/", b"%", b"^", b"#", b"<",
    b">", b"=", b"(", b")", b"{", b"}", b"[", b"]", b";", b":", b",", b".",
];

/// Names that mean something without being declared: Lua 5.1's words and globals, and Redis's
/// (`deps/lua`, `script_lua.c`).
const TAKEN: &[&[u8]] = &[
    b"and",
    b"break",
    b"do",
    b"else",
    b"elseif",
    b"end",
    b"false",
    b"for",
    b"function",
    b"if",
    b"in",
    b"local",
    b"nil",
    b"not",
    b"or",
    b"repeat",
    b"return",
    b"then",
    b"true",
    b"until",
    b"while",
    b"ARGV",
    b"KEYS",
    b"_G",
    b"_VERSION",
    b"assert",
    b"bit",
    b"cjson",
    b"cmsgpack",
    b"collectgarbage",
    b"coroutine",
    b"debug",
    b"dofile",
    b"error",
    b"gcinfo",
    b"getfenv",
    b"getmetatable",
    b"ipairs",
    b"load",
    b"loadfile",
    b"loadstring",
    b"math",
    b"module",
    b"newproxy",
    b"next",
    b"os",
    b"package",
    b"pairs",
    b"pcall",
    b"print",
    b"rawequal",
    b"rawget",
    b"rawset",
    b"redis",
    b"require",
    b"select",
    b"server",
    b"setfenv",
    b"setmetatable",
    b"string",
    b"struct",
    b"table",
    b"tonumber",
    b"tostring",
    b"type",
    b"unpack",
    b"xpcall",
];

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "local n = tonumber(redis.call('GET', KEYS[1]) or '0')
if n >= tonumber(ARGV[1]) then return -1 end
local after = redis.call('INCR', KEYS[1])
return {n, after, 'x-y'}";

    #[track_caller]
    fn check_same(body: &str) {
        let form = normal_form(body.as_bytes());
        assert!(form.is_some(), "{body}");
        assert_eq!(form, normal_form(SCRIPT.as_bytes()), "{body}");
    }

    #[track_caller]
    fn check_differs(body: &str) {
        let form = normal_form(body.as_bytes());
        assert_ne!(form, normal_form(SCRIPT.as_bytes()), "{body}");
    }

    #[test]
    fn what_does_not_change_the_meaning_is_left_out() {
        check_same(&SCRIPT.replace('\n', "\r\n\t "));
        check_same(&SCRIPT.replace('\n', " "));
        check_same(&SCRIPT.replace(", ", ",").replace(" = ", "="));
        check_same(&SCRIPT.replace("return -1", "return - 1 --[[ denied ]]"));
        check_same(&SCRIPT.replace('\n', " -- it's a comment\n"));
        check_same(&SCRIPT.replace('\n', " -- an old line end\r"));
        check_same(&SCRIPT.replace('\'', "\""));
        check_same(&SCRIPT.replace("'GET'", "'get'").replace("INCR", "Incr"));
        check_same(&format!("--\n{SCRIPT}--"));
        check_same(&SCRIPT.replace("after", "_after2"));
        check_same(&SCRIPT.replace("after", "call"));
    }

    #[test]
    fn what_changes_the_meaning_is_kept() {
        let changes = [
            (">=", ">"),
            (">=", "> ="),
            ("-1", "1"),
            ("-1", "-2"),
            ("-1", "10"),
            ("INCR", "DECR"),
            ("'0'", "'1'"),
            ("'0'", "0"),
            ("KEYS[1]) or", "KEYS[2]) or"),
            ("ARGV[1]", "ARGV[2]"),
            ("or", "and"),
            ("local after", "after"),
            ("{n, after", "{after, n"),
            ("{n, after", "{n, n"),
            ("x-y", "X-Y"),
            ("x-y", "x - y"),
            ("tonumber(ARGV[1])", "ARGV[1]"),
            ("redis.call('INCR'", "redis.pcall('INCR'"),
            ("return -1", "--return -1\n"),
            ("return -1", "return --[[-1]]"),
            ("return -1", "return --\r-2\n"),
            ("if n", "if  not n"),
        ];
        for (from, to) in changes {
            assert!(SCRIPT.contains(from), "{from}");
            check_differs(&SCRIPT.replacen(from, to, 1));
        }
    }

    #[test]
    fn a_line_end_of_either_kind_ends_a_comment() {
        check_differs(&SCRIPT.replace('\n', " --\rredis.call('DEL', KEYS[1])\n"));
    }

    #[test]
    fn locals_that_change_places_are_the_same() {
        let form = |body: &str| normal_form(body.as_bytes()).unwrap();
        let one = form("local a, b = 1, 2 return a - b");
        assert_eq!(form("local b, a = 1, 2 return b - a"), one);
        assert_ne!(form("local a, b = 1, 2 return b - a"), one);
    }

    #[test]
    fn a_global_is_not_a_local_with_another_name() {
        let one = b"local a = tonumber(ARGV[1]) local tonumber = 1 return a";
        let two = b"local a = type(ARGV[1]) local type = 1 return a";
        assert_eq!((normal_form(one), normal_form(two)), (None, None));
        let form = |body: &str| normal_form(body.as_bytes()).unwrap();
        assert_ne!(form("return foo"), form("return bar"));
        let fields = (
            form("local call = 1 return redis.call"),
            form("local pcall_ = 1 return redis.pcall_"),
        );
        assert_ne!(fields.0, fields.1);
    }

    #[test]
    fn what_is_not_certain_has_no_form() {
        for body in [
            "return [[a b]]",
            "return [=[a]=]",
            "--[=[ a ]=] return 1",
            "--[[ no end",
            "return 'it\\'s'",
            "return 'no end",
            "return 0x10",
            "return 1e3",
            "return \"'\"",
            "local f = function(x) return x end",
            "local x = 1 return {x = x}",
            "#!lua name=x\nreturn 1",
            "return \u{e4}",
            "return @",
            "return 1 \0",
            "local KEYS = 1 return KEYS",
        ] {
            assert_eq!(normal_form(body.as_bytes()), None, "{body}");
        }
        let longest = format!("return 1{}", " ".repeat(MAX_BODY_BYTES - 8));
        assert!(normal_form(longest.as_bytes()).is_some());
        assert_eq!(normal_form(format!("{longest} ").as_bytes()), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>, text in "[-a-z'\"\\[\\]={}(). \n]{0,60}") {
            normal_form(&body);
            normal_form(text.as_bytes());
        }
    }
}
