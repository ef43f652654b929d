//! Rules of the source tree that a reviewer would otherwise have to remember.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// A second Arrow in the tree makes types of the same name incompatible.
#[test]
fn the_lock_file_has_one_version_of_what_must_be_one() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
            line.unwrap_or_default().trim_matches('"')
        };
        versions.entry(field("name")).or_default().push(field("version"));
    }
    for name in
        ["arrow", "arrow-array", "arrow-flight", "parquet", "object_store", "sqlparser", "datafusion", "tonic", "prost"]
    {
        assert_eq!(versions[name].len(), 1, "{name}: {:?}", versions[name]);
    }
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for crate_folder in ["proto", "storage", "engine", "server", "clients/rust"] {
        rust_files(&root().join(crate_folder).join("src"), &mut files);
    }
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).unwrap())
    };
    files.into_iter().map(read).collect()
}

/// Only the code that a release runs: without comments and without what follows the first test module.
fn code(source: &str) -> String {
    let until_tests = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = until_tests.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The system columns belong to one module: nobody else writes their names, makes row ids or commit timestamps.
#[test]
fn only_one_module_assigns_system_columns() {
    let owner = "storage/src/system_columns/";
    let names = ["\"_id\"", "\"_updated\"", "\"_deleted\""];
    // Who may call what: the store hands out ids, the committer's state timestamps.
    let makers: [(&str, &[&str]); 4] = [
        ("IdSequence::after", &["storage/src/store.rs"]),
        ("CommitClock::after", &["storage/src/store.rs"]),
        (".clock.next(", &["storage/src/commit.rs"]),
        ("encode_tombstone(", &["storage/src/row_codec/mod.rs", "storage/src/commit.rs"]),
    ];
    let mut seen = 0;
    for (file, source) in sources().iter().filter(|(file, _)| !file.starts_with(owner) && !file.contains("/tests")) {
        let code = code(source);
        for name in names {
            assert!(!code.contains(name), "{file} names {name}: use seracdb_storage::system_columns");
        }
        for (maker, allowed) in makers {
            let calls = code.contains(maker);
            seen += usize::from(calls);
            assert!(!calls || allowed.contains(&file.as_str()), "{file} calls {maker}");
        }
    }
    assert_eq!(seen, 5, "the makers of system columns were renamed: rename them here too");
}

/// proto, storage ← engine ← server: absence cannot be seen in code, so it is tested.
#[test]
fn dependencies_point_downward() {
    let forbidden: [(&str, &[&str]); 4] = [
        ("storage", &["datafusion", "sqlparser", "tonic", "arrow-flight", "seracdb-engine", "seracdb-proto"]),
        ("engine", &["tonic", "arrow-flight", "seracdb-proto", "axum", "clap"]),
        ("server", &["datafusion", "rocksdb", "seracdb-storage"]),
        ("clients/rust", &["datafusion", "rocksdb", "seracdb-storage", "seracdb-engine", "seracdb"]),
    ];
    for (folder, names) in forbidden {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let dependencies: Vec<&str> = manifest.lines().filter_map(|line| line.split(['.', ' ', '=']).next()).collect();
        for name in names {
            assert!(!dependencies.contains(name), "{folder} must not depend on {name}");
        }
    }
}

/// Names say what a thing is, not that someone works in it.
#[test]
fn nothing_is_called_manager_or_helper() {
    let words = ["Manager", "Helper", "Handler", "Util", "Utils", "Misc"];
    for (file, source) in sources() {
        for line in source.lines() {
            let mut tokens = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let defines = tokens.any(|token| ["struct", "enum", "trait", "mod"].contains(&token));
            let name = if defines { tokens.next().unwrap_or_default() } else { "" };
            assert!(!words.iter().any(|word| name.ends_with(word)), "{file}: {name}");
        }
    }
}
