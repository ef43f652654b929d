//! Deep and long statements: an answer or a clear error, never the end of the process. Each near its limit and beyond it, on
//! a thread with the stack the limits are for.

use crate::error::ErrorKind;
use crate::sql::limits::{Limits, STACK_BYTES};
use crate::sql::tests::fixture::Fixture;

/// A statement of a given size.
type Statement = fn(usize) -> String;

fn numbered(n: usize, part: impl Fn(usize) -> String) -> String {
    (0..n).map(part).collect()
}

fn nested(n: usize, open: &str, inner: &str, close: &str) -> String {
    format!("SELECT {}{inner}{} AS x", open.repeat(n), close.repeat(n))
}

const STATEMENTS: &[(&str, usize, usize, Statement)] = &[
    // What it is, a size that gives an answer, one that gives an error, the statement.
    ("sum", 498, 2_000, |n| format!("SELECT 1{} AS x", " + 1".repeat(n))),
    ("sum of columns", 498, 100_000, |n| format!("SELECT a{} AS x FROM t", " + a".repeat(n))),
    ("concatenation", 498, 5_000, |n| format!("SELECT 'a'{} AS x", " || 'b'".repeat(n))),
    ("postfix", 498, 9_000, |n| format!("SELECT 1{} AS x", " IS NULL".repeat(n))),
    ("casts", 498, 50_000, |n| format!("SELECT 1{} AS x", "::int".repeat(n))),
    ("ORs", 4_000, 50_000, |n| format!("SELECT a FROM t WHERE a = 0{}", numbered(n, |i| format!(" OR a = {i}")))),
    ("ORs of sums", 2_000, 50_000, |n| {
        format!("SELECT a FROM t WHERE a = 0{}", numbered(n, |i| format!(" OR a + s = {i}")))
    }),
    ("ANDs", 1_000, 50_000, |n| {
        format!("SELECT a FROM t WHERE a <> 0{}", numbered(n, |i| format!(" AND a + s <> {i}")))
    }),
    ("IN", 20_000, 2_000_001, |n| format!("SELECT a FROM t WHERE a IN (0{})", numbered(n, |i| format!(", {i}")))),
    ("VALUES", 20_000, 1_000_001, |n| format!("INSERT INTO t (a) VALUES (0){}", ", (1)".repeat(n))),
    ("UNION ALL", 3_000, 10_000, |n| format!("SELECT 1 AS x{}", " UNION ALL SELECT 2".repeat(n))),
    ("UNION of tables", 1_000, 3_400, |n| format!("SELECT a AS x FROM t{}", " UNION SELECT a FROM u".repeat(n))),
    ("EXCEPT", 240, 3_000, |n| format!("SELECT 1 AS x{}", " EXCEPT SELECT 2".repeat(n))),
    ("commas in FROM", 99, 100, |n| {
        format!("SELECT count(*) FROM plain{}", numbered(n, |i| format!(", plain AS p{i}")))
    }),
    ("joins", 60, 5_000, |n| {
        format!("SELECT count(*) FROM t{}", numbered(n, |i| format!(" JOIN u AS u{i} ON t.a = u{i}.a")))
    }),
    ("WITH upon WITH", 400, 501, |n| {
        let ctes = numbered(n, |i| format!(", c{} AS (SELECT * FROM c{i})", i + 1));
        format!("WITH c0 AS (SELECT 1 AS x){ctes} SELECT * FROM c{n}")
    }),
    ("WITH twice upon WITH", 8, 40, |n| {
        let ctes = numbered(n, |i| format!(", c{} AS (SELECT a.x FROM c{i} AS a, c{i} AS b)", i + 1));
        format!("WITH c0 AS (SELECT 1 AS x){ctes} SELECT count(*) FROM c{n}")
    }),
    ("WITH upon WITH before INSERT", 40, 100, |n| {
        let ctes = numbered(n, |i| format!(", c{} AS (SELECT * FROM c{i})", i + 1));
        format!("WITH c0 AS (SELECT 1 AS x){ctes} INSERT INTO t (a) SELECT x FROM c{n}")
    }),
    ("WITH twice upon WITH before INSERT", 5, 40, |n| {
        let ctes = numbered(n, |i| format!(", c{} AS (SELECT a.x FROM c{i} AS a, c{i} AS b)", i + 1));
        format!("WITH c0 AS (SELECT 1 AS x){ctes} INSERT INTO t (a) SELECT x FROM c{n}")
    }),
    ("parentheses", 64, 65, |n| nested(n, "(", "1", ")")),
    ("brackets", 60, 100_000, |n| nested(n, "[", "1", "]")),
    ("calls", 64, 10_000, |n| nested(n, "abs(", "1", ")")),
    ("CASE in CASE", 60, 10_000, |n| nested(n, "CASE WHEN true THEN ", "1", " END")),
    ("CASE with many WHENs", 2_000, 400_000, |n| {
        format!("SELECT CASE{} END AS x FROM t", numbered(n, |i| format!(" WHEN a = {i} THEN {i}")))
    }),
    ("subqueries in FROM", 60, 10_000, |n| {
        format!("SELECT * FROM {}t{}", "(SELECT * FROM ".repeat(n), ") AS q".repeat(n))
    }),
    ("subqueries in WHERE", 10, 13, |n| {
        format!("SELECT a FROM t{}{}", " WHERE a IN (SELECT a FROM t".repeat(n), ")".repeat(n))
    }),
    ("scalar subqueries", 10, 13, |n| nested(n, "(SELECT ", "1", ")")),
    ("NOT", 90, 100_000, |n| nested(n, "NOT ", "true", "")),
    ("minus", 90, 100_000, |n| nested(n, "- ", "1", "")),
    ("INTERVAL", 1, 100_000, |n| nested(n, "INTERVAL ", "'1 day'", "")),
    ("types", 60, 100_000, |n| format!("SELECT CAST(NULL AS {}INT{}) AS x", "STRUCT<a ".repeat(n), ">".repeat(n))),
    ("array types", 50, 100_000, |n| format!("SELECT CAST(NULL AS INT{}) AS x", "[]".repeat(n))),
    ("subscripts", 1, 100_000, |n| format!("SELECT [1]{} AS x", "[1]".repeat(n))),
    ("identifiers", 1, 100_000, |n| format!("SELECT t{} FROM t", ".a".repeat(n))),
    ("EXPLAINs", 0, 100_000, |n| format!("{}SELECT 1", "EXPLAIN ".repeat(n))),
];

fn on_big_stack<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, run).unwrap().join().unwrap()
    })
}

#[test]
fn near_the_limit_there_is_an_answer() {
    for (what, size, _, statement) in STATEMENTS {
        let sql = statement(*size);
        on_big_stack(|| {
            Fixture::new().cells(&sql, vec![]).unwrap_or_else(|e| panic!("{what} of {size}: {}", e.message));
        });
    }
}

#[test]
fn beyond_it_there_is_an_error() {
    for (what, _, size, statement) in STATEMENTS {
        let sql = statement(*size);
        let error = on_big_stack(|| match crate::sql::parse(&sql, &Limits::default()) {
            Err(error) => error,
            Ok(_) => panic!("{what} of {size} passes"),
        });
        let kinds = [ErrorKind::ResourceExhausted, ErrorKind::InvalidArgument];
        assert!(kinds.contains(&error.kind), "{what} of {size}: {}", error.message);
        assert!(error.message.len() < 300, "{what} of {size}: {}", error.message);
    }
}
