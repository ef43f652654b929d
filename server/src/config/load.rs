//! Loading: the sources one over the other, all of their mistakes, and the tree that they give.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::ServerConfig;
use super::given::{Given, Source, from_file, from_flag, from_variable, s3_access};
use super::problem::{ConfigError, Problem, shown};
use super::settings::{Kind, Setting, put, setting, settings};

/// The settings, and where each comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The tree.
    pub config: ServerConfig,
    /// What is not a default, by path.
    pub(super) set: BTreeMap<String, (Value, Source)>,
}

/// Loads the settings. `file`: the TOML file, which has to be there when given. `variables`: the environment; names that do not
/// start with `SERACDB_` are ignored, but for those that programs for S3 share, and so are those that have neither a `__` nor a
/// section. `flags`: each with the path of its setting and its value.
///
/// Errors: everything that is wrong, at once.
pub fn load(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    flags: &[(&'static str, &'static str, String)],
) -> Result<Loaded, ConfigError> {
    let mut problems = Vec::new();
    let mut given = match file.map(from_file).transpose() {
        Ok(given) => given.unwrap_or_default(),
        Err(problem) => {
            problems.push(problem);
            vec![]
        }
    };
    let variables: Vec<_> = variables.into_iter().collect();
    given.extend(variables.iter().filter_map(|(name, text)| from_variable(name, text)));
    given.extend(flags.iter().map(|(flag, path, text)| from_flag(flag, path, text)));

    let mut set = BTreeMap::new();
    for Given { path, value, source } in given {
        match checked(&path, value, &source) {
            Ok(value) => drop(set.insert(path, (value, source))),
            Err(problem) => problems.push(Problem { place: source.to_string(), ..problem }),
        }
    }
    let mut config = tree(&set).map_err(|error| ConfigError(vec![error]))?;
    config.engine.storage.s3 = s3_access(&variables);
    let place = |key: &str| set.get(key).map_or(&Source::Default, |(_, source)| source).to_string();
    problems.extend(config.problems().into_iter().map(|problem| Problem { place: place(&problem.key), ..problem }));
    match problems.is_empty() {
        true => Ok(Loaded { config, set }),
        false => Err(ConfigError(problems)),
    }
}

/// The value of a setting, if there is such a one and it can have this value.
fn checked(path: &str, value: Value, source: &Source) -> Result<Value, Problem> {
    let Some(setting) = setting(path) else { return Err(unknown(path, source)) };
    // A text that is set to nothing sets nothing.
    let value = if setting.is_optional && value == Value::String(String::new()) { Value::Null } else { value };
    match fits(setting, &value) {
        true => Ok(value),
        false => Err(Problem {
            place: String::new(),
            key: path.to_owned(),
            found: shown(&value),
            expected: expected(&setting.kind),
        }),
    }
}

fn fits(setting: &Setting, value: &Value) -> bool {
    match (&setting.kind, value) {
        (_, Value::Null) => setting.is_optional,
        (Kind::Bool, Value::Bool(_)) | (Kind::Text, Value::String(_)) => true,
        (Kind::Integer(from, to), Value::Number(number)) => {
            number.as_u64().is_some_and(|number| (*from..=*to).contains(&number))
        }
        (Kind::OneOf(names), Value::String(text)) => names.contains(text),
        (Kind::Texts, Value::Array(items)) => items.iter().all(Value::is_string),
        _ => false,
    }
}

/// What a setting of a kind can be, in words.
pub(super) fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "true or false".to_owned(),
        Kind::Integer(from, to) if *to >= i64::MAX as u64 => format!("a whole number, at least {from}"),
        Kind::Integer(from, to) => format!("a whole number from {from} to {to}"),
        Kind::Text => "a text".to_owned(),
        Kind::OneOf(names) => names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" or "),
        Kind::Texts => "a list of texts, as [\"one\", \"two\"]".to_owned(),
    }
}

/// What is no setting is said without its value, which may be a secret that has its place elsewhere.
fn unknown(path: &str, source: &Source) -> Problem {
    let section = path.rsplit_once('.').map_or("", |(section, _)| section);
    let beside: Vec<&str> = settings()
        .iter()
        .map(Setting::section_and_name)
        .filter(|(known, _)| *known == section)
        .map(|(_, name)| name)
        .collect();
    let expected = match (divided(source), near(path), beside.is_empty()) {
        (Some(variable), ..) => format!("{variable}, with two underscores for every dot"),
        (None, Some(near), _) => format!("a setting that there is: '{near}'?"),
        (None, None, false) => format!("a setting of [{section}]: {}", beside.join(", ")),
        (None, None, true) => {
            let mut names: Vec<_> = settings().iter().map(|setting| setting.section_and_name().0).collect();
            names.dedup();
            format!("a setting of one of the sections {}", names.join(", "))
        }
    };
    let found = "a value, but there is no such setting".to_owned();
    Problem { place: String::new(), key: path.to_owned(), found, expected }
}

/// The variable that was meant by one with other underscores.
fn divided(source: &Source) -> Option<String> {
    let Source::Variable(name) = source else { return None };
    let joined = |name: &str| name.to_ascii_uppercase().replace("__", "_");
    let name = joined(name);
    settings().iter().map(Setting::variable).find(|known| joined(known) == name)
}

/// The setting that was probably meant: one that ends like this in another section, or that is nearly called so.
fn near(path: &str) -> Option<&'static str> {
    let ends = std::iter::successors(Some(path), |end| end.split_once('.').map(|(_, rest)| rest));
    for end in ends {
        let ends_so = |setting: &&Setting| {
            setting.path.strip_suffix(end).is_some_and(|section| section.is_empty() || section.ends_with('.'))
        };
        if let [one] = settings().iter().filter(ends_so).collect::<Vec<_>>().as_slice() {
            return Some(&one.path);
        }
    }
    let by_distance = settings().iter().map(|setting| (strsim::damerau_levenshtein(path, &setting.path), setting));
    let (distance, nearest) = by_distance.min_by_key(|(distance, _)| *distance)?;
    (distance <= 3).then_some(nearest.path.as_str())
}

/// The tree with these values in the place of its defaults.
fn tree(set: &BTreeMap<String, (Value, Source)>) -> Result<ServerConfig, Problem> {
    let failed = |error: serde_json::Error| Problem {
        place: "the settings".to_owned(),
        key: "all of them".to_owned(),
        found: format!("'{error}'"),
        expected: "values of their types".to_owned(),
    };
    let mut tree = serde_json::to_value(ServerConfig::default()).map_err(failed)?;
    for (path, (value, _)) in set {
        if let Some(setting) = setting(path) {
            put(&mut tree, &setting.at, value.clone());
        }
    }
    serde_json::from_value(tree).map_err(failed)
}
