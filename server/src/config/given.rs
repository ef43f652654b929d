//! What the file, the environment and the flags give, each value with where it comes from.

use std::fmt;
use std::path::{Path, PathBuf};

use seracdb_engine::S3Access;
use serde_json::{Map, Value};

use super::problem::Problem;
use super::settings::{Kind, Setting, sections, setting};

/// Where a value comes from; later ones win.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Nobody has set it.
    Default,
    /// The TOML file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value of what may be a setting.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) path: String,
    pub(super) value: Value,
    pub(super) source: Source,
}

/// What a file sets. It is read here.
pub(super) fn from_file(file: &Path) -> Result<Vec<Given>, Problem> {
    let problem = |key: &str, found: String, expected: &str| Problem {
        place: file.display().to_string(),
        key: key.to_owned(),
        found,
        expected: expected.to_owned(),
    };
    let text = std::fs::read_to_string(file)
        .map_err(|error| problem("the file", format!("'{error}'"), "a file that can be read"))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        problem(&format!("line {line}"), format!("what is no TOML ({})", error.message()), "TOML")
    })?;
    let mut given = Vec::new();
    flatten(&table, "", &mut |path, value| {
        given.push(Given { path, value, source: Source::File(file.to_owned()) });
    });
    Ok(given)
}

fn flatten(table: &toml::Table, above: &str, give: &mut impl FnMut(String, Value)) {
    for (name, value) in table {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        match value {
            // What is a setting has its value looked at, also when that should be no section; and so has a section that there is
            // not, of which nothing else would be said.
            toml::Value::Table(inner) if setting(&path).is_none() && (is_section(&path) || !inner.is_empty()) => {
                flatten(inner, &path, give);
            }
            value => give(path, json(value)),
        }
    }
}

fn is_section(path: &str) -> bool {
    sections().iter().any(|section| section.path == path)
}

fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text.clone()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => Value::from(*number),
        toml::Value::Boolean(value) => Value::Bool(*value),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(items) => Value::Array(items.iter().map(json).collect()),
        toml::Value::Table(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), json(value))).collect::<Map<_, _>>())
        }
    }
}

/// What an environment variable sets; `None` for one that is not ours, and for SERACDB_ROOT_PASSWORD and its like, which have no
/// section. One of a section with a single underscore behind it sets what is no setting: to pass over it would leave
/// somebody with a default.
pub(super) fn from_variable(name: &str, text: &str) -> Option<Given> {
    let path = name.strip_prefix("SERACDB_")?.to_ascii_lowercase();
    if !path.contains("__") && !is_of_a_section(&path, text) {
        return None;
    }
    let path = path.replace("__", ".");
    let value = of_text(setting(&path), text);
    Some(Given { path, value, source: Source::Variable(name.to_owned()) })
}

fn is_of_a_section(path: &str, text: &str) -> bool {
    let mut names = sections().iter().filter_map(|section| path.strip_prefix(section.path.as_str())?.strip_prefix('_'));
    names.any(|name| !is_of_kubernetes(name, text))
}

/// Whether it tells where a service is: Kubernetes gives every container such variables, as SERACDB_HTTP_SERVICE_HOST of a
/// service that is called seracdb-http.
fn is_of_kubernetes(name: &str, text: &str) -> bool {
    let is_address = name == "port" && text.contains("://");
    is_address || ["port_", "service_host", "service_port"].iter().any(|start| name.starts_with(start))
}

/// What the environment says of an S3 object store, in the variables that all programs for S3 read.
pub(super) fn s3_access(variables: &[(String, String)]) -> S3Access {
    S3Access::from_variables(variables.iter().map(|(name, text)| (name.as_str(), text.as_str())))
}

/// What a flag sets.
pub(super) fn from_flag(flag: &'static str, path: &str, text: &str) -> Given {
    Given { path: path.to_owned(), value: of_text(setting(path), text), source: Source::Flag(flag) }
}

/// A value that was written as text, of the kind that the setting wants, if it can be that.
fn of_text(setting: Option<&Setting>, text: &str) -> Value {
    let as_text = || Value::String(text.to_owned());
    let Some(setting) = setting else { return as_text() };
    if text.is_empty() && setting.is_optional {
        return Value::Null;
    }
    match &setting.kind {
        Kind::Bool => match text {
            "true" | "1" => Value::Bool(true),
            "false" | "0" => Value::Bool(false),
            _ => as_text(),
        },
        Kind::Integer(..) => text.parse::<i64>().map_or_else(|_| as_text(), Value::from),
        Kind::Texts => match format!("list = {text}").parse::<toml::Table>() {
            Ok(table) => table.get("list").map_or_else(as_text, json),
            Err(_) => as_text(),
        },
        Kind::Text | Kind::OneOf(_) => as_text(),
    }
}
