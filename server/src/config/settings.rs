//! What settings there are: read from the types of the tree, once.
//!
//! The tree is nested as the crates are, the file as people look for things: [`MOUNTS`] says which part of the one is where
//! in the other.

use std::fmt;
use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::ServerConfig;

/// Parts of the tree, and where the file has them; the first that fits counts.
const MOUNTS: [(&str, &str); 15] = [
    ("engine.storage.data_dir", "server.data_dir"),
    ("engine.storage.object_store", "server.object_store"),
    ("engine.storage.take_over", "server.take_over"),
    ("engine.storage.node_id", "server.node_id"),
    ("engine.storage.flush", "flush"),
    ("engine.storage.compaction", "compaction"),
    ("engine.storage.manifest_cache", "manifest_cache"),
    ("engine.storage", "storage"),
    ("engine.transaction", "transaction"),
    ("engine.pruning", "pruning"),
    ("engine.jobs", "jobs"),
    ("engine.user", "limits.user"),
    ("engine.queries", "queries"),
    ("engine.statement", "limits.statement"),
    ("engine.query_memory_max", "limits.query_memory_max"),
];

/// The order of the sections in a file.
const SECTIONS: [&str; 17] = [
    "server",
    "server.tls",
    "http",
    "auth",
    "limits",
    "limits.user",
    "queries",
    "flight",
    "transaction",
    "engine",
    "pruning",
    "storage",
    "flush",
    "compaction",
    "jobs",
    "manifest_cache",
    "log",
];

/// What values a setting can have.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Bool,
    /// From and to, both included.
    Integer(u64, u64),
    Text,
    OneOf(Vec<String>),
    Texts,
}

/// One setting.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// Its path in a file.
    pub(super) path: String,
    /// Where it is in the tree.
    pub(super) at: Vec<String>,
    /// What it is for.
    pub(super) text: String,
    pub(super) kind: Kind,
    /// Whether it may be nothing.
    pub(super) is_optional: bool,
    /// `Null` = nothing.
    pub(super) default: Value,
    /// For one that is nothing by default.
    pub(super) example: Option<Value>,
}

impl Setting {
    /// The section that it is in, and its name there.
    pub(super) fn section_and_name(&self) -> (&str, &str) {
        self.path.rsplit_once('.').unwrap_or(("", &self.path))
    }

    /// The environment variable that sets it.
    pub(super) fn variable(&self) -> String {
        format!("SERACDB_{}", self.path.to_ascii_uppercase().replace('.', "__"))
    }
}

/// A section of a file.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) path: String,
    pub(super) text: String,
}

/// All settings, in the order of a file.
pub(super) fn settings() -> &'static [Setting] {
    &KNOWN.0
}

/// All sections, in the order of a file.
pub(super) fn sections() -> &'static [Section] {
    &KNOWN.1
}

/// The setting of this path in a file.
pub(super) fn setting(path: &str) -> Option<&'static Setting> {
    settings().iter().find(|setting| setting.path == path)
}

static KNOWN: LazyLock<(Vec<Setting>, Vec<Section>)> = LazyLock::new(|| {
    let generator = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
    let schema = generator.into_root_schema_for::<ServerConfig>().to_value();
    let json = serde_json::to_string(&ServerConfig::default()).unwrap_or_default();
    let (defaults, order) = (serde_json::from_str(&json), serde_json::from_str(&json));
    let (mut found, mut sections) = (Vec::new(), Vec::new());
    collect(
        &schema,
        &defaults.unwrap_or_default(),
        &order.unwrap_or_default(),
        &mut Vec::new(),
        &mut found,
        &mut sections,
    );
    let place = |section: &str| SECTIONS.iter().position(|known| *known == section).unwrap_or(SECTIONS.len());
    found.sort_by_key(|setting| place(setting.section_and_name().0));
    sections.sort_by_key(|section| place(&section.path));
    (found, sections)
});

fn collect(
    schema: &Value,
    defaults: &Value,
    order: &Order,
    at: &mut Vec<String>,
    found: &mut Vec<Setting>,
    sections: &mut Vec<Section>,
) {
    for (name, inner) in &order.0 {
        let (Some(property), Some(default)) = (schema["properties"].get(name), defaults.get(name)) else { continue };
        at.push(name.clone());
        if property.get("properties").is_some() {
            sections.push(Section { path: in_file(at), text: text_of(property) });
            collect(property, default, inner, at, found, sections);
        } else {
            found.push(setting_of(property, default.clone(), at));
        }
        at.pop();
    }
}

/// The names of fields in the order of their types, which neither a schema nor a JSON value keeps.
#[derive(Default)]
struct Order(Vec<(String, Order)>);

impl<'de> Deserialize<'de> for Order {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Names)
    }
}

/// Reads names, and passes over values.
struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Order;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Order, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Order(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Order, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Order::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Order, E> {
        Ok(Order::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Order, E> {
        Ok(Order::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Order, E> {
        Ok(Order::default())
    }

    fn visit_unit<E>(self) -> Result<Order, E> {
        Ok(Order::default())
    }
}

fn in_file(at: &[String]) -> String {
    let path = at.join(".");
    for (part, place) in MOUNTS {
        if let Some(rest) = path.strip_prefix(part) {
            return format!("{place}{rest}");
        }
    }
    path
}

fn setting_of(schema: &Value, default: Value, at: &[String]) -> Setting {
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let kind = match types.iter().find(|name| **name != "null") {
        Some(&"boolean") => Kind::Bool,
        Some(&"integer") => {
            let limit = |name: &str, or: u64| schema.get(name).and_then(Value::as_u64).unwrap_or(or);
            let most = match schema.get("format").and_then(Value::as_str) {
                Some("uint8") => u64::from(u8::MAX),
                Some("uint16") => u64::from(u16::MAX),
                Some("uint32") => u64::from(u32::MAX),
                _ => i64::MAX as u64,
            };
            Kind::Integer(limit("minimum", 0), limit("maximum", most))
        }
        Some(&"array") => Kind::Texts,
        _ => choices(schema).map_or(Kind::Text, Kind::OneOf),
    };
    let example = schema.get("examples").and_then(|examples| examples.get(0)).cloned();
    let (path, text) = (in_file(at), text_of(schema));
    Setting { path, at: at.to_vec(), text, kind, is_optional: types.contains(&"null"), default, example }
}

/// The names of an enum: one list, or one by one with what each means.
fn choices(schema: &Value) -> Option<Vec<String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(names) = schema.get("enum").and_then(Value::as_array) {
        return Some(names.iter().filter_map(text).collect());
    }
    let one_of = schema.get("oneOf").and_then(Value::as_array)?;
    let of_each = |each: &Value| match each.get("const") {
        Some(name) => text(name).into_iter().collect(),
        None => choices(each).unwrap_or_default(),
    };
    Some(one_of.iter().flat_map(of_each).collect())
}

fn text_of(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Puts a value where it is in the tree.
pub(super) fn put(tree: &mut Value, at: &[String], value: Value) {
    let Some((name, above)) = at.split_last() else { return };
    let mut place = tree;
    for section in above {
        place = object(place).entry(section.clone()).or_insert_with(|| Value::Object(Map::new()));
    }
    object(place).insert(name.clone(), value);
}

fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("it was made one"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_says_what_it_is_for_and_has_a_section_in_order() {
        assert!(settings().len() > 80, "{}", settings().len());
        for setting in settings() {
            assert!(setting.text.ends_with('.'), "{}: '{}'", setting.path, setting.text);
            let (section, _) = setting.section_and_name();
            assert!(SECTIONS.contains(&section), "{section}");
            assert_eq!(setting.default.is_null(), setting.example.is_some(), "{} needs an example", setting.path);
            assert_eq!(setting.default.is_null(), setting.is_optional, "{}", setting.path);
        }
        let mut paths: Vec<_> = settings().iter().map(|setting| &setting.path).collect();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), settings().len());
    }

    #[test]
    fn kinds_are_those_of_the_types() {
        let kind = |path: &str| setting(path).unwrap().kind.clone();
        assert_eq!(kind("server.listen"), Kind::Text);
        assert_eq!(kind("server.insecure"), Kind::Bool);
        assert_eq!(kind("log.format"), Kind::OneOf(vec!["text".into(), "json".into()]));
        assert_eq!(kind("auth.jwt_algorithms"), Kind::Texts);
        assert_eq!(kind("compaction.masked_percent"), Kind::Integer(0, 100));
        assert_eq!(kind("limits.statement_depth_max"), Kind::Integer(1, 500));
        assert_eq!(kind("storage.lease_seconds"), Kind::Integer(1, u64::from(u32::MAX)));
    }
}
