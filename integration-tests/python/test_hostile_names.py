"""Five hundred names that lead elsewhere, look like others or are SQL: each is itself and nothing else, or is refused."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
import seracdb
from conftest import Connections, root
from testserver import ROOT_PASSWORD, Server

PASSWORD = "long enough"

PATHS = ["../", "..", ".", "/", "//", "/etc/passwd", "..\\", "\\", "a/../b", "./a", "a/", "/a", "~", "~1", "~root", "C:", "con", "nul"]
ENCODED = ["%2e%2e", "%2E%2E%2F", "%00", "%", "%%", "%2", "%zz", "%252e", "a%2fb", "%25", "&#x2e;", "\\u002e\\u002e", "+", "a+b", "a b"]
QUOTES = ["'", "''", '"', '""', "`", "a'b", 'a"b', "$$", "$1", "?", "E'a'", "--", "/*", "*/", ";", "a;b", "\\'", "{}", "{0}", "%s", "%(a)s"]
SQL = [
    "'; AS USER 'root'",
    "x' AS USER 'root",
    "ann' OR '1'='1",
    "'); DROP TABLE notes; --",
    '"; DROP TABLE notes; --',
    "AS USER",
    "' AS USER 'root' VALUES (1) --",
    "root'--",
    "select",
    "table",
    "user",
    "role",
    "public",
    "null",
    "true",
    "seracdb target",
    "seracdb all users",
    "information_schema",
    "system",
    "shared",
    "user_ann",
    "user_root",
    "manifest.json",
    "batch-0001.parquet",
    "_seracdb",
    "_id",
    "_updated",
    "_deleted",
    "_user",
    "__serac_file",
]
UNSEEN = ["\0", "a\0b", "\n", "a\nb", "\r", "\t", "\x1b[2J", "\x7f", "a\u200bb", "\u202eevil", "\ufeffa", "\u2060", "\u00ad", "\x85", " ", "\u3000", "\u00a0"]
LETTERS = ["é", "ñ", "ü", "Å", "ö", "ﬁ", "ſ", "ẞ", "ı", "İ", "К", "Ω", "한", "ｱ", "①", "²", "ß", "ç", "Ǆ", "ｅ"]


def names() -> list[str]:
    seen = [*PATHS, *ENCODED, *QUOTES, *SQL, *UNSEEN]
    for letter in LETTERS:
        seen += [f"x{letter}", *(f"x{unicodedata.normalize(form, letter)}" for form in ("NFC", "NFD", "NFKC", "NFKD"))]
        seen += [f"x{letter.upper()}", f"x{letter.lower()}"]
    for case in ["ann", "Ann", "ANN", "aNN", "root", "Root", "ROOT", "Admin", "admin"]:
        seen.append(case + "_")
    for first, second in itertools.product([*PATHS[:10], *ENCODED[:10], *QUOTES[:10]], ["a", "..", "'", "%2f", "é", "/"]):
        seen += [first + second, second + first]
    seen += ["x" * length for length in (1, 127, 128, 129, 4096)] + ["é" * 64, "é" * 65, "é" * 2048, "🧊" * 32, "🧊" * 33]
    return list(dict.fromkeys(seen))


NAMES = names()


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("hostile") / "data") as running:
        with root(running) as db:
            db.run("CREATE NAMESPACE app")
            db.run("CREATE USER TABLE app.notes (n BIGINT, note TEXT)")
        yield running


@pytest.fixture
def db(server):
    with root(server) as connection:
        yield connection


def files(server: Server) -> dict[str, bytes]:
    objects = server.data_dir / "objects"
    return {str(f.relative_to(objects)): f.read_bytes() for f in objects.rglob("*") if f.is_file() and "_seracdb" not in f.parts}


def everything(server: Server) -> set[str]:
    """What there is around the data directory: nothing may come to be there."""
    place = server.data_dir.parent
    return {str(f.relative_to(place)) for f in place.rglob("*") if server.data_dir not in f.parents}


def refused(work) -> bool:
    """Whether something is refused, in words, and not by a fault."""
    try:
        work()
        return False
    except seracdb.Error as error:
        assert "INTERNAL" not in str(error) and "panic" not in str(error).lower(), error
        return True


def test_there_are_enough():
    assert len(NAMES) >= 500


def test_as_users(server, db):
    """Each that can be a user has rows that no other has, in a folder that no other has, and is told from the others."""
    outside, made = everything(server), {}
    for number, name in enumerate(NAMES):
        if refused(lambda name=name: db.run(f"CREATE USER {quoted(name)} WITH PASSWORD '{PASSWORD}'")):
            continue
        made[name] = number
    assert len(made) > 250
    # None that looks like another is there beside it, and none that cannot be seen.
    assert all(unicodedata.normalize("NFC", name) == name for name in made)
    assert not set(UNSEEN) & set(made)
    for name, number in made.items():
        assert db.run(f"INSERT INTO app.notes AS USER {text(name)} VALUES ({number}, 'of one')") == 1
    db.run("STORAGE FLUSH TABLE app.notes")
    found = {row["_user"]: row["n"] for row in db.query("SELECT _user, n FROM all_users('app.notes')").to_pylist()}
    assert found == made
    folders = {file.rsplit("/", 1)[0] for file in files(server)}
    assert len(folders) == len(made)
    for folder in folders:
        parts = folder.split("/")
        assert parts[:2] == ["app", "notes"] and len(parts) == 3 and parts[2].startswith("user_") and ".." not in parts[2]
    assert everything(server) == outside
    for name, number in made.items():
        own = db.query(f"EXECUTE AS USER {text(name)} (SELECT n FROM app.notes)").to_pylist()
        assert own == [{"n": number}], name
        assert db.run(f"UPDATE app.notes AS USER {text(name)} SET note = 'changed'") == 1
    audited = db.query("SELECT DISTINCT subject_user_id AS u FROM system.audit_log WHERE outcome = 'committed' AND action = 'INSERT'")
    assert {row["u"] for row in audited.to_pylist()} == set(made)
    users = {row["name"] for row in db.query("SELECT name FROM system.users").to_pylist()}
    assert users == {"root", *made}


def test_as_subjects_that_are_not_there(server, db):
    before = db.query("SELECT count(*) AS n FROM all_users('app.notes')").to_pylist()
    for number, name in enumerate(NAMES):
        name = f"not {number} {name}"
        with pytest.raises(seracdb.Error) as caught:
            db.run(f"INSERT INTO app.notes AS USER {text(name)} VALUES (0, 'x')")
        assert "Invalid user_id for AS USER operation" in str(caught.value) or "\0" in name, name
    assert db.query("SELECT count(*) AS n FROM all_users('app.notes')").to_pylist() == before


def test_to_log_in_with(server):
    """None is anybody by its name."""
    for name in [*SQL, *QUOTES, "root ", " root", "ROOT", "Root", "root\u200b", "ｒｏｏｔ", "%72oot"]:
        with pytest.raises(seracdb.Error):
            seracdb.connect(server.uri, name, ROOT_PASSWORD).query("SELECT 1")


@pytest.mark.parametrize("kind", ["namespace", "table", "column"])
def test_as_names_of_what_there_is(server, db, kind):
    outside, made = everything(server), {}
    if kind != "namespace":
        db.run(f"CREATE NAMESPACE of_{kind}s")
    for number, name in enumerate(NAMES):
        match kind:
            case "namespace":
                create, table = f"CREATE NAMESPACE {quoted(name)}", f"{quoted(name)}.t"
            case "table":
                create, table = None, f"of_tables.{quoted(name)}"
            case _:
                create, table = None, f"of_columns.t{number}"
        column = quoted(name) if kind == "column" else "n"

        def make(create=create, table=table, column=column, number=number) -> None:
            if create:
                db.run(create)
            db.run(f"CREATE TABLE {table} ({column} BIGINT)")
            db.run(f"INSERT INTO {table} VALUES ({number})")

        if not refused(make):
            made[name] = (table, column, number)
    assert len(made) > 250
    db.run("STORAGE FLUSH ALL")
    for name, (table, column, number) in made.items():
        assert db.query(f"SELECT {column} AS v FROM {table} WHERE {column} = {number}").to_pylist() == [{"v": number}], name
    assert everything(server) == outside
    for file in files(server):
        parts = file.split("/")
        assert len(parts) == 4 and not {"..", ".", "", "~"} & set(parts), file
    # What was listed is what was made.
    listed = {
        "namespace": "SELECT schema_name AS v FROM information_schema.schemata",
        "table": "SELECT table_name AS v FROM information_schema.tables WHERE table_schema = 'of_tables'",
        "column": "SELECT column_name AS v FROM information_schema.columns WHERE table_schema = 'of_columns'",
    }[kind]
    assert set(made) <= {row["v"] for row in db.query(listed).to_pylist()}
    with Connections(server) as connections:
        assert connections.open().query("SELECT 1 AS n").to_pylist() == [{"n": 1}]
