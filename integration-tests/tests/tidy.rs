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

/// Only the code that a release runs: without comments and without the test module, which is the last thing in a file.
fn code(source: &str) -> String {
    let (until_tests, tests) = source.split_once("#[cfg(test)]\nmod tests {").unwrap_or((source, ""));
    let after_tests = tests.split_once("\n}\n").map_or("", |(_, rest)| rest);
    assert!(after_tests.trim().is_empty(), "code behind a test module is not looked at: {after_tests}");
    let lines = until_tests.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The system columns belong to one module: nobody else writes their names, makes row ids or commit timestamps.
#[test]
fn only_one_module_assigns_system_columns() {
    let owner = "storage/src/system_columns/";
    let names = ["\"_id\"", "\"_updated\"", "\"_deleted\""];
    // Who may call what: the store hands out ids, the committer's state timestamps; writing files, giving all rows of one their time, and reading
    // hot rows make columns of what is stored.
    let makers: [(&str, &[&str]); 9] = [
        ("IdSequence::after", &["storage/src/store.rs"]),
        ("CommitClock::after", &["storage/src/store.rs"]),
        (".clock.next(", &["storage/src/commit_state.rs"]),
        ("encode_tombstone(", &["storage/src/row_codec/mod.rs", "storage/src/commit_state.rs"]),
        ("ids.reserve(", &["storage/src/store.rs"]),
        (
            ".new_ids(",
            &[
                "engine/src/write.rs",
                "engine/src/load.rs",
                "engine/src/upsert.rs",
                "engine/src/merge.rs",
                "engine/src/functions.rs",
            ],
        ),
        ("id_array(", &["storage/src/segment.rs", "storage/src/bulk/mod.rs", "engine/src/scan/hot.rs"]),
        (
            "updated_array(",
            &[
                "storage/src/segment.rs",
                "storage/src/records.rs",
                "storage/src/compact/merge.rs",
                "engine/src/scan/hot.rs",
            ],
        ),
        ("deleted_array(", &["storage/src/segment.rs", "storage/src/bulk/mod.rs", "engine/src/scan/hot.rs"]),
    ];
    // What was stored becomes an id or a timestamp again: outside of the storage only in a row's versions, in bounds, and where
    // unique keys are made again.
    let stored: [(&str, &[&str]); 2] = [
        ("RowId::stored(", &["engine/src/row_versions.rs", "engine/src/unique.rs"]),
        ("CommitTs::stored(", &["engine/src/row_versions.rs", "engine/src/tables.rs", "engine/src/scan/prune.rs"]),
    ];
    let is_test =
        |file: &str| ["/tests", "/simulation/", "_tests.rs", "test_table.rs"].iter().any(|t| file.contains(t));
    let violation = |file: &str, source: &str| {
        let code = code(source);
        let named = names.iter().find(|name| code.contains(**name));
        let outside = !file.starts_with("storage/");
        let watched = makers.iter().chain(stored.iter().filter(|_| outside));
        let called = watched.into_iter().find(|(maker, allowed)| code.contains(maker) && !allowed.contains(&file));
        named.copied().or(called.map(|(maker, _)| *maker)).map(str::to_owned)
    };
    for (file, source) in sources().iter().filter(|(file, _)| !file.starts_with(owner) && !is_test(file)) {
        let found = violation(file, source);
        assert_eq!(found, None, "{file}: only seracdb_storage::system_columns assigns system columns");
        for (maker, _) in makers.iter().filter(|(_, allowed)| allowed.contains(&file.as_str())) {
            assert!(code(source).contains(maker), "{file} no longer calls {maker}: change it here too");
        }
    }
    // A planted one is found.
    assert!(violation("engine/src/x.rs", "fn f() { let id = RowId::stored(7); }").is_some());
    assert!(violation("storage/src/x.rs", "fn f() { self.clock.next(now) }").is_some());
    assert!(violation("server/src/x.rs", "const ID: &str = \"_id\";").is_some());
    assert!(violation("server/src/x.rs", "// RowId::stored(\nfn f() {}").is_none());
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

/// `a/{b → c/{d → e}, f}.rs` → `a/b.rs`, `a/c/d.rs`, …
fn expand(pattern: &str) -> Vec<String> {
    let Some(open) = pattern.find('{') else { return vec![pattern.to_owned()] };
    let mut depth = 0;
    let close = pattern[open..].find(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0
    });
    let close = open + close.expect("braces are balanced");
    let mut choices = vec![String::new()];
    let mut depth = 0;
    for c in pattern[open + 1..close].chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        match c {
            '→' | ',' if depth == 0 => choices.push(String::new()),
            ' ' => {}
            c => choices.last_mut().expect("there is one").push(c),
        }
    }
    let (before, after) = (&pattern[..open], &pattern[close + 1..]);
    choices.iter().flat_map(|choice| expand(&format!("{before}{choice}{after}"))).collect()
}

/// The lines that ARCHITECTURE.md draws for whoever follows a statement.
#[test]
fn the_lines_of_the_architecture_name_files_that_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let lines = text.split("```").nth(1).expect("the two lines stand in the first block");
    let lines = lines.replace('\n', " ");
    // Spaces belong to a pattern only within braces.
    let (mut patterns, mut depth) = (vec![String::new()], 0);
    for c in lines.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        match c {
            ' ' if depth == 0 => patterns.push(String::new()),
            c => patterns.last_mut().expect("there is one").push(c),
        }
    }
    let files: Vec<String> =
        patterns.iter().filter(|pattern| pattern.ends_with(".rs")).flat_map(|pattern| expand(pattern)).collect();
    assert!(files.len() > 20, "{files:?}");
    let is_there = |file: &String| {
        let module = file.strip_suffix(".rs").expect("filtered").to_owned() + "/mod.rs";
        root().join(file).exists() || root().join(module).exists()
    };
    let missing: Vec<&String> = files.iter().filter(|file| !is_there(file)).collect();
    assert!(missing.is_empty(), "{missing:?}");
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

/// What reads files or the environment, and why it may. Settings come from `server/src/config` alone.
#[test]
fn nothing_else_reads_files_or_the_environment() {
    let readers = ["std::env::", "env::var", "from_env(", "fs::read", "File::open", "OpenOptions"];
    let allowed: [(&str, &[&str], &str); 17] = [
        ("server/src/config/given.rs", &["fs::read"], "the file of settings"),
        (
            "server/src/cli.rs",
            &["std::env::", "env::var", "fs::read"],
            "the environment for config; what a command names",
        ),
        ("server/src/transport/files.rs", &["fs::read"], "certificates and keys that settings name"),
        ("server/src/jwt/keys.rs", &["fs::read"], "the keys of JWTs, which a setting names"),
        ("server/src/transport/seats.rs", &["fs::read"], "how many files the system lets this process open"),
        ("server/src/lifecycle.rs", &["OpenOptions"], "writes the first password"),
        ("server/src/self_signed.rs", &["OpenOptions"], "writes certificates"),
        ("server/src/transfer/files.rs", &["File::open"], "what is imported"),
        ("server/src/transfer/source.rs", &["File::open"], "what is imported"),
        ("server/src/transfer/journal.rs", &["File::open", "OpenOptions"], "what was imported"),
        ("clients/rust/src/tls.rs", &["fs::read"], "certificates that a client's program names"),
        ("storage/src/objects.rs", &["fs::read", "File::open"], "data"),
        ("storage/src/objects/fetch.rs", &["File::open"], "data"),
        ("storage/src/bucket.rs", &["fs::read", "File::open"], "data"),
        ("storage/src/check/opened.rs", &["File::open"], "data: the lock of a data directory"),
        ("storage/src/compact/merge.rs", &["File::open"], "data"),
        ("storage/src/store.rs", &["fs::read", "OpenOptions"], "data: the lock and the name of a data directory"),
    ];
    let is_test =
        |file: &str| ["/tests", "/simulation/", "_tests.rs", "test_table.rs"].iter().any(|t| file.contains(t));
    let reads = |source: &str| -> Vec<&str> {
        let code = code(source);
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("use ")).collect::<Vec<_>>().join("\n");
        readers.into_iter().filter(|reader| lines.contains(reader)).collect()
    };
    let sources = sources();
    for (file, source) in sources.iter().filter(|(file, _)| !is_test(file)) {
        let may: &[&str] = allowed.iter().find(|(name, ..)| name == file).map_or(&[], |(_, may, _)| *may);
        let unexpected: Vec<&str> = reads(source).into_iter().filter(|reader| !may.contains(reader)).collect();
        assert!(unexpected.is_empty(), "{file} has {unexpected:?}: settings come from server/src/config alone");
    }
    for (file, may, _) in &allowed {
        let source = sources.iter().find(|(name, _)| name == file).map(|(_, source)| source);
        let found = reads(source.unwrap_or_else(|| panic!("{file} is gone: take it from the list")));
        assert!(may.iter().all(|reader| found.contains(reader)), "{file} reads {found:?} only: change the list");
    }
    // A planted one is found.
    assert_eq!(reads("fn f() { std::env::var(\"HOME\") }"), ["std::env::", "env::var"]);
    assert_eq!(reads("// std::fs::read\nuse std::fs::File;\n"), [""; 0]);
}
