//! UPDATE, DELETE and INSERT as queries, and errors of planning.

use super::fixture::Fixture;
use crate::error::ErrorKind;

fn places(fixture: &Fixture, sql: &str) -> Vec<String> {
    let cells = fixture.cells(sql, vec![]).unwrap_or_else(|e| panic!("{sql}: {}", e.message));
    let mut rows: Vec<String> =
        cells.split(';').skip(1).map(|row| row.split(',').next().unwrap_or("").to_owned()).collect();
    rows.sort();
    rows
}

/// The WHERE clauses that DataFusion's own UPDATE and DELETE lose.
#[test]
fn the_right_rows_are_found() {
    let fixture = Fixture::new();
    for (condition, expected) in [
        ("", &["1000", "1001", "1002"][..]),
        ("WHERE a = 1", &["1000"]),
        ("WHERE 1 = 2", &[]),
        ("WHERE a IS NULL", &["1002"]),
        ("WHERE a IN (SELECT a FROM u)", &["1001"]),
        ("WHERE a NOT IN (SELECT a FROM u)", &["1000"]),
        ("WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a)", &["1001"]),
        ("WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.a = t.a)", &["1000", "1002"]),
        ("WHERE a = (SELECT min(a) FROM u)", &["1001"]),
        ("WHERE s > (SELECT avg(s) FROM t)", &["1002"]),
        ("WHERE EXISTS (SELECT 1 FROM t AS o WHERE o.s = t.s + 10)", &["1000", "1001"]),
        ("WHERE b IN (SELECT b FROM t LIMIT 0)", &[]),
        ("WHERE _id = 3", &["1002"]),
    ] {
        assert_eq!(places(&fixture, &format!("DELETE FROM t {condition}")), expected, "DELETE {condition}");
        assert_eq!(places(&fixture, &format!("UPDATE t SET b = 'new' {condition}")), expected, "UPDATE {condition}");
    }
    assert_eq!(
        places(&fixture, "DELETE FROM t AS x WHERE x.a = 1 AND EXISTS (SELECT 1 FROM t WHERE t.a = x.a)"),
        ["1000"]
    );
    assert_eq!(places(&fixture, "DELETE FROM ns.t WHERE n = 8"), ["1001"]);
    assert_eq!(places(&fixture, "DELETE FROM ns.t WHERE t.n = 8 OR ns.t.n = 9"), ["1001", "1002"]);
    assert_eq!(places(&fixture, "DELETE FROM seracdb.ns.t"), ["1000", "1001", "1002"]);
}

#[test]
fn set_sees_the_old_row() {
    let fixture = Fixture::new();
    for (sql, expected) in [
        ("UPDATE t SET a = s, s = a WHERE b = 'x'", "10,x,1"),
        ("UPDATE t SET b = b || '!' WHERE a = 2", "2,y!,20"),
        ("UPDATE t AS t2 SET b = (SELECT max(c) FROM u WHERE u.a = t2.a) WHERE t2.a = 2", "2,p,20"),
        ("UPDATE t SET a = 7.9, s = '5' WHERE b = 'x'", "8,x,5"),
        ("UPDATE t SET a = DEFAULT WHERE b = 'x'", ",x,10"),
        ("UPDATE money SET amount = -98765432109876543210.98", "-98765432109876543210.98"),
        ("UPDATE money SET amount = amount * 2", "3.00"),
        ("UPDATE t SET (a, b) = (3, 'w') WHERE b = 'x'", "3,w,10"),
        ("UPDATE t SET b = CASE WHEN a = 1 THEN 'one' END WHERE s = 10", "1,one,10"),
    ] {
        let cells = fixture.cells(sql, vec![]).unwrap_or_else(|e| panic!("{sql}: {}", e.message));
        let row = cells.split(';').nth(1).unwrap_or_default();
        assert_eq!(row.splitn(4, ',').nth(3), Some(expected), "{sql}");
    }
}

#[test]
fn insert_sources_are_mapped() {
    let fixture = Fixture::new();
    for (sql, expected) in [
        ("INSERT INTO t VALUES (1, 'q', 2)", "a,b,s;1,q,2"),
        ("INSERT INTO t (s) VALUES (1), ('2'), (NULL)", "a,b,s;,,1;,,2;,,"),
        ("INSERT INTO t (b) VALUES (1), ('x'), (true)", "a,b,s;,1,;,x,;,true,"),
        ("INSERT INTO t DEFAULT VALUES", "a,b,s;,,"),
        ("INSERT INTO t (s, b) SELECT a, c FROM u WHERE a = 2", "a,b,s;,p,2"),
        ("INSERT INTO t (a) VALUES ((SELECT max(x) FROM (VALUES (1), (2)) AS v(x)))", "a,b,s;2,,"),
        ("INSERT INTO t (b, a) VALUES ('k', (SELECT 7)), (NULL, 8)", "a,b,s;7,k,;8,,"),
        ("INSERT INTO t (a) WITH q AS (SELECT 5 AS x) SELECT x FROM q", "a,b,s;5,,"),
        ("INSERT INTO t (a) SELECT a FROM u ORDER BY a DESC LIMIT 1", "a,b,s;4,,"),
        ("INSERT INTO t (a) VALUES (DEFAULT)", "a,b,s;,,"),
        (
            "INSERT INTO money VALUES (12345678901234567890.12), (-0.1), (1e2)",
            "amount;12345678901234567890.12;-0.10;100.00",
        ),
    ] {
        let cells = fixture.cells(sql, vec![]).unwrap_or_else(|e| panic!("{sql}: {}", e.message));
        assert_eq!(cells, expected, "{sql}");
    }
}

#[test]
fn errors_say_what_to_do() {
    let fixture = Fixture::new();
    for (sql, kind, part) in [
        ("SELECT * FROM tt.x", ErrorKind::NotFound, "unknown table 'tt.x'"),
        ("SELECT * FROM plan", ErrorKind::NotFound, "unknown table 'plan': did you mean 'plain'?"),
        ("SELECT k1 FROM plain", ErrorKind::NotFound, "unknown column 'k1': the columns are k"),
        ("SELECT row_plase FROM t", ErrorKind::NotFound, "unknown column 'row_plase'"),
        ("SELECT a FROM t, u", ErrorKind::InvalidArgument, "column 'a' is in more than one table"),
        ("SELECT uper(b) FROM t", ErrorKind::InvalidArgument, "Did you mean 'upper'"),
        ("SELECT a + b FROM t WHERE b = 'x' AND a + true > 1", ErrorKind::InvalidArgument, ""),
        ("SELECT b::int FROM t", ErrorKind::InvalidArgument, "Cannot cast string 'x' to value of Int32 type"),
        ("SELECT 1 / (a - 1) FROM t", ErrorKind::InvalidArgument, "division by zero"),
        ("INSERT INTO t (aa) VALUES (1)", ErrorKind::NotFound, "unknown column 'aa'"),
        ("INSERT INTO plain (kk) VALUES (1)", ErrorKind::NotFound, "unknown column 'kk' (in table plain)"),
        (
            "INSERT INTO t VALUES (1, 'a')",
            ErrorKind::InvalidArgument,
            "row 1 of VALUES has 2 values, but table t has 3 columns",
        ),
        (
            "INSERT INTO t (a) VALUES (1), (1, 2)",
            ErrorKind::InvalidArgument,
            "row 2 of VALUES has 2 values, but the column list has 1",
        ),
        (
            "INSERT INTO t (b) SELECT * FROM u",
            ErrorKind::InvalidArgument,
            "but the column list has 1: SELECT * leaves system columns out here; list the columns",
        ),
        ("INSERT INTO t (a) SELECT ARRAY[1]", ErrorKind::InvalidArgument, "column 'a' is of type Int32"),
        ("INSERT INTO t (a) VALUES ('x')", ErrorKind::InvalidArgument, "Cannot cast"),
        ("INSERT INTO t (s) VALUES (70000)", ErrorKind::InvalidArgument, "70000"),
        ("UPDATE t SET nothing = 1", ErrorKind::NotFound, "unknown column 'nothing' (in table t)"),
        ("UPDATE t SET a = unnest(ARRAY[1, 2])", ErrorKind::Unimplemented, "UNNEST in SET"),
        ("UPDATE t SET a = count(*)", ErrorKind::InvalidArgument, "aggregate functions are not allowed in SET"),
    ] {
        let error = fixture.rows(sql, vec![]).unwrap_err();
        assert_eq!(error.kind, kind, "{sql}: {}", error.message);
        assert!(error.message.contains(part), "{sql}: {}", error.message);
        let noise = ["DataFusion error", "backtrace", "Arrow error", "row_place"];
        assert!(!noise.iter().any(|n| error.message.contains(n)), "{sql}: {}", error.message);
    }
}
