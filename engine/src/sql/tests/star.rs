//! `SELECT *` in statements that name `_deleted`.

use super::fixture::Fixture;
use crate::sql::mentions::mentions_identifier;
use crate::sql::{Limits, parse};

fn header(fixture: &Fixture, sql: &str) -> String {
    let cells = fixture.cells(sql, vec![]).unwrap_or_else(|e| panic!("{sql}: {}", e.message));
    cells.split(';').next().unwrap_or_default().to_owned()
}

#[test]
fn wildcards_leave_it_out() {
    let fixture = Fixture::with_deleted();
    let t = "_id,a,b,s,_updated";
    let u = "_id,a,c,_updated";
    for (sql, expected) in [
        ("SELECT * FROM t WHERE NOT _deleted", t.to_owned()),
        ("SELECT *, _deleted FROM t", format!("{t},_deleted")),
        ("SELECT _deleted, t.* FROM t", format!("_deleted,{t}")),
        ("SELECT x.*, x._deleted FROM ns.t AS x", "_id,n,_updated,_deleted".into()),
        ("SELECT ns.t.* FROM ns.t WHERE _deleted IS NOT NULL", "_id,n,_updated".into()),
        ("SELECT * EXCLUDE (a) FROM t WHERE NOT _deleted", "_id,b,s,_updated".into()),
        ("SELECT * EXCEPT (a, _deleted) FROM t", "_id,b,s,_updated".into()),
        ("SELECT * REPLACE (a + 1 AS a) FROM t WHERE NOT _deleted", t.to_owned()),
        ("SELECT * FROM t, u WHERE NOT t._deleted", format!("{t},{u}")),
        ("SELECT * FROM t JOIN u ON t.a = u.a AND NOT u._deleted", format!("{t},{u}")),
        ("SELECT * FROM t AS x LEFT JOIN u USING (a) WHERE x._deleted = false", format!("{t},_id,c,_updated")),
        ("SELECT * FROM t FULL JOIN u USING (a) WHERE NOT t._deleted", format!("{t},_id,c,_updated")),
        ("SELECT * FROM t RIGHT JOIN u USING (a) WHERE NOT u._deleted", format!("{t},_id,c,_updated")),
        ("SELECT u.*, t.b FROM t JOIN u ON t.a = u.a AND NOT u._deleted", format!("{u},b")),
        ("SELECT * FROM (t JOIN u ON t.a = u.a) WHERE NOT u._deleted", format!("{t},{u}")),
        ("SELECT * FROM t, plain WHERE NOT _deleted", format!("{t},k")),
        ("SELECT * FROM plain WHERE k IN (SELECT a FROM t WHERE NOT _deleted)", "k".into()),
        ("SELECT * FROM (SELECT a, b FROM t WHERE NOT _deleted) AS q", "a,b".into()),
        ("SELECT * FROM (SELECT * FROM t) AS q WHERE a IN (SELECT a FROM u WHERE NOT _deleted)", t.to_owned()),
        ("SELECT * FROM (SELECT *, _deleted FROM t) AS q", format!("{t},_deleted")),
        ("SELECT * FROM t, (SELECT a AS x FROM u) AS q WHERE NOT _deleted", format!("{t},x")),
        ("WITH t AS (SELECT * FROM t WHERE NOT _deleted) SELECT * FROM t", t.to_owned()),
        ("WITH q AS (SELECT a, _deleted FROM t) SELECT * FROM q", "a,_deleted".into()),
        (
            "WITH q AS (SELECT * FROM t), r AS (SELECT * FROM q) SELECT * FROM r, u WHERE NOT u._deleted",
            format!("{t},{u}"),
        ),
        ("SELECT * FROM t WHERE NOT _deleted UNION ALL SELECT * FROM t", t.to_owned()),
        ("SELECT count(*) AS n FROM t WHERE NOT _deleted", "n".into()),
        ("SELECT a FROM t WHERE EXISTS (SELECT * FROM u WHERE u.a = t.a AND NOT u._deleted)", "a".into()),
        ("SELECT * FROM t LEFT SEMI JOIN u ON t.a = u.a AND NOT u._deleted", t.to_owned()),
        ("SELECT * FROM t, unnest([1]) AS x(e) WHERE NOT _deleted", format!("{t},e")),
    ] {
        assert_eq!(header(&fixture, sql), expected, "{sql}");
    }
    for sql in
        ["SELECT * FROM t NATURAL JOIN u WHERE NOT t._deleted", "SELECT * EXCLUDE (b) FROM t, u WHERE NOT t._deleted"]
    {
        let error = fixture.rows(sql, vec![]).unwrap_err();
        assert!(error.message.ends_with("list the columns"), "{sql}: {}", error.message);
    }
}

#[test]
fn names_are_found_wherever_they_are() {
    for (sql, expected) in [
        ("SELECT _deleted FROM t", true),
        ("SELECT _DELETED FROM t", true),
        ("SELECT \"_deleted\" FROM t", true),
        ("SELECT t._deleted FROM t", true),
        ("SELECT \"_DELETED\" FROM t", false),
        ("SELECT a FROM t ORDER BY _deleted", true),
        ("SELECT a FROM t GROUP BY a HAVING bool_or(_deleted)", true),
        ("SELECT a FROM t JOIN u ON u._deleted", true),
        ("SELECT a FROM t JOIN u USING (_deleted)", true),
        ("SELECT * EXCLUDE (_deleted) FROM t", true),
        ("SELECT * EXCEPT (a, _deleted) FROM t", true),
        ("SELECT a FROM t WHERE a IN (SELECT 1 FROM u WHERE _deleted)", true),
        ("WITH q AS (SELECT _deleted FROM t) SELECT 1", true),
        ("SELECT sum(a) OVER (PARTITION BY _deleted) FROM t", true),
        ("SELECT '_deleted' FROM t", false),
        ("SELECT deleted FROM t -- _deleted", false),
        ("INSERT INTO t SELECT a FROM u WHERE _deleted", true),
        ("INSERT INTO t VALUES ((SELECT 1 FROM u WHERE _deleted))", true),
        ("UPDATE t SET a = 1 WHERE NOT _deleted", true),
        ("UPDATE t SET a = CASE WHEN _deleted THEN 1 END", true),
        ("UPDATE t SET a = 1", false),
        ("DELETE FROM t WHERE _deleted", true),
        ("EXPLAIN SELECT _deleted FROM t", true),
    ] {
        let statement = parse(sql, &Limits::default()).unwrap_or_else(|e| panic!("{sql}: {}", e.message));
        assert_eq!(mentions_identifier(&statement, seracdb_storage::system_columns::DELETED), expected, "{sql}");
    }
}
