//! Deep and long statements: an answer or a clear error, never the end of the process.

use crate::sql::tests::fixture::Fixture;

#[test]
#[ignore]
fn probe() {
    let kind = std::env::var("KIND").unwrap();
    let n: usize = std::env::var("N").unwrap().parse().unwrap();
    let stack: usize = std::env::var("STACK").unwrap_or("16".into()).parse().unwrap();
    let many = |p: &str| p.repeat(n);
    let sql = match kind.as_str() {
        "sum" => format!("SELECT 1{} AS x", many("+1")),
        "sumcol" => format!("SELECT a{} AS x FROM t", many("+1")),
        "or" => format!("SELECT a FROM t WHERE a = 0{}", many(" OR s = 1 + a")),
        "orc" => format!("SELECT a FROM t WHERE a = 0{}", (0..n).map(|i| format!(" OR a = {i}")).collect::<String>()),
        "and" => format!("SELECT a FROM t WHERE a <> 0{}", (0..n).map(|i| format!(" AND a <> {i}")).collect::<String>()),
        "andx" => format!("SELECT a FROM t WHERE a <> 0{}", (0..n).map(|i| format!(" AND a + s <> {i}")).collect::<String>()),
        "union" => format!("SELECT 1 AS x{}", many(" UNION ALL SELECT 2")),
        "uniond" => format!("SELECT 1 AS x{}", many(" UNION SELECT 2")),
        "uniont" => format!("SELECT a AS x FROM t{}", many(" UNION ALL SELECT a FROM u")),
        "except" => format!("SELECT 1 AS x{}", many(" EXCEPT SELECT 2")),
        "paren" => format!("SELECT {}1{} AS x", many("("), many(")")),
        "parenfrom" => format!("SELECT * FROM {}t{}", many("("), many(")")),
        "subq" => format!("SELECT * FROM {}t{}", many("(SELECT * FROM "), many(") AS q")),
        "exists" => format!("SELECT a FROM t{}{}", many(" WHERE a IN (SELECT a FROM t"), many(")")),
        "case" => format!("SELECT {}1{} AS x", many("CASE WHEN true THEN "), many(" END")),
        "func" => format!("SELECT {}1{} AS x", many("abs("), many(")")),
        "not" => format!("SELECT {}true AS x", many("NOT ")),
        "minus" => format!("SELECT {}1 AS x", many("- ")),
        "interval" => format!("SELECT {}'1 day' AS x", many("INTERVAL ")),
        "isnull" => format!("SELECT 1{} AS x", many(" IS NULL")),
        "cast" => format!("SELECT 1{} AS x", many("::int")),
        "concat" => format!("SELECT 'a'{} AS x", many("||'b'")),
        "arr" => format!("SELECT {}1{} AS x", many("["), many("]")),
        "types" => format!("SELECT CAST(NULL AS {}INT{})", many("STRUCT<a "), many(">")),
        "types2" => format!("CREATE TABLE x (a {}INT{})", many("ARRAY<"), many(">")),
        "types3" => format!("CREATE TABLE x (a INT{})", many("[]")),
        "join" => format!("SELECT count(*) FROM t{}", (0..n).map(|i| format!(" JOIN u AS u{i} ON t.a = u{i}.a")).collect::<String>()),
        "cross" => format!("SELECT count(*) FROM plain{}", (0..n).map(|i| format!(", plain AS p{i}")).collect::<String>()),
        "joinnest" => format!("SELECT count(*) FROM plain{}{}", (0..n).map(|i| format!(" JOIN plain AS p{i}")).collect::<String>(), many(" ON true")),
        "cte" => format!("WITH c0 AS (SELECT 1 AS x){} SELECT * FROM c{n}", (0..n).map(|i| format!(", c{} AS (SELECT * FROM c{i})", i+1)).collect::<String>()),
        "in" => format!("SELECT a FROM t WHERE a IN (0{})", (0..n).map(|i| format!(",{i}")).collect::<String>()),
        "values" => format!("INSERT INTO t (a) VALUES (0){}", (0..n).map(|i| format!(",({i})")).collect::<String>()),
        "cols" => format!("SELECT 1{}", many(", a + 1").replace("a + 1", "1")),
        "between" => format!("SELECT 1{} AS x", many(" BETWEEN 1 AND 2")),
        "at" => format!("SELECT now(){} AS x", many(" AT TIME ZONE 'UTC'")),
        "collate" => format!("SELECT 'a'{} AS x", many(" COLLATE c")),
        "lambda" => format!("SELECT {}1", many("x -> ")),
        "exclam" => format!("SELECT 1{}", many("!")),
        "tilde" => format!("SELECT {}1", many("~")),
        "sqrt" => format!("SELECT {}1", many("|/ ")),
        "explain" => format!("{}SELECT 1", many("EXPLAIN ")),
        "date" => format!("SELECT {}'1'", many("DATE ")),
        "exists2" => format!("SELECT {}1", many("EXISTS ")),
        "prior" => format!("SELECT {}1", many("PRIOR ")),
        "colon" => format!("SELECT a{}", many(":b")),
        "dot" => format!("SELECT a{}", many(".b")),
        "when" => format!("SELECT CASE{} END AS x FROM t", (0..n).map(|i| format!(" WHEN a = {i} THEN {i}")).collect::<String>()),
        "with" => format!("{}SELECT 1{}", many("WITH x AS ("), many(") SELECT 1")),
        "alias" => format!("SELECT {}1{}", many("(SELECT "), many(")")),
        other => panic!("{other}"),
    };
    let started = std::time::Instant::now();
    let run = move || {
        let fixture = Fixture::new();
        let cells = fixture.cells(&sql, vec![]);
        match cells {
            Ok(cells) => println!("OK {:.60}", cells),
            Err(e) => println!("ERR {:?} {:.160}", e.kind, e.message),
        }
    };
    std::thread::Builder::new().stack_size(stack << 20).spawn(run).unwrap().join().unwrap();
    println!("{kind} {n}: {:?}", started.elapsed());
}
