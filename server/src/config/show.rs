//! The settings as a file: with their defaults, or as they are with where each comes from.

use std::fmt::Write;

use seracdb_engine::SettingRow;
use serde_json::Value;

use super::given::Source;
use super::load::{Loaded, expected};
use super::mask::masked;
use super::settings::{Kind, Section, Setting, sections, settings};

/// Columns of a line.
const WIDTH: usize = 118;

/// A file with all settings, their defaults, and what they are for. What is commented out has no default.
pub fn default_file() -> String {
    file(|setting, out| {
        let _ = write!(out, "{}", comment(&described(setting)));
        let (_, name) = setting.section_and_name();
        match (&setting.default, &setting.example) {
            (Value::Null, Some(example)) => writeln!(out, "# {name} = {}", toml_of(example)),
            (value, _) => writeln!(out, "{name} = {}", toml_of(value)),
        }
        .unwrap_or_default();
    })
}

/// A file with all settings as they are, each with where it comes from; without secrets.
pub fn merged_file(loaded: &Loaded) -> String {
    let mut out = settings_of(loaded);
    let mut access = loaded.config.engine.storage.s3.shown().peekable();
    if access.peek().is_some() {
        out.push_str("\n# What the client of an S3 object store is told by the environment, besides.\n");
    }
    for (name, value) in access {
        let _ = writeln!(out, "# {name} = {}", toml_of(&Value::from(value.unwrap_or("***"))));
    }
    out
}

fn settings_of(loaded: &Loaded) -> String {
    file(|setting, out| {
        let (_, name) = setting.section_and_name();
        let (value, source) = value_of(loaded, setting);
        let line = match value {
            Value::Null => format!("# {name} ="),
            value => format!("{name} = {}", toml_of(&masked(value))),
        };
        let _ = writeln!(out, "{line}  # {source}");
    })
}

impl Loaded {
    /// All settings as they are, for whoever asks a server that runs with them; without secrets.
    pub(crate) fn shown(&self) -> Vec<SettingRow> {
        let row = |setting: &Setting| {
            let (value, source) = value_of(self, setting);
            SettingRow {
                name: setting.path.clone(),
                value: text_of(&masked(value)),
                default: text_of(&setting.default),
                source: source.to_string(),
                variable: setting.variable(),
                description: setting.text.clone(),
            }
        };
        settings().iter().map(row).collect()
    }
}

/// A value as a text; nothing is none.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(toml_of(other)),
    }
}

/// What a setting is now, and where that comes from.
pub(super) fn value_of<'a>(loaded: &'a Loaded, setting: &'a Setting) -> (&'a Value, &'a Source) {
    match loaded.set.get(&setting.path) {
        Some((value, source)) => (value, source),
        None => (&setting.default, &Source::Default),
    }
}

fn file(mut line: impl FnMut(&Setting, &mut String)) -> String {
    let mut out = String::new();
    for Section { path, text } in sections() {
        let mut own = settings().iter().filter(|setting| setting.section_and_name().0 == path).peekable();
        if own.peek().is_none() {
            continue;
        }
        let blank = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{blank}{}[{path}]", comment(text));
        own.for_each(|setting| line(setting, &mut out));
    }
    out
}

/// What a setting is for, with the limits that its type has.
fn described(setting: &Setting) -> String {
    let limits = match &setting.kind {
        Kind::Integer(0, to) if *to >= u64::from(u32::MAX) => return setting.text.clone(),
        Kind::Integer(from, to) if *to >= u64::from(u32::MAX) => format!("at least {from}"),
        Kind::Integer(from, to) => format!("{from} to {to}"),
        Kind::OneOf(names) if !setting.text.contains(&format!("\"{}\"", names[0])) => expected(&setting.kind),
        Kind::OneOf(_) | Kind::Bool | Kind::Text | Kind::Texts => return setting.text.clone(),
    };
    format!("{} ({limits}).", setting.text.trim_end_matches('.'))
}

/// Words as lines of a comment.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.len() + word.len() + 3 > WIDTH {
            let _ = writeln!(lines, "#{line}");
            line.clear();
        }
        let _ = write!(line, " {word}");
    }
    if !line.is_empty() {
        let _ = writeln!(lines, "#{line}");
    }
    lines
}

/// A value as TOML has it.
fn toml_of(value: &Value) -> String {
    match value {
        // JSON's texts are TOML's basic ones.
        Value::Array(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
