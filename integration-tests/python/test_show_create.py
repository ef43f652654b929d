"""SHOW CREATE: what it says makes the same table or view again."""

from __future__ import annotations

import pytest
import seracdb
from testserver import ROOT_PASSWORD

TABLES = [
    "CREATE TABLE default.plain (a INT, b TEXT NOT NULL)",
    """CREATE TABLE "N s"."T t" ("select" INT, "B c" TEXT, "ÄÖ" DOUBLE, "a""b" DATE)""",
    "CREATE USER TABLE default.own (a INT) WITH (flush_rows = '1000')",
    "CREATE STREAM TABLE default.events (a INT) WITH (ttl = '10s')",
    "CREATE TABLE default.keys (a INT, b TEXT, c DATE, CONSTRAINT pair PRIMARY KEY (b, a), UNIQUE NULLS NOT DISTINCT (c), UNIQUE (a, c))",
    "CREATE TABLE default.values (a INT DEFAULT 1 + 2, b TEXT DEFAULT 'it''s', at TIMESTAMP DEFAULT now(), "
    "g BIGINT GENERATED ALWAYS AS (a * 2) STORED, CHECK (a > 0 AND b <> ''), CONSTRAINT named CHECK (length(b) < 9))",
    "CREATE TABLE default.types (b BOOLEAN, i8 TINYINT, i16 SMALLINT, i32 INT, i64 BIGINT, u8 TINYINT UNSIGNED, u16 SMALLINT UNSIGNED, "
    "u32 INT UNSIGNED, u64 BIGINT UNSIGNED, f REAL, d DOUBLE, n DECIMAL(9, 2), w DECIMAL(60, 10), t TEXT, x BYTEA, day DATE, "
    "t0 TIME(0), t3 TIME(3), t6 TIME, t9 TIME(9), s0 TIMESTAMP(0), s3 TIMESTAMP(3), s6 TIMESTAMP, s9 TIMESTAMP(9), z TIMESTAMPTZ, "
    "z9 TIMESTAMP(9) WITH TIME ZONE, l INT[], ll TEXT[][], p STRUCT<x DOUBLE, \"Y\" STRUCT<z INT[]>>)",
]


@pytest.mark.parametrize("create", TABLES, ids=lambda sql: sql.split(" (")[0])
def test_a_table_is_made_again(own_server, create):
    with seracdb.connect(own_server.uri, "root", ROOT_PASSWORD) as db:
        db.run('CREATE NAMESPACE "N s"')
        db.run(create)
        name = create.split(" TABLE ")[1].split(" (")[0]
        described = db.query(f"DESCRIBE {name}").to_pylist()
        (shown,) = db.query(f"SHOW CREATE TABLE {name}")["statement"].to_pylist()
        db.run(f"DROP TABLE {name}")
        db.run(shown)
        assert db.query(f"DESCRIBE {name}").to_pylist() == described
        assert db.query(f"SHOW CREATE TABLE {name}")["statement"].to_pylist() == [shown]


def test_a_view_is_made_again_by_its_owner(own_server):
    with seracdb.connect(own_server.uri, "root", ROOT_PASSWORD) as db:
        db.run("CREATE TABLE t (a INT)")
        db.run('CREATE VIEW v ("A a") AS SELECT a + 1 FROM t')
        (shown,) = db.query("SHOW CREATE VIEW v")["statement"].to_pylist()
        assert shown == 'CREATE VIEW "default".v ("A a") AS SELECT a + 1 FROM t'
        db.run("DROP VIEW v")
        db.run(shown)
        db.run("CREATE USER ann WITH PASSWORD 'long enough' ROLE user")
        db.run("GRANT SELECT ON v TO ann")
        with seracdb.connect(own_server.uri, "ann", "long enough") as ann:
            with pytest.raises(seracdb.PermissionDenied):
                ann.query("SHOW CREATE VIEW v")
            with pytest.raises(seracdb.NotFound):
                ann.query("SHOW CREATE TABLE t")
