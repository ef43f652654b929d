"""What all users share is not one user's: each has a share, and the last places are for admins."""

from __future__ import annotations

import pytest
from conftest import root
from rawflight import statement
from test_transactions import REFUSED, ROLLBACK, Raw
from testserver import Server
from wire import field, packed

PASSWORD = "long enough"
USERS = {"ann": "user", "bob": "service", "cat": "user", "dan": "user"}
# Of which a user has a quarter, and admins the last sixteenth.
PLACES, SHARE, RESERVE = 32, 8, 2


class Sessions:
    setting = "auth.sessions_max"

    def __init__(self, server: Server, *login: str):
        self.server, self.login = server, login

    def take(self) -> Raw:
        return Raw(self.server, *self.login)

    def give_back(self, session: Raw) -> None:
        session.act("CloseSession", b"")


class Tickets:
    setting = "flight.tickets_max"

    def __init__(self, server: Server, *login: str):
        self.raw = Raw(server, *login)

    def take(self) -> object:
        return self.raw.connection.get_flight_info(statement("SELECT 1 AS one"), self.raw.options).endpoints[0].ticket

    def give_back(self, ticket: object) -> None:
        self.raw.connection.do_get(ticket, self.raw.options).read_all()


class Prepared:
    setting = "flight.prepared_max"

    def __init__(self, server: Server, *login: str):
        self.raw = Raw(server, *login)

    def take(self) -> bytes:
        return self.raw.prepare("SELECT 1 AS one")

    def give_back(self, handle: bytes) -> None:
        self.raw.act("ClosePreparedStatement", packed("ActionClosePreparedStatementRequest", field(1, handle)))


class Transactions:
    setting = "transaction.open_max"

    def __init__(self, server: Server, *login: str):
        self.raw = Raw(server, *login)

    def take(self) -> bytes:
        return self.raw.begin()

    def give_back(self, transaction: bytes) -> None:
        self.raw.end(transaction, ROLLBACK)


KINDS = [Sessions, Tickets, Prepared, Transactions]


def serving(folder, kind, places: int = PLACES) -> Server:
    return Server(folder / "data", variables={"SERACDB_" + kind.setting.upper().replace(".", "__"): str(places)})


def make_users(server: Server) -> None:
    with root(server) as db:
        for user, role in USERS.items():
            db.run(f"CREATE USER {user} WITH PASSWORD '{PASSWORD}' ROLE {role}")


def taken(of) -> tuple[list, str]:
    """All that somebody gets, and why there is no more."""
    got = []
    with pytest.raises(REFUSED) as refused:
        while len(got) < 10 * PLACES:
            got.append(of.take())
    assert "resource exhausted" in str(refused.value) and of.setting in str(refused.value)
    return got, str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_has_a_share_and_admins_the_last_places(tmp_path, kind):
    with serving(tmp_path, kind) as server:
        make_users(server)
        first = kind(server, "ann", PASSWORD)
        got, why = taken(first)
        assert len(got) == SHARE and f"of this user: {SHARE} are the share of one user" in why
        # One goes, one comes.
        first.give_back(got.pop())
        got.append(first.take())
        assert len(taken(first)[0]) == 0
        # Nobody else is shut out, neither by one nor by all.
        of_all = len(got)
        for user in list(USERS)[1:]:
            others, why = taken(kind(server, user, PASSWORD))
            assert 0 < len(others) <= SHARE
            of_all += len(others)
            got += others
        assert "of this user" not in why and of_all <= PLACES - RESERVE
        of_root, why = taken(kind(server))
        assert len(of_root) >= RESERVE and "of this user" not in why


@pytest.mark.parametrize("kind", KINDS)
def test_an_admin_has_no_share(tmp_path, kind):
    with serving(tmp_path, kind) as server:
        got, why = taken(kind(server))
        assert len(got) == PLACES and "share" not in why


@pytest.mark.parametrize("kind", KINDS)
def test_of_few_places_a_user_has_one(tmp_path, kind):
    with serving(tmp_path, kind, places=2) as server:
        make_users(server)
        assert len(taken(kind(server, "ann", PASSWORD))[0]) == 1
        of_root = kind(server)
        of_root.give_back(of_root.take())


def test_what_is_fetched_or_ended_takes_no_place(tmp_path):
    """However busy a user is with the little that it has."""
    variables = {"SERACDB_FLIGHT__TICKETS_MAX": "8", "SERACDB_TRANSACTION__OPEN_MAX": "8"}
    with Server(tmp_path / "data", variables=variables) as server:
        make_users(server)
        raw = Raw(server, "ann", PASSWORD)
        tickets = []
        for _ in range(20):
            info = raw.connection.get_flight_info(statement("SELECT 1 AS one"), raw.options)
            tickets.append(info.endpoints[0].ticket)
            assert raw.connection.do_get(tickets[-1], raw.options).read_all().num_rows == 1
        # As long as there is room it may be fetched again.
        for ticket in tickets:
            assert raw.connection.do_get(ticket, raw.options).read_all().num_rows == 1
        for _ in range(20):
            # Never committed: the session ends before.
            session = Raw(server, "ann", PASSWORD)
            session.query("BEGIN")
            session.act("CloseSession", b"")


def test_a_session_that_has_all_its_statements_forgets_the_oldest_whatever_others_have(tmp_path):
    variables = {"SERACDB_FLIGHT__PREPARED_SESSION_MAX": "2", "SERACDB_FLIGHT__PREPARED_MAX": "8"}
    with Server(tmp_path / "data", variables=variables) as server:
        make_users(server)
        ann, admin = Raw(server, "ann", PASSWORD), [Raw(server) for _ in range(3)]
        handles = [ann.prepare("SELECT 1 AS one") for _ in range(2)]
        for raw in admin:
            for _ in range(2):
                raw.prepare("SELECT 2 AS two")
        with pytest.raises(REFUSED, match="too many prepared statements: close some"):
            Raw(server, "bob", PASSWORD).prepare("SELECT 3 AS three")
        for _ in range(5):
            handles.append(ann.prepare("SELECT 1 AS one"))
        for handle in handles[-2:]:
            assert ann.schema(handle).names == ["one"]
        with pytest.raises(REFUSED, match="no such prepared statement"):
            ann.schema(handles[0])
