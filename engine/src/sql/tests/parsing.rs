//! Text → statement.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, TimeUnit};
use seracdb_storage::system_columns;

use crate::error::{EngineError, ErrorKind};
use crate::identity::Role;
use crate::sql::statement::{
    AlterTable, CheckDef, ColumnChange, ColumnDef, Commented, ConstraintChange, CreateTable, Delete, Insert,
    InsertSource, Password, Statement, TableKind, TransactionStatement, UniqueDef, Update,
};
use crate::sql::{Limits, TableName, parse};

fn of(sql: &str) -> Statement {
    parse(sql, &Limits::default()).unwrap_or_else(|e| panic!("{sql}: {}", e.message))
}

fn error(sql: &str) -> EngineError {
    match parse(sql, &Limits::default()) {
        Err(error) => error,
        Ok(statement) => panic!("{sql}: {statement:?}"),
    }
}

fn name(text: &str) -> TableName {
    match text.split_once('.') {
        Some((namespace, table)) => TableName { namespace: Some(namespace.into()), table: table.into() },
        None => TableName { namespace: None, table: text.into() },
    }
}

#[test]
fn queries() {
    for sql in [
        "SELECT 1",
        "  ; SELECT 1 ; ; -- done",
        "/* first */ SELECT 1 -- last",
        "VALUES (1, 'a'), (2, 'b')",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1 LIMIT 1 OFFSET 1",
        "SELECT * FROM t FETCH FIRST 3 ROWS ONLY",
        "SELECT a FROM t WHERE a IN (?, ?)",
    ] {
        assert!(matches!(of(sql), Statement::Query(_)), "{sql}");
        assert!(of(sql).is_query());
    }
    let Statement::Query(query) = of("TABLE ns.\"T\"") else { panic!() };
    assert_eq!(query.to_string(), "SELECT * FROM \"ns\".\"T\"");
    let Statement::Query(query) = of("SELECT a FROM t OFFSET 2 FETCH NEXT 3 ROWS ONLY") else { panic!() };
    assert_eq!(query.to_string(), "SELECT a FROM t LIMIT 3 OFFSET 2");
    let Statement::Query(query) = of("SELECT a FROM t FETCH FIRST ROW ONLY") else { panic!() };
    assert_eq!(query.to_string(), "SELECT a FROM t LIMIT 1");
}

#[test]
fn transactions() {
    use TransactionStatement::*;
    let name = || "a".to_owned();
    for (sql, expected) in [
        ("BEGIN", Begin { read_only: false }),
        ("begin transaction", Begin { read_only: false }),
        ("BEGIN WORK READ ONLY;", Begin { read_only: true }),
        ("START TRANSACTION READ WRITE", Begin { read_only: false }),
        ("START TRANSACTION ISOLATION LEVEL SNAPSHOT, READ ONLY", Begin { read_only: true }),
        ("BEGIN ISOLATION LEVEL READ UNCOMMITTED", Begin { read_only: false }),
        ("COMMIT", Commit),
        ("COMMIT WORK", Commit),
        ("END TRANSACTION", Commit),
        ("ROLLBACK", Rollback),
        ("ABORT WORK", Rollback),
        ("SAVEPOINT A", Savepoint(name())),
        ("SAVEPOINT \"A\"", Savepoint("A".into())),
        ("RELEASE a", Release(name())),
        ("RELEASE SAVEPOINT a", Release(name())),
        ("ROLLBACK TO a", RollbackTo(name())),
        ("ROLLBACK WORK TO SAVEPOINT a", RollbackTo(name())),
        ("SET TRANSACTION READ ONLY", Set { read_only: true }),
        ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ WRITE", Set { read_only: false }),
    ] {
        assert_eq!(of(sql), Statement::Transaction(expected), "{sql}");
        assert!(!of(sql).is_query());
    }
}

#[test]
fn inserts() {
    let Statement::Insert(Insert { table, columns, source, returning, .. }) =
        of("INSERT INTO NS.T (A, \"B\") VALUES (1, DEFAULT), (?, ?)")
    else {
        panic!()
    };
    assert_eq!((table, columns, returning), (name("ns.t"), vec!["a".to_owned(), "B".to_owned()], vec![]));
    let InsertSource::Values(rows) = source else { panic!() };
    let texts: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
    assert_eq!(texts, [["1", "\"seracdb default\""], ["$1", "$2"]]);

    for (sql, columns) in [
        ("INSERT INTO t SELECT a FROM u", &[][..]),
        ("INSERT INTO t (a) SELECT a FROM u ORDER BY a LIMIT 3", &["a"]),
        ("INSERT INTO t (t.a) WITH x AS (SELECT 1) SELECT * FROM x", &["a"]),
    ] {
        let Statement::Insert(insert) = of(sql) else { panic!("{sql}") };
        assert!(matches!(insert.source, InsertSource::Query(_)), "{sql}");
        assert_eq!(insert.columns, columns, "{sql}");
    }
    let Statement::Insert(insert) = of("INSERT INTO seracdb.ns.t DEFAULT VALUES") else { panic!() };
    assert_eq!((insert.table, insert.source), (name("ns.t"), InsertSource::Defaults));
}

#[test]
fn updates_and_deletes() {
    let Statement::Update(Update { table, alias, assignments, from, selection, returning }) =
        of("UPDATE ns.t AS X SET a = a + 1, x.B = DEFAULT, (c, d) = (1, 'z') WHERE a IN (SELECT a FROM u)")
    else {
        panic!()
    };
    assert_eq!((table, alias.unwrap().value, from), (name("ns.t"), "X".to_owned(), vec![]));
    assert_eq!(returning, vec![]);
    let texts: Vec<String> = assignments.iter().map(|(column, value)| format!("{column} = {value}")).collect();
    assert_eq!(texts, ["a = a + 1", "b = \"seracdb default\"", "c = 1", "d = 'z'"]);
    assert_eq!(selection.unwrap().to_string(), "a IN (SELECT a FROM u)");

    for (sql, table, alias, has_selection) in [
        ("DELETE FROM t", "t", None, false),
        ("DELETE FROM ns.t AS x WHERE x.a = 1", "ns.t", Some("x"), true),
        ("DELETE FROM t x WHERE EXISTS (SELECT 1)", "t", Some("x"), true),
    ] {
        let Statement::Delete(delete) = of(sql) else { panic!("{sql}") };
        let Delete { table: found, alias: called, using, selection, returning } = delete;
        assert_eq!((using, returning), (vec![], vec![]));
        assert_eq!((found, called.map(|a| a.value)), (name(table), alias.map(str::to_owned)), "{sql}");
        assert_eq!(selection.is_some(), has_selection, "{sql}");
    }
}

#[test]
fn with_before_a_write() {
    let of_pieces = |sql: &str| match of(sql) {
        Statement::Insert(Insert { source: InsertSource::Query(query), .. }) => query.to_string(),
        Statement::Insert(Insert { source: InsertSource::Values(rows), .. }) => rows[0][0].to_string(),
        Statement::Update(update) => format!("{} WHERE {}", update.from[0], update.selection.unwrap()),
        Statement::Delete(delete) => match delete.selection {
            Some(selection) => selection.to_string(),
            None => delete.using[0].to_string(),
        },
        Statement::Merge(merge) => merge.source.to_string(),
        Statement::Explain { inner, .. } => matches!(*inner, Statement::Delete(_)).to_string(),
        other => panic!("{sql}: {other:?}"),
    };
    for (sql, expected) in [
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", "SELECT * FROM (SELECT 1) AS \"x\""),
        ("WITH X (a) AS (SELECT 1) DELETE FROM t USING x", "(SELECT 1) AS \"x\" (a)"),
        ("WITH x (a) AS (SELECT 1) DELETE FROM t USING x AS y", "(SELECT 1) AS y (a)"),
        ("WITH x (a) AS (SELECT 1) DELETE FROM t USING x y (b)", "(SELECT 1) y (b)"),
        (
            "WITH u AS (SELECT * FROM u), y AS (SELECT * FROM u) DELETE FROM t WHERE a IN (SELECT a FROM y)",
            "a IN (SELECT a FROM (SELECT * FROM (SELECT * FROM u) AS \"u\") AS \"y\")",
        ),
        (
            "WITH x AS (SELECT 1 AS a) UPDATE t SET b = 1 FROM x WHERE EXISTS (SELECT 1 FROM ns.x)",
            "(SELECT 1 AS a) AS \"x\" WHERE EXISTS (SELECT 1 FROM ns.x)",
        ),
        ("WITH x AS (SELECT 1) INSERT INTO t VALUES ((SELECT * FROM x))", "(SELECT * FROM (SELECT 1) AS \"x\")"),
        (
            "WITH x AS (SELECT 1) INSERT INTO t WITH x AS (SELECT 2) SELECT * FROM x",
            "WITH x AS (SELECT 2) SELECT * FROM x",
        ),
        (
            "WITH x AS (SELECT 1 AS a) MERGE INTO t USING x ON t.a = x.a WHEN MATCHED THEN DELETE",
            "(SELECT 1 AS a) AS \"x\"",
        ),
        ("EXPLAIN WITH x AS (SELECT 1) DELETE FROM t", "true"),
    ] {
        assert_eq!(of_pieces(sql), expected, "{sql}");
    }
    for (sql, text) in [
        ("WITH t AS (SELECT 1) DELETE FROM t", "'t' is a WITH query, which cannot be changed"),
        ("WITH x AS (SELECT 1), X AS (SELECT 2) DELETE FROM t", "WITH has two queries named 'x'"),
        ("WITH x AS (SELECT 1) WITH y AS (SELECT 2) SELECT 1", "found 'WITH'"),
        ("WITH x AS (SELECT 1)", "found the end of the statement"),
        ("WITH x AS (SELECT 1) TRUNCATE t", "found 'TRUNCATE'"),
        (
            "WITH x AS (SELECT 1) DELETE FROM t USING x FOR SYSTEM_TIME AS OF now() AS y",
            "'x' is a WITH query: write FOR SYSTEM_TIME AS OF in it",
        ),
        (
            "WITH x AS (SELECT * FROM u) INSERT INTO t WITH u AS (SELECT 1) SELECT * FROM x",
            "WITH query 'x' reads \"u\", and stands where another WITH query is named so",
        ),
    ] {
        let error = error(sql);
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{sql}: {}", error.message);
        assert!(error.message.contains(text), "{sql}: {}", error.message);
    }
    of("WITH t AS (SELECT 1) DELETE FROM ns.t");
    let doubled = |n: usize| {
        let queries: String = (0..n).map(|i| format!(", c{} AS (SELECT * FROM c{i} a, c{i} b)", i + 1)).collect();
        format!("WITH c0 AS (SELECT 1){queries} INSERT INTO t SELECT * FROM c{n}")
    };
    let long = |n: usize| {
        format!(
            "WITH x AS (SELECT '{}') INSERT INTO t SELECT 1{}",
            "x".repeat(1 << 20),
            ", (SELECT * FROM x)".repeat(n)
        )
    };
    let many = format!("WITH x0 AS (SELECT 1){} DELETE FROM t", ", x1 AS (SELECT 1)".repeat(5_000));
    of(&doubled(4));
    of(&long(10));
    for sql in [doubled(40), long(200), many] {
        assert_eq!(error(&sql).kind, ErrorKind::ResourceExhausted, "{}", error(&sql).message);
    }
}

#[test]
fn explains() {
    for (sql, analyze, verbose, format) in [
        ("EXPLAIN SELECT 1", false, false, None),
        ("EXPLAIN ANALYZE VERBOSE SELECT 1", true, true, None),
        ("EXPLAIN FORMAT TREE SELECT 1", false, false, Some("tree")),
        ("EXPLAIN (ANALYZE, FORMAT JSON) SELECT 1", true, false, Some("pgjson")),
        ("EXPLAIN (ANALYZE false, VERBOSE on) SELECT 1", false, true, None),
        ("EXPLAIN (SELECT 1)", false, false, None),
        ("EXPLAIN UPDATE t SET a = 1", false, false, None),
        ("EXPLAIN DELETE FROM t WHERE a = 1", false, false, None),
        ("EXPLAIN ANALYZE INSERT INTO t VALUES (1)", true, false, None),
    ] {
        let Statement::Explain { analyze: a, verbose: v, format: f, inner } = of(sql) else { panic!("{sql}") };
        assert_eq!((a, v, f.as_deref()), (analyze, verbose, format), "{sql}");
        assert!(!matches!(*inner, Statement::Explain { .. }));
    }
}

#[test]
fn tables_are_created() {
    let sql = "CREATE USER TABLE IF NOT EXISTS ns.Events (
        At TIMESTAMP NOT NULL, \"Name\" VARCHAR(20) NULL, tags TEXT[], p STRUCT<x INT, y DOUBLE>
    ) WITH (ttl = '10s', Flush_Rows_Max = 1000, cluster_by = at)";
    let Statement::CreateTable(CreateTable {
        name: table,
        kind,
        temporary: false,
        if_not_exists,
        columns,
        options,
        ..
    }) = of(sql)
    else {
        panic!()
    };
    assert_eq!((table, kind, if_not_exists), (name("ns.events"), TableKind::User, true));
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
    assert_eq!(
        columns[0],
        ColumnDef { name: "at".into(), data_type: timestamp, nullable: false, default: None, generated: None }
    );
    assert_eq!(
        columns[1],
        ColumnDef { name: "Name".into(), data_type: DataType::Utf8, nullable: true, default: None, generated: None }
    );
    assert_eq!(columns.len(), 4);
    let expected = [("ttl", "10s"), ("flush_rows_max", "1000"), ("cluster_by", "at")];
    assert_eq!(options, BTreeMap::from(expected.map(|(k, v)| (k.to_owned(), v.to_owned()))));

    for (sql, kind) in [
        ("CREATE TABLE t (id INT)", TableKind::Shared),
        ("create shared table t (id int)", TableKind::Shared),
        ("CREATE STREAM TABLE t (user INT, stream INT, storage INT)", TableKind::Stream),
    ] {
        let Statement::CreateTable(table) = of(sql) else { panic!("{sql}") };
        assert_eq!(table.kind, kind, "{sql}");
    }
}

#[test]
fn other_statements() {
    let user = |name: &str, password: &str, role| Statement::CreateUser {
        name: name.into(),
        password: Password(password.into()),
        role,
    };
    let set = |name: &str, value: Option<&str>| Statement::Set { name: name.into(), value: value.map(Into::into) };
    for (sql, expected) in [
        ("CREATE NAMESPACE Ns", Statement::CreateNamespace { name: "ns".into(), if_not_exists: false }),
        (
            "CREATE SCHEMA IF NOT EXISTS seracdb.ns",
            Statement::CreateNamespace { name: "ns".into(), if_not_exists: true },
        ),
        ("DROP NAMESPACE ns", Statement::DropNamespace { name: "ns".into(), if_exists: false, cascade: false }),
        (
            "DROP SCHEMA IF EXISTS ns CASCADE",
            Statement::DropNamespace { name: "ns".into(), if_exists: true, cascade: true },
        ),
        ("DROP TABLE ns.t", Statement::DropTable { names: vec![name("ns.t")], if_exists: false, cascade: false }),
        (
            "DROP USER TABLE IF EXISTS t",
            Statement::DropTable { names: vec![name("t")], if_exists: true, cascade: false },
        ),
        (
            "DROP TABLE t, ns.u CASCADE",
            Statement::DropTable { names: vec![name("t"), name("ns.u")], if_exists: false, cascade: true },
        ),
        (
            "DROP VIEW IF EXISTS v RESTRICT",
            Statement::DropView { names: vec![name("v")], if_exists: true, cascade: false },
        ),
        ("DROP INDEX ns.i", Statement::DropIndex { name: name("ns.i"), if_exists: false }),
        ("DROP INDEX IF EXISTS i", Statement::DropIndex { name: name("i"), if_exists: true }),
        ("CREATE USER Anna WITH PASSWORD 'it''s'", user("Anna", "it's", Role::User)),
        ("CREATE USER 'an na' WITH PASSWORD 'x' ROLE service", user("an na", "x", Role::Service)),
        ("CREATE USER anna ROLE 'admin' PASSWORD 'x'", user("anna", "x", Role::Admin)),
        ("STORAGE FLUSH TABLE ns.t", Statement::FlushTable(name("ns.t"))),
        ("STORAGE FLUSH ALL", Statement::FlushAll),
        ("STORAGE COMPACT TABLE ns.t", Statement::CompactTable(name("ns.t"))),
        ("STORAGE CHECK TABLE ns.t", Statement::CheckTable(name("ns.t"))),
        ("SHOW TABLES", Statement::ShowTables { namespace: None, like: None }),
        (
            "SHOW TABLES IN Ns LIKE 'a%'",
            Statement::ShowTables { namespace: Some("ns".into()), like: Some("a%".into()) },
        ),
        ("SHOW SCHEMAS", Statement::ShowNamespaces),
        ("SHOW NAMESPACES", Statement::ShowNamespaces),
        ("DESCRIBE ns.t", Statement::Describe(name("ns.t"))),
        ("DESC TABLE t", Statement::Describe(name("t"))),
        ("SHOW COLUMNS FROM t", Statement::Describe(name("t"))),
        ("SHOW ALL", Statement::ShowSetting(None)),
        ("SHOW search_path", Statement::ShowSetting(Some("search_path".into()))),
        ("SHOW TIME ZONE", Statement::ShowSetting(Some("timezone".into()))),
        ("SET search_path = Ns", Statement::UseNamespace("ns".into())),
        ("SET search_path TO 'Ns'", Statement::UseNamespace("Ns".into())),
        ("SET SCHEMA 'ns'", Statement::UseNamespace("ns".into())),
        ("USE ns", Statement::UseNamespace("ns".into())),
        ("USE SCHEMA ns", Statement::UseNamespace("ns".into())),
        ("USE schema", Statement::UseNamespace("schema".into())),
        ("SET datafusion.execution.batch_size = 10", set("datafusion.execution.batch_size", Some("10"))),
        ("SET SESSION x TO -1", set("x", Some("-1"))),
        ("SET TIME ZONE 'UTC'", set("timezone", Some("UTC"))),
        ("SET timezone = 'UTC'", set("timezone", Some("UTC"))),
        ("SET x TO DEFAULT", set("x", None)),
        ("RESET x", set("x", None)),
    ] {
        assert_eq!(of(sql), expected, "{sql}");
    }
    let shown = format!("{:?}", of("CREATE USER anna WITH PASSWORD 'secret'"));
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn syntax_errors_say_where() {
    for (sql, text) in [
        ("", "the statement is empty"),
        (" ;; -- nothing", "the statement is empty"),
        ("SELECT\n  FROM FROM t", "syntax error at line 2, column 8: "),
        ("SELEC 1", "syntax error at line 1, column 1: expected a statement, found 'SELEC'"),
        (
            "SELECT 1;\nSELECT 2",
            "syntax error at line 2, column 1: a second statement begins at 'SELECT': send one statement at a time",
        ),
        ("SELECT 1 2", "expected the end of the statement, found '2'"),
        ("SELECT (1", "syntax error at line 1, column 10: expected ), found the end of the statement"),
        ("INSERT INTO", "found the end of the statement"),
        ("UPDATE t SET", "found the end of the statement"),
        ("CREATE TABLE t", "expected the columns in parentheses, found the end"),
        ("CREATE TABLE t ()", "at least one column"),
        ("CREATE TABLE t (a INT, A TEXT)", "column 'a' is declared twice"),
        ("CREATE TABLE t (a INT NULL NOT NULL)", "both NULL and NOT NULL"),
        ("CREATE TABLE t (a INT) WITH (x = 1, X = 2)", "'x' twice"),
        ("CREATE TABLE t (a INT) WITH (x = f(1))", "write a number"),
        ("CREATE USER anna", "needs a password"),
        ("CREATE USER anna WITH PASSWORD secret", "in single quotes"),
        ("CREATE USER anna WITH PASSWORD 'x' ROLE king", "unknown role 'king'"),
        ("EXPLAIN EXPLAIN SELECT 1", "after EXPLAIN"),
        ("EXPLAIN FORMAT XML SELECT 1", "unknown EXPLAIN format 'xml'"),
        ("EXPLAIN (COSTS) SELECT 1", "the options are"),
        ("SELECT * FROM t WHERE a = :name", "is not a parameter"),
        ("SELECT 1 LIMIT 1 FETCH FIRST 1 ROW ONLY", "keep one of them"),
        ("UPDATE t SET (a, b) = (1, 2, 3)", "2 columns but has 3 values"),
        ("UPDATE t SET a = 1, A = 2", "column 'a' of t is given twice"),
        ("UPDATE t SET u.a = 1", "not a column of t"),
        ("INSERT INTO t (a, a) VALUES (1, 2)", "given twice"),
        ("SELECT * FROM a.b.c.d.e, t AS 'x", "syntax error"),
    ] {
        let error = error(sql);
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{sql}: {}", error.message);
        assert!(error.message.contains(text), "{sql}: {}", error.message);
    }
    assert!(!error("CREATE USER anna WITH PASSWORD secret").message.contains("secret"));
    assert_eq!(error("DELETE FROM other.ns.t").kind, ErrorKind::NotFound);
}

#[test]
fn what_comes_later_or_never() {
    for sql in [
        "INSERT OVERWRITE t VALUES (1)",
        "UPDATE t JOIN u ON t.a = u.a SET a = 1",
        "UPDATE t SET (a, b) = (SELECT 1, 2 LIMIT 1)",
        "UPDATE t SET (a, b) = (SELECT random(), 2)",
        "UPDATE t SET (a, b) = (SELECT x, y FROM (SELECT * FROM u LIMIT 1) AS u)",
        "WITH w AS (SELECT random() AS x) UPDATE t SET (a, b) = (SELECT x, x FROM w)",
        "DELETE FROM t, u",
        "DELETE FROM t ORDER BY a LIMIT 1",
        "ALTER TABLE t ADD COLUMN a INT GENERATED ALWAYS AS (b) STORED",
        "ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES u (a)",
        "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u (a)",
        "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0) NOT ENFORCED",
        "ALTER TABLE t DROP COLUMN a CASCADE",
        "ALTER TABLE t ALTER COLUMN a TYPE BIGINT USING a + 1",
        "TRUNCATE t, u",
        "TRUNCATE TABLE IF EXISTS t",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "COMMIT AND CHAIN",
        "CREATE MATERIALIZED VIEW v AS SELECT 1",
        "CREATE INDEX i ON t USING btree (a)",
        "CREATE TABLE t (a INT) AS SELECT 1",
        "CREATE TABLE t (LIKE u INCLUDING COMMENTS)",
        "CREATE TEMPORARY USER TABLE t (a INT)",
        "CREATE TEMPORARY VIEW v AS SELECT 1",
        "CREATE TABLE t (a INT REFERENCES u (a))",
        "CREATE TABLE t (a INT GENERATED ALWAYS AS IDENTITY)",
        "CREATE EXTERNAL TABLE t (a INT) STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "CREATE DATABASE d",
        "DROP DATABASE d",
        "COPY t TO '/tmp/x'",
        "LOAD 'lib'",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "CALL f()",
        "VACUUM",
        "PRAGMA x",
        "KILL 1",
        "ATTACH DATABASE 'x' AS y",
        "SET LOCAL x = 1",
        "SELECT * INTO x FROM t",
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM (SELECT * FROM t FOR SHARE) AS x",
        "SELECT * FROM t WHERE a IN (SELECT a INTO x FROM u)",
        "SELECT * FROM t TABLESAMPLE BERNOULLI (10)",
        "SELECT * FROM t FETCH FIRST 10 PERCENT ROWS ONLY",
        "SELECT * FROM t WITH ORDINALITY",
        "WITH x AS (DELETE FROM t RETURNING a) SELECT * FROM x",
        "WITH x AS (DELETE FROM t RETURNING a) DELETE FROM u USING x WHERE x.a = u.a",
        "WITH RECURSIVE x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "SELECT 1 UNION TABLE t",
    ] {
        let error = error(sql);
        assert_eq!(error.kind, ErrorKind::Unimplemented, "{sql}: {}", error.message);
    }
}

#[test]
fn a_view_keeps_its_text() {
    let view = |sql: &str| match of(sql) {
        Statement::CreateView(view) => view,
        other => panic!("{sql}: {other:?}"),
    };
    let made = view("CREATE OR REPLACE VIEW Ns.V (A, \"B\") AS\n  SELECT 'é', -- one\n 2  -- two\n;");
    assert_eq!((made.name.to_string(), made.or_replace, made.if_not_exists), ("ns.v".into(), true, false));
    assert_eq!((made.columns, made.text.as_str()), (vec!["a".into(), "B".into()], "SELECT 'é', -- one\n 2"));
    for text in ["SELECT 1", "TABLE t", "VALUES (1), (2)", "WITH x AS (SELECT 1) SELECT * FROM x", "(SELECT 1)"] {
        assert_eq!(view(&format!("CREATE VIEW IF NOT EXISTS v AS {text} ;")).text, text);
    }
    for (sql, expected) in [
        ("CREATE VIEW v AS INSERT INTO t VALUES (1)", "expected a query, found 'INSERT'"),
        ("CREATE VIEW v AS SELECT ?", "a view has no parameters"),
        ("CREATE VIEW v AS SELECT a FROM t LIMIT $1", "a view has no parameters"),
        ("CREATE VIEW v (a, A) AS SELECT 1, 2", "names column 'a' twice"),
        ("CREATE VIEW v SELECT 1", "expected AS and a query"),
        ("CREATE OR REPLACE VIEW IF NOT EXISTS v AS SELECT 1", "keep one of them"),
        ("CREATE VIEW v AS SELECT 1 WITH CHECK OPTION", "syntax error"),
    ] {
        let error = error(sql);
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{sql}");
        assert!(error.message.contains(expected), "{sql}: {}", error.message);
    }
    let long = format!("CREATE VIEW v AS SELECT '{}'", "x".repeat(64 << 10));
    assert_eq!(error(&long).kind, ErrorKind::ResourceExhausted);
}

#[test]
fn comments() {
    let name = |table: &str| TableName { namespace: None, table: table.into() };
    let in_ns = |table: &str| TableName { namespace: Some("ns".into()), table: table.into() };
    for (sql, on, text) in [
        ("COMMENT ON TABLE t IS 'it''s'", Commented::Table(name("t")), Some("it's")),
        ("COMMENT ON VIEW Ns.V IS NULL", Commented::View(in_ns("v")), None),
        ("COMMENT ON COLUMN t.C IS ''", Commented::Column(name("t"), "c".into()), Some("")),
        ("COMMENT ON COLUMN seracdb.ns.t.\"C\" IS 'x';", Commented::Column(in_ns("t"), "C".into()), Some("x")),
        ("COMMENT ON SCHEMA ns IS 'x'", Commented::Namespace("ns".into()), Some("x")),
        ("COMMENT ON NAMESPACE seracdb.ns IS 'x'", Commented::Namespace("ns".into()), Some("x")),
    ] {
        assert_eq!(of(sql), Statement::Comment { on, text: text.map(str::to_owned) }, "{sql}");
    }
    for sql in [
        "COMMENT ON COLUMN c IS 'x'",
        "COMMENT ON INDEX i IS 'x'",
        "COMMENT ON TABLE t 'x'",
        "COMMENT ON TABLE t IS x",
        "COMMENT TABLE t IS 'x'",
    ] {
        assert_eq!(error(sql).kind, ErrorKind::InvalidArgument, "{sql}");
    }
    let long = format!("COMMENT ON TABLE t IS '{}'", "x".repeat((4 << 10) + 1));
    assert_eq!(error(&long).kind, ErrorKind::ResourceExhausted);
}

#[test]
fn system_columns_are_not_written() {
    for column in [system_columns::ID, system_columns::UPDATED, system_columns::DELETED] {
        for sql in [
            format!("INSERT INTO t (a, {column}) VALUES (1, 2)"),
            format!("INSERT INTO t (\"{column}\") SELECT 1"),
            format!("UPDATE t SET a = 1, {column} = 2"),
            format!("UPDATE t SET (a, t.{column}) = (1, 2)"),
            format!("CREATE TABLE t (a INT, {column} BIGINT)"),
        ] {
            let error = error(&sql);
            assert_eq!(error.kind, ErrorKind::InvalidArgument);
            let expected = format!("SystemColumnViolation: column \"{column}\" is assigned by SeracDB: leave it out");
            assert_eq!(error.message, expected, "{sql}");
        }
    }
    of("CREATE TABLE t (id INT, updated INT)");
}

#[test]
fn constraints_come_and_go_together() {
    let changes = |sql: &str| match of(sql) {
        Statement::AlterTable { change: AlterTable::Changes { columns, constraints }, .. } if columns.is_empty() => {
            constraints
        }
        other => panic!("{sql}: {other:?}"),
    };
    let key = |name: Option<&str>, columns: &[&str], primary, nulls_equal| {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        ConstraintChange::Unique(UniqueDef { name: name.map(str::to_owned), columns, primary, nulls_equal })
    };
    let check = |name: Option<&str>, expr: &str| {
        ConstraintChange::Check(CheckDef { name: name.map(str::to_owned), expr: expr.to_owned() })
    };
    assert_eq!(
        changes("ALTER TABLE t ADD CONSTRAINT C UNIQUE (A, \"B\")"),
        [key(Some("c"), &["a", "B"], false, false)]
    );
    assert_eq!(changes("ALTER TABLE t ADD UNIQUE NULLS NOT DISTINCT (a)"), [key(None, &["a"], false, true)]);
    assert_eq!(
        changes(
            "ALTER TABLE t ADD PRIMARY KEY (a), ALTER b SET NOT NULL, ADD CHECK (a > 0), DROP CONSTRAINT IF EXISTS x"
        ),
        [
            key(None, &["a"], true, false),
            ConstraintChange::NotNull("b".into()),
            check(None, "a > 0"),
            ConstraintChange::Drop { name: "x".into(), if_exists: true },
        ]
    );
    assert_eq!(
        changes("ALTER TABLE t RENAME CONSTRAINT A TO \"B\""),
        [ConstraintChange::Rename { name: "a".into(), to: "B".into() }]
    );
    let renamed = of("ALTER TABLE t RENAME constraint TO b");
    assert!(matches!(renamed, Statement::AlterTable { change: AlterTable::RenameColumn { .. }, .. }));
    // With columns, which change first.
    let Statement::AlterTable { change: AlterTable::Changes { columns, constraints }, .. } =
        of("ALTER TABLE t ADD COLUMN a INT CONSTRAINT k UNIQUE CHECK (a > 0), ADD CHECK (b > 0), DROP c")
    else {
        panic!("an ALTER TABLE")
    };
    assert_eq!(constraints, [check(None, "b > 0")]);
    let ColumnChange::Add { constraints, .. } = &columns[0] else { panic!("{columns:?}") };
    assert_eq!(*constraints, [key(Some("k"), &["a"], false, false), check(None, "a > 0")]);
    assert_eq!(columns.len(), 2);
    // Columns that are called like the beginning of a constraint.
    for sql in ["ALTER TABLE t ADD unique INT", "ALTER TABLE t ADD check TEXT", "ALTER TABLE t ADD primary INT"] {
        let Statement::AlterTable { change: AlterTable::Changes { columns, constraints }, .. } = of(sql) else {
            panic!("{sql}")
        };
        assert!(columns.len() == 1 && constraints.is_empty(), "{sql}");
    }
    let unique = |sql: &str| match of(sql) {
        Statement::CreateIndex(create) => create.unique,
        other => panic!("{sql}: {other:?}"),
    };
    assert_eq!(unique("CREATE INDEX i ON t (a)"), None);
    assert_eq!(unique("CREATE UNIQUE INDEX i ON t (a) NULLS DISTINCT"), Some(false));
    assert_eq!(unique("CREATE UNIQUE INDEX IF NOT EXISTS i ON t (a) NULLS NOT DISTINCT"), Some(true));
}
