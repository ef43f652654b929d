use std::path::Path;

use serde_json::Value;

use super::settings::{Kind, Setting, setting, settings};
use super::*;

fn load_all(
    toml: &str,
    variables: &[(&str, &str)],
    flags: &[(&'static str, &'static str, &str)],
) -> Result<Loaded, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("seracdb.toml");
    std::fs::write(&file, toml).unwrap();
    let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let flags: Vec<_> = flags.iter().map(|(flag, path, value)| (*flag, *path, value.to_string())).collect();
    load(Some(&file), variables, &flags)
}

fn of(toml: &str, variables: &[(&str, &str)]) -> ServerConfig {
    load_all(toml, variables, &[]).unwrap().config
}

/// What is said of the one mistake.
fn said(toml: &str, variables: &[(&str, &str)]) -> String {
    let ConfigError(problems) = load_all(toml, variables, &[]).unwrap_err();
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    problem.to_string()
}

#[test]
fn later_sources_win() {
    let toml = "[server]\nlisten = '127.0.0.1:1'\ndata_dir = '/file'\nnode_id = 'file'";
    let variables = [
        ("SERACDB_SERVER__LISTEN", "127.0.0.2:2"),
        ("SERACDB_SERVER__DATA_DIR", "/env"),
        ("SERACDB_MANIFEST_CACHE__TTL_SECONDS", "7"),
    ];
    let loaded = load_all(toml, &variables, &[("--listen", "server.listen", "127.0.0.3:3")]).unwrap();
    let config = &loaded.config;
    assert_eq!(config.engine.storage.manifest_cache.ttl_seconds, 7);
    assert_eq!(config.server.listen, "127.0.0.3:3");
    assert_eq!(config.engine.storage.data_dir, Path::new("/env"));
    assert_eq!(config.engine.storage.node_id, "file");
    assert_eq!(config.http.listen, "127.0.0.1:8080");
    let shown = merged_file(&loaded);
    for line in [
        "listen = \"127.0.0.3:3\"  # --listen",
        "data_dir = \"/env\"  # SERACDB_SERVER__DATA_DIR",
        "listen = \"127.0.0.1:8080\"  # default",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    assert!(shown.lines().any(|line| line.starts_with("node_id = \"file\"  # ") && line.ends_with("seracdb.toml")));
}

#[test]
fn what_programs_for_s3_share_is_handed_down_and_masked() {
    let variables =
        [("AWS_REGION", "eu-central-1"), ("AWS_SECRET_ACCESS_KEY", "geheim"), ("AWS_PROFILE", "other"), ("HOME", "/")];
    let loaded = load_all("", &variables, &[]).unwrap();
    let handed_down: Vec<_> = loaded.config.engine.storage.s3.shown().map(|(name, _)| name).collect();
    assert_eq!(handed_down, ["AWS_REGION", "AWS_SECRET_ACCESS_KEY"]);
    let shown = merged_file(&loaded);
    assert!(shown.ends_with("\n# AWS_REGION = \"eu-central-1\"\n# AWS_SECRET_ACCESS_KEY = \"***\"\n"), "{shown}");
    assert!(!format!("{shown}{loaded:?}").contains("geheim"));
    assert!(!merged_file(&load_all("", &[], &[]).unwrap()).contains("AWS"));
}

#[test]
fn all_mistakes_are_said_at_once() {
    let toml = "[server]\nlisten = 5\nlisten_on = 'x:1'\ninsecure = 'perhaps'\n[auth]\nsessions_max = 0\n[log]\nformat = 'xml'";
    let variables = [("SERACDB_HTTP__LISTEN", "here"), ("SERACDB_FLUSH__HOT_BYTES_MAX", "much")];
    let ConfigError(problems) = load_all(toml, &variables, &[]).unwrap_err();
    let said: Vec<_> = problems.iter().map(|p| (p.key.as_str(), p.found.as_str(), p.expected.as_str())).collect();
    let expected = [
        ("auth.sessions_max", "0", "a whole number, at least 1"),
        ("log.format", "'xml'", "\"text\" or \"json\""),
        ("server.insecure", "'perhaps'", "true or false"),
        ("server.listen", "5", "a text"),
        ("server.listen_on", "a value, but there is no such setting", "a setting that there is: 'server.listen'?"),
        ("flush.hot_bytes_max", "'much'", "a whole number, at least 1"),
        ("http.listen", "'here'", "ADDRESS:PORT, as 127.0.0.1:50051"),
    ];
    assert_eq!(said, expected);
    let places: Vec<_> = problems.iter().map(|problem| problem.place.rsplit('/').next().unwrap()).collect();
    assert_eq!(places[..5], ["seracdb.toml"; 5]);
    assert_eq!(places[5..], ["SERACDB_FLUSH__HOT_BYTES_MAX", "SERACDB_HTTP__LISTEN"]);
    let text = ConfigError(problems).to_string();
    assert!(text.starts_with("the settings have 7 mistakes:\n"), "{text}");
    assert_eq!(text.lines().count(), 8);
}

#[test]
fn what_is_no_setting_is_told_what_was_meant() {
    for (toml, meant) in [
        ("[server]\nlistn = 'x:1'", "'server.listen'?"),
        ("[storage]\ndata_dir = '/x'", "'server.data_dir'?"),
        ("[engine.storage]\nlease_seconds = 3", "'storage.lease_seconds'?"),
        ("[engine.storage.flush]\nautomatic = true", "'flush.automatic'?"),
        ("[engine.user]\nmemory_max = 3", "'limits.user.memory_max'?"),
        ("[server.limits]\nstreams_max = 3", "'limits.streams_max'?"),
        ("[htpp]\nlissen = 'x:1'", "'http.listen'?"),
        ("[nothing]\nwhatever = 1", "one of the sections server, server.tls, http,"),
        ("[server]\nsomething = 1", "a setting of [server]: listen, drain_seconds,"),
        ("[server.listen]\naddress = 'x:1'", "found a section, expected a text"),
        ("server = 3", "there is no such setting"),
        ("[flsh]", "one of the sections server, server.tls, http,"),
        ("[server.tlss]", "there is no such setting"),
    ] {
        let said = said(toml, &[]);
        assert!(said.contains(meant), "{toml}: {said}");
    }
    let variable = said("", &[("SERACDB_HTTP__PORT", "1")]);
    assert!(variable.starts_with("SERACDB_HTTP__PORT: http.port: found a value, but there is no"), "{variable}");
    let broken = said("[server]\nlisten = 'x:1'\nwhat is this", &[]);
    assert!(broken.contains("line 3: found what is no TOML"), "{broken}");
    let error = load(Some(Path::new("/nowhere.toml")), [], &[]).unwrap_err().to_string();
    assert!(error.contains("/nowhere.toml: the file: found"), "{error}");
}

#[test]
fn values_out_of_their_limits_are_said() {
    for (toml, key) in [
        ("[limits]\nstatement_depth_max = 501", "limits.statement_depth_max"),
        ("[limits]\nstreams_max = 0", "limits.streams_max"),
        ("[limits]\nstatement_bytes_max = 0", "limits.statement_bytes_max"),
        ("[compaction]\ninput_files_max = 1", "compaction.input_files_max"),
        ("[flush]\ndead_versions_max = 0", "flush.dead_versions_max"),
        ("[limits.user]\nqueries_max = -1", "limits.user.queries_max"),
        ("[storage]\nlease_seconds = 5000000000", "storage.lease_seconds"),
        ("[compaction]\nmasked_percent = 101", "compaction.masked_percent"),
        ("[engine]\nplans_max = 0", "engine.plans_max"),
        ("[manifest_cache]\nttl_seconds = 1.5", "manifest_cache.ttl_seconds"),
        ("[auth]\njwt_algorithms = ['RS256', 1]", "auth.jwt_algorithms"),
        ("[auth]\njwt_algorithms = ['none']", "auth.jwt_algorithms"),
        ("[log]\nfilter = 'loud=very='", "log.filter"),
    ] {
        let said = said(toml, &[]);
        assert!(said.contains(&format!(": {key}: found ")) && said.contains(", expected "), "{toml}: {said}");
    }
}

/// Another value than the default, as a variable has it; for texts one that looks like a number.
fn another(setting: &Setting) -> String {
    match (&setting.kind, setting.path.as_str()) {
        (_, "server.listen" | "http.listen") => "1:2".into(),
        (_, "server.object_store") => "file:///17".into(),
        (Kind::OneOf(names), _) => names.iter().rev().find(|name| setting.default != ***name).unwrap().clone(),
        (Kind::Texts, _) => "[\"ES384\"]".into(),
        (Kind::Bool, _) => (setting.default == Value::Bool(false)).to_string(),
        _ => "17".into(),
    }
}

#[test]
fn every_setting_has_its_variable_and_its_place_in_the_tree() {
    // Half of TLS is refused, and so are a file of keys alone and a backlog below what begins it.
    let beside = "[server.tls]\ncert_file = 'x'\nkey_file = 'x'\nclient_ca_file = 'x'\nrequire_client_cert = true\n\
                  [auth]\njwt_issuer = 'i'\njwt_audience = 'a'\n[flush]\ntotal_bytes_max = 1";
    let before = serde_json::to_value(of(beside, &[])).unwrap();
    for setting in settings() {
        let beside = if setting.path == "server.tls.require_client_cert" { "" } else { beside };
        let wanted = another(setting);
        let given = load_all(beside, &[(&setting.variable(), &wanted)], &[]);
        if setting.path == "server.tls.require_client_cert" {
            assert!(given.unwrap_err().to_string().contains(&setting.path));
            continue;
        }
        let after = serde_json::to_value(given.unwrap().config).unwrap();
        let at = format!("/{}", setting.at.join("/"));
        let (old, new) = (before.pointer(&at).unwrap(), after.pointer(&at).unwrap());
        assert_ne!(old, new, "{}", setting.path);
        let text = new.as_str().map_or_else(|| new.to_string(), str::to_owned);
        assert_eq!(text, wanted, "{}", setting.path);
    }
}

#[test]
fn nothing_is_none_where_there_is_no_default() {
    let empty = [("SERACDB_SERVER__OBJECT_STORE", "")];
    assert_eq!(of("", &empty).engine.storage.object_store, None);
    assert_eq!(of("[server]\nobject_store = 'file:///x'", &empty).engine.storage.object_store, None);
    assert_eq!(of("[server]\nobject_store = ''", &[]).engine.storage.object_store, None);
    assert_eq!(of("", &[("SERACDB_AUTH__JWKS_FILE", "")]).auth.jwks_file, None);
}

#[test]
fn a_take_over_is_asked_for_in_each_of_the_ways() {
    assert!(!of("", &[]).engine.storage.take_over);
    assert!(of("[server]\ntake_over = true", &[]).engine.storage.take_over);
    assert!(of("", &[("SERACDB_SERVER__TAKE_OVER", "true")]).engine.storage.take_over);
    assert!(load_all("", &[], &[("--take-over", "server.take_over", "true")]).unwrap().config.engine.storage.take_over);
}

#[test]
fn jwts_need_all_that_makes_them_safe() {
    let complete = "jwks_file = '/k'\njwt_issuer = 'i'\njwt_audience = 'a'";
    assert!(of(&format!("[auth]\n{complete}"), &[]).auth.jwks_file.is_some());
    for left_out in ["jwt_issuer", "jwt_audience"] {
        let lines: Vec<_> = complete.lines().filter(|line| !line.starts_with(left_out)).collect();
        let said = said(&format!("[auth]\n{}", lines.join("\n")), &[]);
        assert!(said.contains(&format!("without 'auth.{left_out}'")), "{said}");
    }
    for more in ["jwt_algorithms = []", "jwt_user_claim = ''"] {
        assert!(load_all(&format!("[auth]\n{complete}\n{more}"), &[], &[]).is_err());
    }
}

#[test]
fn values_that_cannot_be_used_are_said_before_anything_is_opened() {
    for (toml, mistake) in [
        (
            "[server]\nobject_store = 'ftp://x'",
            "server.object_store: found 'ftp://x', expected file:///folder or s3://b",
        ),
        (
            "[server]\nobject_store = 'x'",
            "server.object_store: found 'x', expected file:///folder or s3://bucket/prefix (",
        ),
        (
            "[server]\nlisten = '0.0.0.0:1'",
            "server.listen: found '0.0.0.0:1', which other machines can reach, and no TLS",
        ),
        ("[compaction]\nfan_in = 1", "compaction.fan_in: found 1, expected a whole number, at least 2"),
        (
            "[auth]\nlockout_seconds = 901",
            "auth.lockout_seconds: found 901, expected at most auth.lockout_seconds_max, which is 900",
        ),
        (
            "[flush]\ntotal_bytes_max = 10\nbacklog_bytes_max = 9",
            "flush.backlog_bytes_max: found 9, expected at least flush.total_bytes_max, which is 10",
        ),
        (
            "[flush]\ntotal_bytes_max = 5000000000",
            "flush.total_bytes_max: found 5000000000, expected at most flush.backlog_bytes_max, which is 4294967296",
        ),
    ] {
        let said = said(toml, &[]);
        assert!(said.contains(&format!("seracdb.toml: {mistake}")), "{toml}: {said}");
    }
    for toml in [
        "[server]\nlisten = '0.0.0.0:1'\ninsecure = true",
        "[server]\nlisten = '0.0.0.0:1'\n[server.tls]\ncert_file = 'x'\nkey_file = 'x'",
        "[server]\nlisten = 'db.example:1'\n[http]\nlisten = '0.0.0.0:1'",
        "[server]\nobject_store = 's3://bucket'\n[compaction]\nfan_in = 2",
        "[flush]\ntotal_bytes_max = 10\nbacklog_bytes_max = 10",
    ] {
        of(toml, &[]);
    }
    // A flag mends what the file says.
    let everywhere = "[server]\nlisten = '0.0.0.0:1'";
    load_all(everywhere, &[], &[("--listen", "server.listen", "127.0.0.1:1")]).unwrap();
    load_all(everywhere, &[], &[("--insecure", "server.insecure", "true")]).unwrap();
    // Half of TLS is one mistake.
    let half = said(&format!("{everywhere}\n[server.tls]\ncert_file = 'x'"), &[]);
    assert!(half.contains("server.tls.key_file"), "{half}");
}

#[test]
fn variables_without_a_section_are_no_settings() {
    let others = ["ROOT_PASSWORD", "PASSWORD", "URI", "USER", "BIN", "SEED", "TLS_URI", "TLS_DIR", "PLANTED_PANIC"];
    for name in others {
        of("", &[(&format!("SERACDB_{name}"), "x")]);
    }
    of("", &[("OTHER__LISTEN", "y"), ("SERACDB_HTTP", "z")]);
    let of_kubernetes = [
        ("SERACDB_HTTP_SERVICE_HOST", "10.0.0.1"),
        ("SERACDB_HTTP_SERVICE_PORT_WEB", "8080"),
        ("SERACDB_SERVER_PORT", "tcp://10.0.0.1:50051"),
        ("SERACDB_SERVER_PORT_50051_TCP_ADDR", "10.0.0.1"),
    ];
    of("", &of_kubernetes);
}

#[test]
fn variables_with_other_underscores_are_told_how_they_are_written() {
    for (name, meant) in [
        ("SERACDB_FLUSH_HOT_BYTES_MAX", "expected SERACDB_FLUSH__HOT_BYTES_MAX, with two"),
        ("SERACDB_MANIFEST_CACHE_TTL_SECONDS", "expected SERACDB_MANIFEST_CACHE__TTL_SECONDS, with two"),
        ("SERACDB_LIMITS_USER_QUERIES_MAX", "expected SERACDB_LIMITS__USER__QUERIES_MAX, with two"),
        ("SERACDB_SERVER__TLS_KEY_FILE", "expected SERACDB_SERVER__TLS__KEY_FILE, with two"),
        ("SERACDB_FLUSH_HOT_BYTE_MAX", "'flush.hot_bytes_max'?"),
        ("SERACDB_SERVER_PORT", "a setting of one of the sections server,"),
    ] {
        let said = said("", &[(name, "17")]);
        assert!(said.starts_with(&format!("{name}: ")), "{said}");
        assert!(said.contains("found a value, but there is no such setting") && said.contains(meant), "{said}");
    }
}

#[test]
fn no_mistake_tells_a_secret() {
    for toml in [
        "[auth]\nroot_password = 'geheim'",
        "[storage]\naws_secret_access_key = ['geheim', { a = 'geheim' }]",
        "[server]\nobject_store = 'ftp://key:geheim@x'",
        "[server]\nobject_store = 's3://key:ge/geheim@bucket'",
        "[server]\nobject_store = ['s3://key:geheim@bucket']",
    ] {
        let said = said(toml, &[]);
        assert!(!said.contains("geheim"), "{said}");
    }
    for name in ["SERACDB_AUTH__ROOT_PASSWORD", "SERACDB_AUTH_ROOT_PASSWORD"] {
        let said = said("", &[(name, "geheim")]);
        assert!(said.starts_with(name) && !said.contains("geheim"), "{said}");
    }
}

#[test]
fn credentials_in_an_address_are_not_shown() {
    let loaded = load_all("[server]\nobject_store = 's3://key:secret@bucket/prefix'", &[], &[]).unwrap();
    assert!(merged_file(&loaded).contains("object_store = \"s3://***@bucket/prefix\""));
    let shown = loaded.shown();
    assert!(shown.iter().all(|row| !format!("{row:?}").contains("secret")));
}

/// The page's settings are `seracdb config default`, and that changes nothing.
#[test]
fn the_page_of_settings_is_made_from_the_types() {
    let page = include_str!("../../../docs/configuration.md");
    let on_page = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let made = default_file();
    assert_eq!(on_page, made, "put the output of `seracdb config default` there");
    assert_eq!(serde_json::to_value(of(&made, &[])).unwrap(), serde_json::to_value(ServerConfig::default()).unwrap());
    // Its examples are values that the settings can have.
    let with_examples: String = made
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(example) if example.split_once(" = ").is_some_and(|(name, _)| !name.contains(' ')) => {
                format!("{example}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let set = of(&with_examples.replace("require_client_cert = false", "require_client_cert = true"), &[]);
    assert!(
        set.auth.jwks_file.is_some() && set.engine.storage.object_store.is_some() && set.server.tls.key_file.is_some()
    );
    assert!(setting("server.listen").is_some());
}

/// The texts of a folder of sources, each line that goes on being one with the next.
fn sources(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of_entry = |path: std::path::PathBuf| match path.is_dir() {
        true => sources(&path),
        false => vec![std::fs::read_to_string(&path).unwrap()],
    };
    entries.flat_map(of_entry).map(|text| text.replace("\\\n", " ")).collect()
}

/// Whoever is told to raise a setting finds it.
#[test]
fn every_setting_that_a_message_says_to_raise_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = 0;
    for text in ["storage/src", "engine/src", "server/src"].iter().flat_map(|folder| sources(&root.join(folder))) {
        for after in text.split("raise ").skip(1) {
            let named: String =
                after.trim_start().chars().take_while(|c| c.is_ascii_lowercase() || "._".contains(*c)).collect();
            let named = named.trim_end_matches('.');
            if named.contains('.') {
                assert!(setting(named).is_some(), "a message says to raise '{named}', which is no setting");
                found += 1;
            }
        }
    }
    assert!(found >= 5, "{found}");
}
