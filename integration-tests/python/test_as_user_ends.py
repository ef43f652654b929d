"""AS USER, where statements do not end as one would wish: cut off, killed, panicking, no statements at all. Each is in the audit
log, once, with the right names."""

from __future__ import annotations

import collections
import itertools
import random
import statistics
import threading
import time
from pathlib import Path

import pyarrow.flight as flight
import pytest
import seracdb
from conftest import root
from impersonation import DENIED, NOBODY, PASSWORD, audit, fill, shown
from rawflight import basic, statement
from test_manifests import until
from test_transactions import COMMIT, REFUSED, ROLLBACK, Raw
from testserver import Server
from wire import field, packed, unpack

BULK = {"SERACDB_ENGINE__BULK_BYTES_MIN": "100000"}


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path / "data", variables=BULK) as running:
        fill(running)
        yield running


def outcomes(db) -> dict[str, list[str]]:
    """Of each statement, by its fingerprint: what the log says, in order."""
    found = collections.defaultdict(list)
    for row in audit(db):
        found[row["statement_fingerprint"]].append(row["outcome"])
    return dict(found)


def within(transaction: bytes | None, sql: str) -> flight.FlightDescriptor:
    if transaction is None:
        return statement(sql)
    return flight.FlightDescriptor.for_command(packed("CommandStatementQuery", field(1, sql) + field(2, transaction)))


def cut_off(raw: Raw, transaction: bytes | None, statements: list[str]) -> int:
    """Sends statements with deadlines before and after the time that they take here; gives how many missed theirs."""
    token = raw.connection.authenticate_basic_token("the_service", PASSWORD)
    missed, chance, took = 0, random.Random(1), []
    for number, sql in enumerate(statements):
        timeout = 60 if number < 9 else chance.uniform(0.2, 2) * statistics.median(took)
        began = time.perf_counter()
        try:
            raw.connection.get_flight_info(within(transaction, sql), flight.FlightCallOptions(headers=[token], timeout=timeout))
            took.append(time.perf_counter() - began)
        except flight.FlightError:
            missed += 1
    return missed


@pytest.mark.parametrize(
    ("sql", "count"),
    [
        ("INSERT INTO app.notes AS USER 'ann' (n) SELECT 1 AS c{}", 300),
        ("UPDATE app.notes AS USER 'ann' SET n = n + 1 WHERE (SELECT 1 AS c{}) = 1", 200),
        ("INSERT INTO app.notes AS USER 'ann' SELECT value, repeat('x', 100) AS c{} FROM generate_series(1, 2000)", 60),
    ],
    ids=["insert", "update", "bulk"],
)
def test_a_statement_that_is_cut_off_is_noted_once(server, sql, count):
    missed = cut_off(Raw(server, "the_service", PASSWORD), None, [sql.format(number) for number in range(count)])
    with root(server) as db:
        time.sleep(1)
        noted = outcomes(db)
        assert missed > 0 and len(noted) <= count
        assert {len(said) for said in noted.values()} == {1}, noted
        committed = sum(row["rows"] for row in audit(db, "subject_user_id = 'ann' AND outcome = 'committed' AND action = 'INSERT'"))
        assert db.query("SELECT count(*) AS n FROM all_users('app.notes')").to_pylist() == [{"n": committed}]


def test_a_statement_that_is_cut_off_in_a_transaction_is_staged_or_abandoned(server):
    raw = Raw(server, "the_service", PASSWORD)
    transaction = raw.begin()
    statements = [f"INSERT INTO app.notes AS USER 'ann' (n) SELECT 1 AS c{number}" for number in range(300)]
    missed = cut_off(raw, transaction, statements)
    time.sleep(1)
    raw.end(transaction, COMMIT)
    with root(server) as db:
        kinds = collections.Counter(tuple(said) for said in outcomes(db).values())
        assert missed > 0 and set(kinds) <= {("staged", "committed"), ("abandoned",)}, kinds
        assert db.query("SELECT count(*) AS n FROM all_users('app.notes')").to_pylist() == [{"n": kinds["staged", "committed"]}]


def resident(server) -> int:
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096


def test_a_savepoint_for_each_statement_costs_what_each_statement_does(server):
    raw = Raw(server, "the_service", PASSWORD)
    transaction = raw.begin()
    before = resident(server)
    for _ in range(1200):
        raw.savepoint(transaction, "s")
        raw.connection.get_flight_info(within(transaction, "INSERT INTO app.notes AS USER 'ann' (n) VALUES (1)"), raw.options)
    grown = (resident(server) - before) >> 20
    raw.end(transaction, ROLLBACK)
    # Copying all entries for each savepoint took 650 MiB here.
    assert grown < 250, f"{grown} MiB"
    with root(server) as db:
        counts = collections.Counter(row["outcome"] for row in audit(db))
    assert counts == {"staged": 1200, "rolled back": 1200}


UNREAD = [
    "EXECUTE AS USER '{}' (CREATE USER x WITH PASSWORD 'secret enough' ROLE admin)",
    "EXECUTE AS USER '{}' (DROP TABLE app.notes)",
    "EXECUTE AS USER '{}' (SHOW TABLES)",
    "EXECUTE AS USER '{}' SELECT 1",
    "EXECUTE AS USER '{}' (SELECT 1; SELECT 2)",
    "EXECUTE AS USER '{}' (DELETE FROM app.notes AS USER 'ann')",
    "EXECUTE AS USER '{}' (SELECT * FROM app.notes FOR UPDATE)",
    "INSERT INTO app.notes AS USER '{}' VALUS (1)",
    "INSERT INTO app.notes AS USER '{}' (n) VALUES (1) RETURNING",
    "INSERT INTO app.notes AS USER '{}' (n) VALUES (1) ON CONFLICT DO SOMETHING",
    "UPDATE app.notes AS USER '{}' SET n = 1 LIMIT 1",
    "DELETE FROM app.notes AS USER '{}' ORDER BY n LIMIT 1",
]


@pytest.mark.parametrize("sql", UNREAD)
def test_what_is_no_statement_is_noted_too_and_tells_strangers_nothing(server, sql):
    for actor, subject, text, outcome in [
        ("ann", "bob", DENIED, "denied"),
        ("ann", "nobody", DENIED, "denied"),
        ("the_service", "the_admin", DENIED, "denied"),
        ("the_service", "nobody", NOBODY, "denied"),
        ("the_service", "bob", "", "failed"),
    ]:
        with root(server) as db, flight.FlightClient(server.uri) as client:
            before = len(audit(db))
            options = flight.FlightCallOptions(headers=[(b"authorization", basic(actor, PASSWORD))])
            with pytest.raises(REFUSED) as caught:
                client.get_flight_info(statement(sql.format(subject)), options)
            assert text in str(caught.value)
            assert (DENIED in str(caught.value) or NOBODY in str(caught.value)) == (outcome == "denied")
            (row,) = audit(db)[before:]
            assert shown([row]) == [(actor, subject, "OTHER", None, None, outcome)]
            assert row["statement_fingerprint"] and "secret" not in str(row)


def per_call(server, user: str):
    return flight.FlightCallOptions(headers=[(b"authorization", basic(user, PASSWORD))])


def begin(client, options) -> bytes:
    (answer,) = client.do_action(flight.Action("BeginTransaction", packed("ActionBeginTransactionRequest", b"")), options)
    return unpack(answer.body.to_pybytes())[1][1]


def commit(client, options, transaction: bytes) -> None:
    body = packed("ActionEndTransactionRequest", field(1, transaction) + field(2, COMMIT))
    list(client.do_action(flight.Action("EndTransaction", body), options))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("DROP USER bob", NOBODY),
        ("ALTER USER bob SET ROLE admin", DENIED),
        ("ALTER USER the_service SET ROLE user", "transaction"),
        ("DROP USER the_service", ""),
    ],
)
@pytest.mark.parametrize("patience", [0, 1.5])
def test_a_commit_asks_again_whether_it_may(server, change, text, patience):
    """Without a session, which would have ended by itself; at once, and once the server has looked at what is open."""
    options = per_call(server, "the_service")
    with root(server) as db, flight.FlightClient(server.uri) as client:
        transaction = begin(client, options)
        client.get_flight_info(within(transaction, "INSERT INTO app.notes AS USER 'bob' (n) VALUES (1)"), options)
        db.run(change)
        time.sleep(patience)
        with pytest.raises(REFUSED) as caught:
            commit(client, options, transaction)
        assert text in str(caught.value)
        assert db.query("SELECT count(*) AS n FROM all_users('app.notes')").to_pylist() == [{"n": 0}]
        until(lambda: [row["outcome"] for row in audit(db)] == ["staged", "rolled back"], "the end is in the log")


def test_a_transaction_ends_with_the_role_it_was_begun_with(server):
    options = per_call(server, "the_admin")
    with root(server) as db, flight.FlightClient(server.uri) as client:
        transaction = begin(client, options)
        client.get_flight_info(within(transaction, f"CREATE USER evil WITH PASSWORD '{PASSWORD}' ROLE admin"), options)
        db.run("ALTER USER the_admin SET ROLE user")
        with pytest.raises(REFUSED):
            commit(client, options, transaction)
        assert db.query("SELECT * FROM system.users WHERE name = 'evil'").to_pylist() == []


def test_rows_of_all_stand_first_in_the_log_and_literals_nowhere(server):
    with root(server) as db, seracdb.connect(server.uri, "the_admin", PASSWORD) as admin:
        long = "a" * 100
        db.run(f"CREATE TABLE app.{long} (n BIGINT)")
        db.run(f"GRANT SELECT ON app.{long} TO the_admin")
        counts = ", ".join(f"(SELECT count(*) FROM app.{long} AS t{n}) AS x{n}" for n in range(4))
        others = ["information_schema.columns", "information_schema.tables", "system.batches", "system.users", "system.queries"]
        counts += "".join(f", (SELECT count(*) FROM {name}) AS y{n}" for n, name in enumerate(others))
        admin.query(f"SELECT {counts}, (SELECT count(*) FROM all_users('app.notes')) AS everyone")
        (row,) = audit(db, "actor_user_id = 'the_admin'")
        assert row["target"] == ", ".join(["all_users(app.notes)", f"app.{long}", *others])
        for argument in ["'app.notes', 'my secret'", "lower('SECRET')", "'a secret of three words'", "1"]:
            with pytest.raises(seracdb.Error):
                admin.query(f"SELECT * FROM all_users({argument})")
        found = audit(db, "actor_user_id = 'the_admin'")[1:]
        assert len(found) >= 4 and {(row["target"], row["outcome"]) for row in found} == {("all_users(?)", "failed")}


def test_what_a_change_reads_is_in_the_log_and_shared_rows_need_a_right_of_ones_own(server):
    with root(server) as db, seracdb.connect(server.uri, "the_service", PASSWORD) as service:
        db.run("INSERT INTO app.common VALUES (7)")
        db.run("GRANT SELECT ON app.common TO ann")
        copy = "INSERT INTO app.notes AS USER 'ann' (n) SELECT n FROM app.common"
        with pytest.raises(seracdb.Error, match="no right"):
            service.run(copy)
        db.run("CREATE VIEW app.seen AS SELECT n FROM app.common")
        db.run("GRANT SELECT ON app.seen TO ann")
        with pytest.raises(seracdb.Error, match="right"):
            service.run(copy.replace("app.common", "app.seen"))
        db.run("GRANT SELECT ON app.common TO the_service")
        assert service.run(copy) == 1
        assert service.run("DELETE FROM app.notes AS USER 'ann' WHERE n IN (SELECT n FROM app.common)") == 1
        joined = [
            "UPDATE app.notes AS USER 'ann' SET n = c.n FROM app.common AS c WHERE c.n = 7",
            "DELETE FROM app.notes AS USER 'ann' USING app.common AS c WHERE c.n = 7",
        ]
        service.run(copy)
        assert [service.run(sql) for sql in joined] == [1, 1]
        assert shown(audit(db))[-2:] == [
            ("the_service", "ann", "UPDATE", "app.notes, app.common", 1, "committed"),
            ("the_service", "ann", "DELETE", "app.notes, app.common", 1, "committed"),
        ]
        db.run("REVOKE SELECT ON app.common FROM the_service")
        for sql in joined:
            with pytest.raises(seracdb.Error, match="no right"):
                service.run(sql)
        db.run("GRANT SELECT ON app.common TO the_service")
        assert service.run(copy) == 1
        assert service.run("DELETE FROM app.notes AS USER 'ann' WHERE n IN (SELECT n FROM app.common)") == 1
        db.run("REVOKE SELECT ON app.common FROM ann")
        with pytest.raises(seracdb.Error, match="right"):
            service.run(copy)
        assert shown(audit(db))[-3:] == [
            ("the_service", "ann", "INSERT", "app.notes, app.common", 1, "committed"),
            ("the_service", "ann", "DELETE", "app.notes, app.common", 1, "committed"),
            ("the_service", "ann", "INSERT", "app.notes, app.common", None, "failed"),
        ]


def test_a_panic_is_noted_before_the_client_hears_of_it(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_PLANTED_PANIC": "1"}) as server:
        fill(server)
        with root(server) as db, seracdb.connect(server.uri, "the_service", PASSWORD) as service:
            try:
                db.query("SELECT planted_panic(false) AS p")
            except seracdb.Error:
                pytest.skip("a release build has no planted_panic")
            for _ in range(20):
                before = len(audit(db))
                with pytest.raises(seracdb.Error):
                    service.run("INSERT INTO app.notes AS USER 'ann' (n) SELECT 1 WHERE planted_panic(true)")
                assert {row["outcome"] for row in audit(db)[before:]} == {"failed"}


class Writers:
    """Threads that write for ann and bob, alone and in transactions, until the server is gone."""

    def __init__(self, server):
        self.server = server
        self.numbers = itertools.count(1)
        self.acknowledged: dict[int, tuple[str, int]] = {}
        self.counts: collections.Counter = collections.Counter()

    def insert(self, db, user: str, bulk: bool, staged: bool) -> tuple[int, tuple[str, int]]:
        number, rows = next(self.numbers), random.randint(1200, 1500) if bulk else random.randint(1, 3)
        self.counts["tried to stage"] += staged
        text = "x" * (100 if bulk else 1)
        assert db.run(f"INSERT INTO notes AS USER '{user}' SELECT {number}, '{text}' FROM generate_series(1, {rows})") == rows
        self.counts["staged"] += staged
        return number, (user, rows)

    def transaction(self, db, bulk: bool) -> None:
        db.run("BEGIN")
        written = [self.insert(db, user, bulk and user == "bob", True) for user in ["ann", "bob", "ann"]]
        if random.random() < 0.3:
            db.run("SAVEPOINT s")
            self.insert(db, "bob", bulk, True)
            db.run("ROLLBACK TO s")
            self.counts["rolled back"] += 1
        if random.random() < 0.2:
            db.run("ROLLBACK")
            self.counts["rolled back"] += 3
        else:
            db.run("COMMIT")
            self.acknowledged.update(written)

    def work(self, bulk: bool) -> None:
        try:
            with root(self.server) as db:
                while True:
                    if random.random() < 0.5:
                        number, written = self.insert(db, random.choice(["ann", "bob"]), bulk, False)
                        self.acknowledged[number] = written
                        try:
                            db.run("INSERT INTO notes AS USER 'nobody' VALUES (1, '')")
                        except seracdb.Error as error:
                            if NOBODY not in str(error):
                                raise
                            self.counts["denied"] += 1
                    else:
                        self.transaction(db, bulk)
        except seracdb.Error:
            return

    def until_killed(self, seconds: float) -> None:
        threads = [threading.Thread(target=self.work, args=(bulk,)) for bulk in [True, True, False]]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self.server.kill()
        for thread in threads:
            thread.join()


def test_every_statement_for_a_user_is_noted_through_kills(tmp_path):
    """Acknowledged or not, alone, in transactions or by files: the log and the rows say the same."""
    with Server(tmp_path / "data", variables=BULK) as server:
        with root(server) as db:
            for user in ["ann", "bob"]:
                db.run(f"CREATE USER {user} WITH PASSWORD '{PASSWORD}' ROLE user")
            db.run("CREATE USER TABLE notes (n BIGINT, text TEXT)")
        writers = Writers(server)
        for _ in range(5):
            writers.until_killed(random.uniform(0.3, 1.2))
            server.restart()
            with root(server) as db:
                check_log_and_rows(db, writers)


def check_log_and_rows(db, writers: Writers) -> None:
    def by_commit(sql: str) -> dict:
        return {(row["u"], row["t"]): row["c"] for row in db.query(sql).to_pylist()}

    rows = by_commit("SELECT _user AS u, _updated AS t, count(*) AS c FROM all_users('notes') GROUP BY 1, 2")
    log = by_commit(
        "SELECT subject_user_id AS u, at AS t, sum(rows) AS c FROM system.audit_log "
        "WHERE outcome = 'committed' AND subject_user_id IS NOT NULL GROUP BY 1, 2"
    )
    assert rows == log
    there = {(row["n"], row["u"]): row["c"] for row in db.query("SELECT n, _user AS u, count(*) AS c FROM all_users('notes') GROUP BY 1, 2").to_pylist()}
    assert all(there.get((number, user)) == count for number, (user, count) in writers.acknowledged.items())
    counts = collections.Counter(row["outcome"] for row in audit(db))
    assert writers.counts["staged"] <= counts["staged"] <= writers.counts["tried to stage"]
    assert counts["rolled back"] >= writers.counts["rolled back"] and counts["denied"] >= writers.counts["denied"]
    ids = [row["audit_id"] for row in audit(db, "TRUE")]
    assert ids == list(range(1, len(ids) + 1))
