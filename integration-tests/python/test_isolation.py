"""No form of a statement shows a user rows, counts, bounds or names of another: hot, frozen and half of each, and of STREAM tables,
for oneself and by AS USER."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.flight as flight
import pytest
import seracdb
from conftest import Connections
from rawflight import statement
from test_transactions import COMMIT, REFUSED, ROLLBACK, Raw
from testserver import Server
from wire import field, packed, parse

PASSWORD = "long enough"
# So many, and so far from each other, that every figure of bob's is told from ann's.
OWN = {"ann": range(1, 38), "bob": range(500_001, 500_072)}
SECRET = "whispered by "
FIGURES = {
    "ann": [SECRET + "ann", "user_ann"],
    "bob": [SECRET + "bob", "user_bob", "500001", "500071"],
}
# The last one is of a STREAM table, which is never frozen.
TIERS = ["hot", "cold", "mixed", "stream"]
# Staged in a transaction, next to what is there: nobody else's, whoever acts.
STAGED = {"ann": 38, "bob": 500_072, "svc": 900_001}


@pytest.fixture(scope="module", params=TIERS)
def tier(request, tmp_path_factory):
    """A server with the rows of two users in one tier."""
    with Server(tmp_path_factory.mktemp(request.param) / "data") as server, Connections(server) as connections:
        db = connections.open()
        for user, role in [("ann", "user"), ("bob", "user"), ("cat", "user"), ("svc", "service")]:
            db.run(f"CREATE USER {user} WITH PASSWORD '{PASSWORD}' ROLE {role}")
        db.run("CREATE NAMESPACE app")
        is_stream = request.param == "stream"
        kind, ttl = ("STREAM", " WITH (ttl = '1h')") if is_stream else ("USER", "")
        db.run(f"CREATE {kind} TABLE app.notes (n BIGINT, note TEXT){ttl}")
        db.run("CREATE USER TABLE app.marks (n BIGINT)")
        (now,) = db.query("SELECT CAST(CAST(now() AS TIMESTAMP(9)) AS TEXT) AS n").to_pylist()
        server.begin, server.is_stream = f"TIMESTAMP '{now['n']}'", is_stream
        if not is_stream:
            db.run("CREATE INDEX by_n ON app.notes (n)")
        db.run("CREATE VIEW app.seen AS SELECT n, note FROM app.notes")
        db.run("GRANT SELECT ON app.seen TO ROLE user")
        for user, numbers in OWN.items():
            own = connections.open(user, PASSWORD)
            half = len(numbers) // 2 if request.param == "mixed" else 0

            def put(part: range, own=own, user=user) -> None:
                values = ", ".join(f"({n}, '{SECRET}{user}')" for n in part)
                own.run(f"INSERT INTO app.notes VALUES {values}")

            put(numbers[half:])
            own.run("INSERT INTO app.marks SELECT n FROM app.notes")
            if request.param in ("cold", "mixed"):
                db.run("STORAGE FLUSH TABLE app.notes")
            if half:
                put(numbers[:half])
                # Some that are in files are changed.
                own.run(f"UPDATE app.notes SET note = note WHERE n > {numbers[-3]}")
        yield server


@pytest.fixture
def connections(tier):
    with Connections(tier) as opened:
        yield opened


class Reader:
    """Somebody who reads as a user: the user, or a service that acts for it."""

    def __init__(self, connections: Connections, user: str, way: str):
        self.user, self.way = user, way
        self.connection = connections.open("svc" if way == "as user" else user, PASSWORD)

    def text(self, sql: str) -> str:
        return f"EXECUTE AS USER '{self.user}' ({sql})" if self.way == "as user" else sql

    def query(self, sql: str, *parameters) -> list[dict]:
        return self.connection.query(self.text(sql), *parameters).to_pylist()

    @property
    def other(self) -> str:
        return "bob" if self.user == "ann" else "ann"

    @property
    def numbers(self) -> set[int]:
        return set(OWN[self.user])

    def sees_nothing_of_others(self, shown: object) -> None:
        found = [figure for figure in FIGURES[self.other] if figure in str(shown)]
        assert not found, f"{self.user} sees {found} in {shown}"


@pytest.fixture(params=[("ann", "self"), ("bob", "self"), ("ann", "as user"), ("bob", "as user")], ids=lambda p: f"{p[0]} {p[1]}")
def reader(request, connections) -> Reader:
    return Reader(connections, *request.param)


FORMS = {
    "direct": "SELECT n FROM app.notes",
    "all columns": "SELECT * FROM app.notes",
    "view": "SELECT n FROM app.seen",
    "CTE": "WITH c AS (SELECT n FROM app.notes), d AS (SELECT * FROM c) SELECT n FROM d",
    "recursive CTE": "WITH RECURSIVE r AS (SELECT min(n) AS n FROM app.notes UNION ALL SELECT r.n + 1 FROM r "
    "WHERE r.n < (SELECT max(n) FROM app.notes)) SELECT n FROM r",
    "subquery": "SELECT n FROM (SELECT n, note FROM app.notes) s WHERE n IN (SELECT n FROM app.notes)",
    "scalar subquery": "SELECT n FROM app.notes WHERE n <= (SELECT max(n) FROM app.notes)",
    "UNION": "SELECT n FROM app.notes UNION SELECT n FROM app.marks UNION SELECT n FROM app.seen",
    "EXCEPT": "SELECT n FROM app.notes EXCEPT SELECT -1",
    "EXISTS": "SELECT n FROM app.notes a WHERE EXISTS (SELECT 1 FROM app.seen b WHERE b.n = a.n)",
    "JOIN": "SELECT a.n FROM app.notes a JOIN app.seen b ON a.n = b.n",
    "FULL JOIN": "SELECT coalesce(a.n, b.n) AS n FROM app.notes a FULL JOIN app.seen b ON a.n = b.n",
    "lateral": "SELECT a.n FROM app.notes a CROSS JOIN LATERAL (SELECT 1 WHERE a.n IS NOT NULL) s",
    "window": "SELECT max(n) OVER (PARTITION BY n) AS n FROM app.notes",
    "ORDER BY and LIMIT": "SELECT n FROM app.notes ORDER BY n LIMIT 1000000",
    "TABLE": "TABLE app.notes",
    "of the other by key": "SELECT n FROM app.notes WHERE n > 0 OR note LIKE '%'",
}

# What was committed, whatever a transaction has staged; stream tables have no past.
PAST = {
    "AS OF": "SELECT n FROM app.notes FOR SYSTEM_TIME AS OF now()",
    "AS OF in a join": "SELECT a.n FROM app.notes a JOIN app.notes FOR SYSTEM_TIME AS OF now() b ON a.n = b.n",
    "changes": "SELECT max(n) AS n FROM changes('app.notes', {begin}) GROUP BY _id HAVING last_value(_op ORDER BY _updated) <> 'delete'",
    "changes in a CTE": "WITH c AS (SELECT _id, n, CASE _op WHEN 'insert' THEN 1 WHEN 'delete' THEN -1 ELSE 0 END AS more "
    "FROM changes('app.notes', {begin}, now())) SELECT max(n) AS n FROM c GROUP BY _id HAVING sum(more) > 0",
}


@pytest.mark.parametrize("form", FORMS)
def test_rows(reader, form):
    found = reader.query(FORMS[form])
    assert {row["n"] for row in found} == reader.numbers
    reader.sees_nothing_of_others(found)


@pytest.mark.parametrize("form", PAST)
def test_rows_of_the_past(reader, form, tier):
    sql = PAST[form].format(begin=tier.begin)
    if tier.is_stream:
        with pytest.raises(seracdb.Error, match="is a stream table"):
            reader.query(sql)
        return
    found = reader.query(sql)
    assert {row["n"] for row in found} == reader.numbers
    reader.sees_nothing_of_others(found)


def test_rows_of_others_are_not_found_by_their_values(reader):
    theirs = OWN[reader.other][0]
    for where in [f"n = {theirs}", f"n IN ({theirs}, {theirs + 1})", f"note = '{SECRET}{reader.other}'", f"n BETWEEN {theirs} AND {theirs + 5}"]:
        assert reader.query(f"SELECT * FROM app.notes WHERE {where}") == []
    assert reader.query("SELECT * FROM app.notes WHERE n = ?", [theirs]) == []


def test_counts_and_bounds(reader):
    wanted = {"c": len(reader.numbers), "low": min(reader.numbers), "high": max(reader.numbers)}
    for source in ["app.notes", "app.seen"]:
        (row,) = reader.query(f"SELECT count(*) AS c, min(n) AS low, max(n) AS high FROM {source}")
        assert row == wanted
    assert reader.query("SELECT count(*) AS c FROM app.notes") == [{"c": wanted["c"]}]
    assert reader.query("SELECT max(n) AS high FROM app.notes") == [{"high": wanted["high"]}]
    (row,) = reader.query("SELECT count(DISTINCT note) AS c, approx_distinct(n) AS d FROM app.notes")
    assert row["c"] == 1 and row["d"] <= wanted["c"] * 1.2


@pytest.mark.parametrize("verb", ["EXPLAIN", "EXPLAIN ANALYZE", "EXPLAIN ANALYZE VERBOSE"])
@pytest.mark.parametrize("where", ["", " WHERE n > 30", " WHERE n = 500001", " WHERE note = 'x'"])
def test_plans(reader, verb, where):
    plan = str(reader.query(f"{verb} SELECT n, note FROM app.notes{where}"))
    # What the statement itself says is no secret.
    plan = plan.replace("500001", "…") if "500001" in where else plan
    reader.sees_nothing_of_others(plan)
    counts = [int(number) for number in re.findall(r"(?:output_rows|rows)=(\d+)", plan)]
    assert all(count <= len(reader.numbers) for count in counts), plan


def test_what_describes_the_tables(reader):
    for table in ["tables", "columns", "schemata", "views"]:
        found = reader.query(f"SELECT * FROM information_schema.{table}")
        reader.sees_nothing_of_others(found)
        assert found
    for table in ["batches", "queries", "indexes", "users", "grants", "tokens"]:
        reader.sees_nothing_of_others(reader.query(f"SELECT * FROM system.{table}"))
    users = {row["name"] for row in reader.query("SELECT name FROM system.users")}
    assert users == {reader.user}
    assert {row["user_id"] for row in reader.query("SELECT user_id FROM system.batches")} <= {reader.user}
    if reader.way == "self":
        for sql in ["SHOW MANIFEST FOR app.notes", "SHOW MANIFEST CACHE", "SHOW TABLES", "DESCRIBE app.notes"]:
            reader.sees_nothing_of_others(reader.query(sql))
        with pytest.raises(seracdb.PermissionDenied):
            reader.query("SELECT * FROM system.audit_log")
    with pytest.raises(seracdb.Error):
        reader.query("SELECT * FROM all_users('app.notes')")


def test_errors_tell_nothing(reader):
    theirs, own = OWN[reader.other][4], OWN[reader.user][4]
    for sql in [
        f"SELECT 1 / (n - {theirs}) AS x FROM app.notes",
        f"SELECT n FROM app.notes WHERE 1 / (n - {theirs}) > 5",
        f"SELECT CASE WHEN n = {theirs} THEN CAST(note AS BIGINT) ELSE 1 END AS x FROM app.notes",
        f"SELECT count(*) AS x FROM app.notes WHERE n = {theirs} AND CAST(note AS BIGINT) = 1",
    ]:
        reader.query(sql)
    with pytest.raises(seracdb.Error) as caught:
        reader.query(f"SELECT 1 / (n - {own}) AS x FROM app.notes")
    reader.sees_nothing_of_others(caught.value)


def test_changes_reach_own_rows_only(reader, connections):
    other = Reader(connections, reader.other, "self")
    before = other.query("SELECT * FROM app.notes ORDER BY n")
    run = reader.connection.run
    run("BEGIN")
    assert run(reader.text("UPDATE app.notes SET note = 'taken'")) == len(reader.numbers)
    assert run(reader.text(f"DELETE FROM app.notes WHERE n >= {OWN[reader.other][0]} AND n <= {OWN[reader.other][-1]}")) == 0
    assert run(reader.text("DELETE FROM app.notes")) == len(reader.numbers)
    assert run(reader.text("INSERT INTO app.notes SELECT n, note FROM app.notes")) == 0
    assert reader.query("SELECT * FROM app.notes") == []
    assert other.query("SELECT * FROM app.notes ORDER BY n") == before
    run("ROLLBACK")
    assert other.query("SELECT * FROM app.notes ORDER BY n") == before


def test_in_a_transaction(reader, connections, tier):
    """What is staged is the subject's, and nobody sees it outside."""
    staged = STAGED[reader.user]
    others = [Reader(connections, user, way) for user in OWN for way in ("self", "as user")]
    third = connections.open("cat", PASSWORD)
    run = reader.connection.run
    run("BEGIN")
    assert run(reader.text(f"INSERT INTO app.notes VALUES ({staged}, '{SECRET}{reader.user}')")) == 1
    for name, form in FORMS.items():
        # The table of the marks has only what was there before.
        assert {row["n"] for row in reader.query(form)} == reader.numbers | {staged}, name
        for other in others:
            assert {row["n"] for row in other.query(form)} == other.numbers, name
        assert third.query(form).to_pylist() in ([], [{"n": None}]), name
    for name, form in PAST.items() if not tier.is_stream else ():
        assert {row["n"] for row in reader.query(form.format(begin=tier.begin))} == reader.numbers, name
    run("ROLLBACK")
    assert {row["n"] for row in reader.query(FORMS["direct"])} == reader.numbers


def test_what_a_service_has_staged_for_several_in_one_transaction(connections):
    """Each subject, and the service itself, sees its own of it and nothing of the others'; so does everybody once it is committed."""
    service, third = connections.open("svc", PASSWORD), connections.open("cat", PASSWORD)
    of_users = [Reader(connections, user, "self") for user in OWN]

    def seen(user: str, form: str) -> set[int]:
        sql = FORMS[form] if user == "svc" else f"EXECUTE AS USER '{user}' ({FORMS[form]})"
        return {row["n"] for row in service.query(sql).to_pylist()} - {None}

    def check(staged: set[str], form: str) -> None:
        before = {**{user: set(numbers) for user, numbers in OWN.items()}, "svc": set(), "cat": set()}
        for user, numbers in before.items():
            assert seen(user, form) == numbers | ({STAGED[user]} if user in staged else set()), (user, form)

    service.run("BEGIN")
    for user, number in STAGED.items():
        for_whom = f" AS USER '{user}'" if user != "svc" else ""
        assert service.run(f"INSERT INTO app.notes{for_whom} VALUES ({number}, '{SECRET}{user}')") == 1
    for form in FORMS:
        check(set(STAGED), form)
        for own in of_users:
            assert {row["n"] for row in own.query(FORMS[form])} == own.numbers
        assert third.query(FORMS[form]).to_pylist() in ([], [{"n": None}])
    # To change one's own reaches nobody else's.
    assert service.run("UPDATE app.notes SET n = n") == 1
    assert service.run("DELETE FROM app.notes") == 1
    check({"ann", "bob"}, "direct")
    assert service.run(f"DELETE FROM app.notes AS USER 'ann' WHERE n >= {STAGED['ann']}") == 1
    check({"bob"}, "direct")
    service.run("COMMIT")
    check({"bob"}, "view")
    for own in of_users:
        more = {STAGED["bob"]} if own.user == "bob" else set()
        assert {row["n"] for row in own.query(FORMS["direct"])} == own.numbers | more
    assert service.run(f"DELETE FROM app.notes AS USER 'bob' WHERE n = {STAGED['bob']}") == 1
    check(set(), "direct")


def test_the_same_statement_of_one_user_and_then_another(connections, tier):
    """A plan that is kept is nobody's but its user's."""
    readers = [Reader(connections, user, way) for user in OWN for way in ("self", "as user")]
    past = [] if tier.is_stream else [form.format(begin=tier.begin) for form in PAST.values()]
    for form in [*FORMS.values(), *past]:
        for reader in readers + readers[::-1]:
            assert {row["n"] for row in reader.query(form)} == reader.numbers


def test_a_prepared_statement_of_a_service_for_one_and_then_another(connections):
    service = connections.open("svc", PASSWORD)
    with service.cursor() as of_ann, service.cursor() as of_bob:
        for _ in range(2):
            for cursor, user in [(of_ann, "ann"), (of_bob, "bob")]:
                cursor.execute(f"EXECUTE AS USER '{user}' (SELECT n FROM app.notes WHERE n > ?)", [0])
                assert {row[0] for row in cursor.fetchall()} == set(OWN[user])


def test_handles_tickets_and_transactions_of_others(tier):
    ann, bob, service = (Raw(tier, user, PASSWORD) for user in ("ann", "bob", "svc"))
    as_ann = "EXECUTE AS USER 'ann' (SELECT n FROM app.notes)"
    for owner, sql in [(ann, "SELECT n FROM app.notes"), (service, as_ann)]:
        transaction = owner.begin()
        info = owner.connection.get_flight_info(statement(sql), owner.options)
        (endpoint,) = info.endpoints
        for thief in {ann, bob, service} - {owner}:
            with pytest.raises(REFUSED) as caught:
                thief.connection.do_get(endpoint.ticket, thief.options).read_all()
            assert "500001" not in str(caught.value)
            with pytest.raises(REFUSED):
                thief.query("SELECT n FROM app.notes", transaction)
            with pytest.raises(REFUSED):
                thief.end(transaction, COMMIT)
        # Its own it is, again and again.
        for _ in range(2):
            found = owner.connection.do_get(endpoint.ticket, owner.options).read_all()
            assert set(found.column("n").to_pylist()) == set(OWN["ann"])
        owner.end(transaction, ROLLBACK)


def prepared_command(name: str, handle: bytes) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_command(packed(name, field(1, handle)))


def put(raw: Raw, name: str, handle: bytes, rows: pa.RecordBatch) -> bytes:
    """DoPut with a prepared statement; gives what is answered."""
    writer, reader = raw.connection.do_put(prepared_command(name, handle), rows.schema, raw.options)
    with writer:
        writer.write_batch(rows)
        writer.done_writing()
        answer = reader.read()
    return answer.to_pybytes() if answer else b""


PARAMETER = pa.record_batch({"$1": pa.array([500_001], pa.int64())})


@pytest.mark.parametrize("owner", ["ann", "svc"])
def test_a_prepared_statement_of_another(tier, owner):
    """There is none, for whatever one asks of it; and it goes on being its owner's."""
    raws = {user: Raw(tier, user, PASSWORD) for user in ("ann", "bob", "cat", "svc")}
    raws["root"] = Raw(tier)
    own = raws.pop(owner)
    text = "SELECT n FROM app.notes WHERE n < ?"
    query = own.prepare(text if owner == "ann" else f"EXECUTE AS USER 'ann' ({text})")
    change = own.prepare("INSERT INTO app.marks VALUES (?)" if owner == "ann" else "INSERT INTO app.marks AS USER 'ann' VALUES (?)")
    put(own, "CommandPreparedStatementQuery", query, PARAMETER)
    marks = {user: raw.query("SELECT n FROM app.marks ORDER BY n") for user, raw in raws.items()}

    def rows() -> set[int]:
        info = own.connection.get_flight_info(prepared_command("CommandPreparedStatementQuery", query), own.options)
        return set(own.connection.do_get(info.endpoints[0].ticket, own.options).read_all()["n"].to_pylist())

    assert rows() == set(OWN["ann"])
    for user, thief in raws.items():
        command = prepared_command("CommandPreparedStatementQuery", query)
        none = PARAMETER.set_column(0, "$1", pa.array([-1], pa.int64()))
        for what, work in {
            "GetFlightInfo": lambda: thief.connection.get_flight_info(command, thief.options),
            "GetSchema": lambda: thief.connection.get_schema(command, thief.options),
            "bind": lambda: put(thief, "CommandPreparedStatementQuery", query, none),
            "update": lambda: put(thief, "CommandPreparedStatementUpdate", change, PARAMETER),
        }.items():
            with pytest.raises(REFUSED, match="no such prepared statement") as caught:
                work()
            assert "app.notes" not in str(caught.value), (user, what)
        # Closing is no error, for drivers do it twice, and closes nothing.
        for handle in (query, change):
            thief.act("ClosePreparedStatement", packed("ActionClosePreparedStatementRequest", field(1, handle)))
        assert rows() == set(OWN["ann"]), "neither closed nor bound to something else"
    assert {user: raw.query("SELECT n FROM app.marks ORDER BY n") for user, raw in raws.items()} == marks
    own.query("BEGIN")
    assert put(own, "CommandPreparedStatementUpdate", change, PARAMETER) == field(1, 1)
    own.query("ROLLBACK")


@pytest.mark.parametrize("owner", ["ann", "svc"])
def test_a_ticket_of_another_is_neither_cancelled_nor_kept(tier, owner):
    sql = "SELECT n FROM app.notes" if owner == "ann" else "EXECUTE AS USER 'ann' (SELECT n FROM app.notes)"
    own = Raw(tier, owner, PASSWORD)
    thieves = [Raw(tier, user, PASSWORD) for user in ("ann", "bob", "cat", "svc") if user != owner] + [Raw(tier)]
    info = own.connection.get_flight_info(statement(sql), own.options)
    (endpoint,) = info.endpoints
    requests = {
        "CancelFlightInfo": field(1, info.serialize()),
        "CancelQuery": packed("ActionCancelQueryRequest", field(1, info.serialize())),
        "RenewFlightEndpoint": field(1, endpoint.serialize()),
    }
    for thief in thieves:
        for name, body in requests.items():
            with pytest.raises(REFUSED, match="no such (statement|ticket)"):
                thief.act(name, body)
    assert set(own.connection.do_get(endpoint.ticket, own.options).read_all()["n"].to_pylist()) == set(OWN["ann"])
    # To its owner the same is answered.
    assert own.act("RenewFlightEndpoint", requests["RenewFlightEndpoint"])
    assert parse(own.act("CancelFlightInfo", requests["CancelFlightInfo"])) == {1: 1}


@pytest.mark.parametrize("user", ["ann", "svc", "root"])
def test_listings_agree_on_what_there_is(connections, user):
    """In information_schema, in GetTables and where one looks."""
    db = connections.open(user, PASSWORD) if user != "root" else connections.open()
    sql = "SELECT table_name AS t FROM information_schema.{} WHERE table_schema = 'system'"
    names = {row["t"] for row in db.query(sql.format("tables")).to_pylist()}
    objects = db.adbc_get_objects(depth="tables", db_schema_filter="system").read_all().to_pylist()
    schemas = [schema for catalog in objects for schema in catalog["catalog_db_schemas"]]
    assert {table["table_name"] for schema in schemas for table in schema["db_schema_tables"]} == names
    assert {row["t"] for row in db.query(sql.format("columns")).to_pylist()} == names
    for name in names:
        assert db.query(f"DESCRIBE system.{name}").num_rows > 0
    assert ("audit_log" in names) == (user == "root") and "queries" in names
    if user != "root":
        with pytest.raises(seracdb.Error) as caught:
            db.query("SELECT * FROM system.audit_lo")
        assert "audit_log" not in str(caught.value)
