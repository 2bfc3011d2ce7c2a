//! What is wrong with a configuration.

use std::fmt;

/// One thing that is wrong, in one line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// Where: a key's path (`server.threads`, `nodes[1].weight`), a variable, or a file.
    pub place: String,
    /// What is wrong there and what is allowed. Never holds a secret.
    pub problem: String,
}

impl Fault {
    /// At a place, a problem.
    pub fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

/// Everything that is wrong, at least one fault; displays one fault a line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            let newline = if at == 0 { "" } else { "\n" };
            write!(f, "{newline}{fault}")?;
        }
        Ok(())
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}
