"""The Python DBAPI over ADBC, mostly in autocommit."""

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest
import seracdb
from adbc_driver_manager import AdbcStatusCode
from testserver import ROOT_PASSWORD

POINTS = pa.table({"x": pa.array([1, 2, 3], pa.int64()), "label": pa.array(["a", None, "c"], pa.string())})


@pytest.fixture
def points(db, namespace) -> str:
    table = f"{namespace}.points"
    db.run(f"CREATE TABLE {table} (x BIGINT NOT NULL, label TEXT)")
    return table


def test_insert_and_fetch(db, points):
    with db.cursor() as cursor:
        cursor.execute(f"INSERT INTO {points} (x, label) VALUES (1, 'a'), (2, NULL)")
        assert cursor.rowcount == 2
        cursor.execute(f"SELECT x, label FROM {points} ORDER BY x")
        assert [column[0] for column in cursor.description] == ["x", "label"]
        assert cursor.fetchall() == [(1, "a"), (2, None)]
        cursor.execute(f"SELECT x, label FROM {points} ORDER BY x")
        assert cursor.fetchone() == (1, "a")
        assert cursor.fetchmany(5) == [(2, None)]
        assert cursor.fetchone() is None
        cursor.execute(f"SELECT x, label FROM {points} ORDER BY x")
        assert cursor.fetch_arrow_table().to_pydict() == {"x": [1, 2], "label": ["a", None]}


def test_dml_by_execute_runs_once(db, points):
    """`execute` sends DML down the query path, `executemany` down the update path: each runs exactly once."""
    with db.cursor() as cursor:
        cursor.execute(f"INSERT INTO {points} (x) VALUES (10)")
        assert cursor.rowcount == 1
        cursor.execute(f"UPDATE {points} SET x = x + 1 WHERE x >= 10")
        assert cursor.rowcount == 1
        assert cursor.fetchall() in ([], [(1,)])
        cursor.executemany(f"UPDATE {points} SET x = x + 1 WHERE x >= 10", None)
        assert cursor.rowcount == 1
        cursor.execute(f"SELECT x FROM {points}")
        assert cursor.fetchall() == [(12,)]
        cursor.execute(f"DELETE FROM {points} WHERE x = 12")
        assert cursor.rowcount == 1
        cursor.execute(f"DELETE FROM {points}")
        assert cursor.rowcount == 0


def test_parameters(db, points):
    with db.cursor() as cursor:
        cursor.execute(f"INSERT INTO {points} (x, label) VALUES (?, ?)", [1, "it's"])
        cursor.execute(f"INSERT INTO {points} (x, label) VALUES ($2, $1)", [None, 2])
        assert cursor.rowcount == 1
        cursor.execute(f"SELECT x FROM {points} WHERE label = ?", ["it's"])
        assert cursor.fetchall() == [(1,)]
        cursor.execute(f"SELECT x FROM {points} WHERE x BETWEEN ? AND ? ORDER BY x LIMIT ?", [1, 9, 1])
        assert cursor.fetchall() == [(1,)]
        cursor.execute("SELECT ?", ["only a parameter"])
        assert cursor.fetchall() == [("only a parameter",)]
        cursor.execute(f"UPDATE {points} SET label = COALESCE(?, label) WHERE x = ?", ["two", 2])
        assert cursor.rowcount == 1
        cursor.execute(f"SELECT label FROM {points} WHERE x = 2")
        assert cursor.fetchall() == [("two",)]
        cursor.execute(f"SELECT x FROM {points} WHERE label = '?' OR label = 'it''s' -- ?")
        assert cursor.fetchall() == [(1,)]


def test_parameters_are_described(db, points):
    with db.cursor() as cursor:
        schema = cursor.adbc_prepare(f"INSERT INTO {points} (x, label) VALUES (?, ?)")
        assert [field.type for field in schema] == [pa.int64(), pa.string()]
        assert all(field.nullable for field in schema)
        schema = cursor.adbc_prepare(
            f"SELECT * FROM {points} WHERE x = $10 OR x = $9 OR x IN ($1,$2,$3,$4,$5,$6,$7,$8)"
        )
        assert len(schema) == 10


def test_executemany(db, points):
    rows = [(i, None if i % 7 == 0 else f"label {i}") for i in range(5000)]
    with db.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {points} (x, label) VALUES (?, ?)", rows)
        assert cursor.rowcount == len(rows)
        cursor.execute(f"SELECT x, label FROM {points} ORDER BY x")
        assert cursor.fetchall() == rows
        cursor.executemany(f"UPDATE {points} SET label = ? WHERE x = ?", [("new", 0), ("new", 1), ("new", -1)])
        assert cursor.rowcount == 2
        cursor.execute(f"SELECT count(*) FROM {points} WHERE label = 'new'")
        assert cursor.fetchall() == [(2,)]


def test_executemany_is_atomic(db, points):
    """One row that cannot be inserted takes the whole batch with it."""
    with db.cursor() as cursor, pytest.raises(seracdb.Error, match="(?i)null"):
        cursor.executemany(f"INSERT INTO {points} (x, label) VALUES (?, ?)", [(1, "a"), (None, "b"), (3, "c")])
    assert db.query(f"SELECT x FROM {points}").num_rows == 0


def test_one_cursor_many_executions(db, points):
    """A prepared statement serves many executions with new parameters each."""
    with db.cursor() as cursor:
        for i in range(20):
            cursor.execute(f"INSERT INTO {points} (x) VALUES (?)", [i])
            assert cursor.rowcount == 1
        for i in range(20):
            cursor.execute(f"SELECT count(*) FROM {points} WHERE x < ?", [i])
            assert cursor.fetchall() == [(i,)]


def test_ingest_modes(db, namespace):
    table = f"{namespace}.ingested"

    def rows() -> list[tuple]:
        return [tuple(r.values()) for r in db.query(f"SELECT x, label FROM {table} ORDER BY x").to_pylist()]

    with pytest.raises(seracdb.Error) as missing:
        db.ingest(table, POINTS, mode="append")
    assert missing.value.status_code == AdbcStatusCode.NOT_FOUND

    assert db.ingest(table, POINTS, mode="create") == 3
    with pytest.raises(seracdb.Error) as duplicate:
        db.ingest(table, POINTS, mode="create")
    assert duplicate.value.status_code == AdbcStatusCode.ALREADY_EXISTS
    assert rows() == [(1, "a"), (2, None), (3, "c")]

    assert db.ingest(table, POINTS.slice(0, 1), mode="append") == 1
    assert db.ingest(table, POINTS.slice(0, 1), mode="create_append") == 1
    assert rows() == [(1, "a")] * 3 + [(2, None), (3, "c")]

    assert db.ingest(table, POINTS.slice(2, 1), mode="replace") == 1
    assert rows() == [(3, "c")]

    other = f"{namespace}.other"
    assert db.ingest(other, POINTS, mode="create_append") == 3
    assert db.query(f"SELECT count(*) AS n FROM {other}").to_pydict() == {"n": [3]}


def test_ingest_matches_columns_by_name(db, points):
    db.ingest(points, POINTS.select(["label", "x"]))
    assert db.query(f"SELECT x, label FROM {points} ORDER BY x").to_pydict() == POINTS.to_pydict()
    assert db.ingest(points, POINTS.slice(0, 0)) == 0
    with pytest.raises(seracdb.Error, match="colour"):
        db.ingest(points, pa.table({"x": [1], "colour": ["red"]}))


def test_ingest_of_many_batches(db, points):
    batches = pa.table({"x": range(100_000), "label": [str(i) for i in range(100_000)]}).to_batches(max_chunksize=1000)
    assert db.ingest(points, pa.RecordBatchReader.from_batches(batches[0].schema, batches)) == 100_000
    got = db.query(f"SELECT count(*) AS n, sum(x) AS s, count(DISTINCT label) AS l FROM {points}")
    assert got.to_pylist() == [{"n": 100_000, "s": 4_999_950_000, "l": 100_000}]


def test_system_columns(db, points):
    db.ingest(points, POINTS)
    table = db.query(f"SELECT * FROM {points} ORDER BY x")
    assert table.column_names == ["_id", "x", "label", "_updated"]
    assert len(set(table["_id"].to_pylist())) == 3
    assert table.schema.field("_id").type == pa.int64()
    assert table.schema.field("_updated").type == pa.timestamp("ns")
    assert db.query(f"SELECT _deleted FROM {points}")["_deleted"].to_pylist() == [False] * 3
    before = {r["x"]: r for r in table.to_pylist()}
    db.run(f"UPDATE {points} SET label = 'z' WHERE x = 1")
    after = {r["x"]: r for r in db.query(f"SELECT * FROM {points}").to_pylist()}
    assert after[1]["_id"] == before[1]["_id"] and after[1]["_updated"] > before[1]["_updated"]
    assert after[2] == before[2]


def test_a_plain_adbc_connection_is_in_a_transaction(server, db, namespace, recwarn):
    """As the DBAPI has it: nothing stands before the commit. The driver has nothing to warn about."""
    options = {"username": "root", "password": ROOT_PASSWORD}
    with flightsql.connect(server.uri, db_kwargs=options) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {namespace}.plain (x BIGINT)")
        cursor.executemany(f"INSERT INTO {namespace}.plain VALUES (?)", [(1,), (2,)])
        connection.commit()
        cursor.execute(f"INSERT INTO {namespace}.plain VALUES (4)")
        cursor.execute(f"SELECT sum(x) FROM {namespace}.plain")
        assert cursor.fetchall() == [(7,)]
    assert not [w for w in recwarn if "autocommit" in str(w.message)]
    assert db.query(f"SELECT sum(x) AS s FROM {namespace}.plain")["s"].to_pylist() == [3]
    with seracdb.connect(server.uri, "root", ROOT_PASSWORD, autocommit=False) as ours:
        ours.run(f"DELETE FROM {namespace}.plain")
        ours.rollback()
        assert ours.query(f"SELECT sum(x) AS s FROM {namespace}.plain")["s"].to_pylist() == [3]


def test_metadata(db, namespace, points):
    info = db.adbc_get_info()
    assert info["vendor_name"] == "SeracDB" and info["vendor_version"]
    assert "TABLE" in " ".join(db.adbc_get_table_types())
    schema = db.adbc_get_table_schema("points", db_schema_filter=namespace)
    assert {"_id", "x", "label", "_updated", "_deleted"} == set(schema.names)
    assert schema.field("x").type == pa.int64()
    catalogs = db.adbc_get_objects(depth="all", db_schema_filter=namespace).read_all().to_pylist()
    schemas = [s for c in catalogs for s in c["catalog_db_schemas"]]
    assert [s["db_schema_name"] for s in schemas] == [namespace]
    assert [t["table_name"] for t in schemas[0]["db_schema_tables"]] == ["points"]
    columns = [c["column_name"] for c in schemas[0]["db_schema_tables"][0]["table_columns"]]
    assert set(columns) == {"_id", "x", "label", "_updated", "_deleted"}


def test_table_names_are_no_patterns_by_accident(db, namespace):
    """Go asks for `t_1` as a LIKE pattern, in which `_` is any character."""
    db.run(f"CREATE TABLE {namespace}.tx1 (other TEXT)")
    db.run(f"CREATE TABLE {namespace}.t_1 (wanted TEXT)")
    assert "wanted" in db.adbc_get_table_schema("t_1", db_schema_filter=namespace).names


def test_result_schema_is_known_before_execution(db, points):
    with db.cursor() as cursor:
        sql = f"SELECT x, label, x * 1.5 AS y, count(*) OVER () AS n FROM {points}"
        announced = cursor.adbc_execute_schema(sql)
        cursor.execute(sql)
        assert cursor.fetch_arrow_table().schema.equals(announced)


def test_connections_are_independent(connect, points):
    one, two = connect(), connect()
    one.run(f"INSERT INTO {points} (x) VALUES (1)")
    assert two.query(f"SELECT x FROM {points}").num_rows == 1
    one.close()
    assert two.run(f"DELETE FROM {points}") == 1


def test_wrong_password_and_unknown_user_read_the_same(connect):
    messages = []
    for user, password in [("root", "wrong"), ("nobody", "wrong"), ("root", "")]:
        with pytest.raises(seracdb.Error) as refused:
            connect(user, password).query("SELECT 1")
        assert refused.value.status_code == AdbcStatusCode.UNAUTHENTICATED
        messages.append(str(refused.value).replace(user, "USER"))
    assert messages[0] == messages[1]
