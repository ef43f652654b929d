//! Mistakes in the settings.

use std::fmt;

use serde_json::Value;

use super::mask::masked;

/// One mistake: where it is, what was found there, and what is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, the variable or the flag; empty as long as it is not known.
    pub place: String,
    /// The setting's path, or what is in the place of one.
    pub key: String,
    /// What stands there.
    pub found: String,
    /// What can stand there.
    pub expected: String,
}

impl Problem {
    /// A value that a setting cannot have. Its place is found by its key.
    pub(super) fn value(key: &str, found: impl Into<Value>, expected: &str) -> Self {
        let found: Value = found.into();
        Self { place: String::new(), key: key.to_owned(), found: shown(&found), expected: expected.to_owned() }
    }

    /// A setting that needs another one.
    pub(super) fn lacking(key: &str, beside: &str, why: &str) -> Self {
        let (found, expected) = (format!("it without '{beside}'"), format!("both: {why}"));
        Self { place: String::new(), key: key.to_owned(), found, expected }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, key, found, expected } = self;
        write!(f, "{place}: {key}: found {found}, expected {expected}")
    }
}

/// A value as a message has it; without secrets.
pub(super) fn shown(value: &Value) -> String {
    match masked(value) {
        Value::String(text) => format!("'{text}'"),
        Value::Object(_) => "a section".to_owned(),
        other => other.to_string(),
    }
}

/// Settings that cannot be used: all that is wrong with them.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Problem>);

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "the settings have a mistake: {one}"),
            all => {
                write!(f, "the settings have {} mistakes:", all.len())?;
                all.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}
