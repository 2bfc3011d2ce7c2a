//! Reads untyped values one by one, noting every fault and going on with the default.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use config::{Value, ValueKind};

use super::Secret;
use super::fault::Fault;
use super::raw::Section;
use super::units;

/// Most characters of a faulty value that are shown.
const SHOWN_CHARS: usize = 60;

/// Values in, settings and faults out.
pub(super) struct Reader {
    /// Variable that set a path: `server.listen` by `TALLY_SERVER__LISTEN`.
    variables: BTreeMap<String, String>,
    faults: Vec<Fault>,
}

impl Reader {
    pub(super) fn new(variables: BTreeMap<String, String>, faults: Vec<Fault>) -> Self {
        Self { variables, faults }
    }

    /// Everything that was wrong so far.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    /// Whether something is wrong at a place whose name starts with `place`.
    pub(super) fn is_faulty(&self, place: &str) -> bool {
        self.faults
            .iter()
            .any(|fault| fault.place.starts_with(place))
    }

    /// Notes what is wrong at `path`, naming the variable when one set it.
    pub(super) fn fault(&mut self, path: &str, problem: impl Into<String>) {
        let place = match self.variable(path) {
            Some(variable) => format!("{path} ({variable})"),
            None => path.to_owned(),
        };
        self.faults.push(Fault::new(place, problem));
    }

    /// The table at `path`, empty when it is not given; its unknown keys are noted.
    pub(super) fn section<S: Section>(&mut self, path: &str, value: Option<Value>) -> S {
        let Some(value) = value else {
            return S::default();
        };
        if !matches!(value.kind, ValueKind::Table(_)) {
            let problem = format!("{} is not a table; write [{path}]", shown(&value));
            self.fault(path, problem);
            return S::default();
        }
        // A section's fields take any value, so this fails on no table that TOML can write.
        let mut section = value.try_deserialize::<S>().unwrap_or_else(|error| {
            self.fault(path, error.to_string());
            S::default()
        });
        self.unknown(path, &mut section);
        section
    }

    /// The tables of the list at `path`; none of them when anything else is in it.
    pub(super) fn sections<S: Section>(&mut self, path: &str, value: Option<Value>) -> Vec<S> {
        let is_table = |value: &Value| matches!(value.kind, ValueKind::Table(_));
        match value.map(|value| value.kind) {
            None => Vec::new(),
            Some(ValueKind::Array(tables)) if tables.iter().all(is_table) => {
                let tables = tables.into_iter().enumerate();
                tables
                    .map(|(at, table)| self.section(&format!("{path}[{at}]"), Some(table)))
                    .collect()
            }
            Some(_) => {
                self.fault(path, format!("not a list of tables; write [[{path}]]"));
                Vec::new()
            }
        }
    }

    /// Notes the keys that `section` does not have.
    pub(super) fn unknown<S: Section>(&mut self, path: &str, section: &mut S) {
        let is_bare_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        for key in section.take_unknown().into_keys() {
            // As TOML writes it: a quoted key may hold anything, line breaks too.
            let key = if !key.is_empty() && key.bytes().all(is_bare_byte) {
                key
            } else {
                format!("{key:?}")
            };
            let place = if path.is_empty() {
                key
            } else {
                format!("{path}.{key}")
            };
            let allowed = S::KEYS.join(", ");
            self.fault(&place, format!("unknown key; allowed: {allowed}"));
        }
    }

    /// Text that `parse` takes; `allowed` says what that is.
    pub(super) fn text<T>(
        &mut self,
        path: &str,
        value: Option<Value>,
        default: T,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        let parse = |value: &Value| match &value.kind {
            ValueKind::String(text) => parse(text),
            _ => None,
        };
        self.value(path, value, default, allowed, parse)
    }

    /// A whole number in `range`.
    pub(super) fn number<N>(
        &mut self,
        path: &str,
        value: Option<Value>,
        default: N,
        range: &RangeInclusive<N>,
    ) -> N
    where
        N: Copy + Display + PartialOrd + TryFrom<i64>,
    {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        let from_variable = self.variable(path).is_some();
        self.value(path, value, default, &allowed, |value| {
            let number = match &value.kind {
                ValueKind::I64(number) => *number,
                ValueKind::String(text) if from_variable => text.parse().ok()?,
                _ => return None,
            };
            N::try_from(number)
                .ok()
                .filter(|number| range.contains(number))
        })
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, path: &str, value: Option<Value>, default: bool) -> bool {
        let from_variable = self.variable(path).is_some();
        self.value(
            path,
            value,
            default,
            "true or false",
            |value| match &value.kind {
                ValueKind::Boolean(boolean) => Some(*boolean),
                ValueKind::String(text) if from_variable => text.parse().ok(),
                _ => None,
            },
        )
    }

    /// A duration in `range_ms`, or zero when `zero` says what that means.
    pub(super) fn duration(
        &mut self,
        path: &str,
        value: Option<Value>,
        default_ms: u64,
        range_ms: &RangeInclusive<u64>,
        zero: Option<&str>,
    ) -> Duration {
        let [first, last] = [range_ms.start(), range_ms.end()]
            .map(|ms| units::duration_text(Duration::from_millis(*ms)));
        let zero_allowed = zero.map_or(String::new(), |meaning| {
            format!(", or \"0s\" for {meaning}")
        });
        let allowed =
            format!("a duration from \"{first}\" to \"{last}\" (units ms, s, m, h){zero_allowed}");
        let in_range = |duration: &Duration| {
            let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            range_ms.contains(&ms) || (ms == 0 && zero.is_some())
        };
        let default = Duration::from_millis(default_ms);
        self.value(path, value, default, &allowed, |value| match &value.kind {
            ValueKind::String(text) => units::duration(text).filter(in_range),
            ValueKind::I64(0) => Some(Duration::ZERO).filter(in_range),
            _ => None,
        })
    }

    /// A number of bytes in `range`.
    pub(super) fn size(
        &mut self,
        path: &str,
        value: Option<Value>,
        default: usize,
        range: &RangeInclusive<usize>,
    ) -> usize {
        let [first, last] = [range.start(), range.end()].map(|bytes| units::size_text(*bytes));
        let allowed = format!(
            "a size from \"{first}\" to \"{last}\" (bytes, or units KB, MB, GB, KiB, MiB, GiB)"
        );
        self.value(path, value, default, &allowed, |value| {
            let size = match &value.kind {
                ValueKind::String(text) => units::size(text)?,
                ValueKind::I64(bytes) => usize::try_from(*bytes).ok()?,
                _ => return None,
            };
            Some(size).filter(|size| range.contains(size))
        })
    }

    /// The secret at `path` (a password, a token), or on the first line of the file that the key
    /// of the same name and `_file` names. Empty means none, as in Redis's `requirepass ""`. Its
    /// value is never part of a fault.
    pub(super) fn secret(
        &mut self,
        path: &str,
        password: Option<Value>,
        file: Option<Value>,
    ) -> Option<Secret> {
        let file_path = format!("{path}_file");
        let name = path.rsplit('.').next().unwrap_or(path);
        let password = match password.map(|value| value.kind) {
            None => None,
            Some(ValueKind::String(text)) => Some(text).filter(|text| !text.is_empty()),
            Some(_) => {
                self.fault(path, format!("not text; put the {name} in quotes"));
                None
            }
        };
        let no_file = String::new();
        let file = self.text(
            &file_path,
            file,
            no_file,
            "a file's path in quotes",
            |text| Some(text.to_owned()),
        );
        if file.is_empty() {
            return password.map(Secret::new);
        }
        if password.is_some() {
            self.fault(
                &file_path,
                format!("given together with {name}; allowed: one of the two"),
            );
            return None;
        }
        match std::fs::read_to_string(&file) {
            Err(error) => self.fault(&file_path, format!("can not read {file:?}: {error}")),
            Ok(text) => match text.lines().next().filter(|line| !line.is_empty()) {
                Some(line) => return Some(Secret::new(line.to_owned())),
                None => self.fault(&file_path, format!("the first line of {file:?} is empty")),
            },
        }
        None
    }

    /// What `parse` makes of the value; the default when it is not given, or faulty.
    fn value<T>(
        &mut self,
        path: &str,
        value: Option<Value>,
        default: T,
        allowed: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> T {
        let Some(value) = value else {
            return default;
        };
        parse(&value).unwrap_or_else(|| {
            self.fault(
                path,
                format!("{} is not allowed; allowed: {allowed}", shown(&value)),
            );
            default
        })
    }

    /// The variable that set `path`, itself or as a part of the node list.
    fn variable(&self, path: &str) -> Option<&str> {
        let whole = path.split_once('[').map_or(path, |(list, _)| list);
        self.variables.get(whole).map(String::as_str)
    }
}

/// A faulty value as a file would say it, short.
fn shown(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) if text.chars().count() > SHOWN_CHARS => {
            let start: String = text.chars().take(SHOWN_CHARS).collect();
            format!("{start:?}...")
        }
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        _ => value.to_string(),
    }
}
