"""Five hundred names that lead elsewhere, look like others or are SQL: each is itself and nothing else, or is refused."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable

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

# Default_Ignorable_Code_Point, from DerivedCoreProperties.txt of Unicode 16.0.
IGNORABLE = [
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
]
IGNORED = {chr(c) for first, last in IGNORABLE for c in range(first, last + 1)}
NONCHARACTERS = {chr(c) for c in [*range(0xFDD0, 0xFDF0), *(plane << 16 | last for plane in range(17) for last in (0xFFFE, 0xFFFF))]}
# Format characters that are signs: they go with numbers, as in Arabic.
SIGNS = set("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
BLANK = {"\u2800"}
JOINERS = {"\u200c", "\u200d"}
VISIBLE, UNSEEN_OTHERS = SIGNS | JOINERS, (IGNORED | NONCHARACTERS | BLANK) - JOINERS
# Words in which joiners change what is seen, and such in which they do nothing.
JOINED = ["नमस्\u200dते", "क्\u200cष", "می\u200cخواهم", "ශ්\u200dරී"]
UNJOINED = ["a\u200db", "a\u200cb", "ann\u200d", "ann\u200c", "\u200dann", "\u200c", "می\u200dخ", "می\u200c", "क्\u200d", "👩\u200d🚀"]
ENDS = ["\u034f", "\ufe0f", "\U000e0100", "\U000e0061", "\u3164", "\u115f", "\uffa0", "\u17b4", "\u180b", "\u206a", "\ufff9"]
ENDS += ["\U0001d173", "\u2800", "\ufdd0", "\U0010ffff", "\u2064", "\u2067", "\u180e", "\ufff0", "\U0001bca0", "\u2028", "\u2029"]
LETTERS = ["é", "ñ", "ü", "Å", "ö", "ﬁ", "ſ", "ẞ", "ı", "İ", "К", "Ω", "한", "ｱ", "①", "²", "ß", "ç", "Ǆ", "ｅ"]


def names() -> list[str]:
    seen = [*PATHS, *ENCODED, *QUOTES, *SQL, *UNSEEN, *JOINED, *UNJOINED, *(f"ann{end}" for end in ENDS)]
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


def is_unseen(c: str) -> bool:
    """By Python's Unicode data and the list above: nothing of the server's."""
    if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp"):
        return c not in VISIBLE
    return c in UNSEEN_OTHERS


def hides(names: Iterable[str]) -> list[str]:
    """Those of the names that have something in them that is not seen."""
    return [name for name in names if any(map(is_unseen, name)) or (JOINERS & set(name) and name not in JOINED)]


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
    assert not hides(made) and set(JOINED) <= set(made)
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
    db.run("CREATE TABLE app.common (n BIGINT)")
    for name in made:
        db.run(f"GRANT SELECT ON app.common TO {quoted(name)}")
    assert {row["grantee"] for row in db.query("SELECT grantee FROM system.grants").to_pylist()} == set(made)
    for name in made:
        db.run(f"REVOKE SELECT ON app.common FROM {quoted(name)}")
    assert db.query("SELECT grantee FROM system.grants").num_rows == 0


def test_every_character_that_is_not_seen(db):
    """At the end of a name and within it."""
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    unseen = {c for c in every if is_unseen(c)} | JOINERS
    assert IGNORED | NONCHARACTERS <= unseen
    # The largest range is all of one kind.
    unseen = [c for c in unseen if not 0xE0080 <= ord(c) < 0xE0FFF or ord(c) % 64 == 0]
    assert len(unseen) > 400
    for c in unseen:
        for name in [f"ann{c}", f"an{c}n"]:
            assert refused(lambda name=name: db.run(f"CREATE NAMESPACE {quoted(name)}")), f"U+{ord(c):04X}"
    for number, c in enumerate(sorted(SIGNS)):
        db.run(f"CREATE NAMESPACE {quoted(f'signs{number} {c}1')}")


def test_as_subjects_that_are_not_there(server, db):
    before = db.query("SELECT count(*) AS n FROM all_users('app.notes')").to_pylist()
    for number, name in enumerate(NAMES):
        name = f"not {number} {name}"
        with pytest.raises(seracdb.Error) as caught:
            db.run(f"INSERT INTO app.notes AS USER {text(name)} VALUES (0, 'x')")
        assert "Invalid user_id for AS USER operation" in str(caught.value) or "\0" in name, name
        assert refused(lambda name=name: db.run(f"GRANT SELECT ON NAMESPACE app TO {quoted(name)}"))
    assert db.query("SELECT count(*) AS n FROM all_users('app.notes')").to_pylist() == before
    assert db.query("SELECT grantee FROM system.grants").num_rows == 0


def test_to_log_in_with(server):
    """None is anybody by its name."""
    for name in [*SQL, *QUOTES, "root ", " root", "ROOT", "Root", "root\u200b", "ｒｏｏｔ", "%72oot"]:
        with pytest.raises(seracdb.Error):
            seracdb.connect(server.uri, name, ROOT_PASSWORD).query("SELECT 1")


@pytest.mark.parametrize("kind", ["namespace", "table", "column", "view", "index"])
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
            case "view":
                create, table = f"CREATE VIEW of_views.{quoted(name)} AS SELECT n FROM of_views.t{number}", f"of_views.t{number}"
            case "index":
                create, table = f"CREATE INDEX {quoted(name)} ON of_indexs.t{number} (n)", f"of_indexs.t{number}"
            case _:
                create, table = None, f"of_columns.t{number}"
        column = quoted(name) if kind == "column" else "n"

        def make(create=create, table=table, column=column, number=number) -> None:
            if kind == "namespace":
                db.run(create)
            db.run(f"CREATE TABLE {table} ({column} BIGINT)")
            db.run(f"INSERT INTO {table} VALUES ({number})")
            if create and kind != "namespace":
                db.run(create)

        if not refused(make):
            made[name] = (f"of_views.{quoted(name)}" if kind == "view" else table, column, number)
    assert len(made) > 250
    # Columns come in with what clients load.
    assert kind == "column" or (not hides(made) and set(JOINED) <= set(made))
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
        "view": "SELECT table_name AS v FROM information_schema.views WHERE table_schema = 'of_views'",
        "index": "SELECT index AS v FROM system.indexes WHERE namespace = 'of_indexs'",
    }[kind]
    found = {row["v"] for row in db.query(listed).to_pylist()}
    assert set(made) <= found and (kind in ("namespace", "column") or found <= {*made, *(f"t{n}" for n in range(len(NAMES)))})
    with Connections(server) as connections:
        assert connections.open().query("SELECT 1 AS n").to_pylist() == [{"n": 1}]


def test_as_names_of_tokens(db):
    """A token's name is a note to whom it belongs: it opens nothing, and stays as it was written."""
    made = {}
    for name in NAMES:
        created = []
        if not refused(lambda name=name, created=created: created.extend(db.query(f"CREATE TOKEN {quoted(name)}").to_pylist())):
            made[name] = created[0]["token_id"]
    assert len(made) > 250
    listed = {row["token_id"]: row["name"] for row in db.query("SELECT token_id, name FROM system.tokens").to_pylist()}
    assert listed == {token: name for name, token in made.items()}
    for token in made.values():
        db.run(f"DROP TOKEN '{token}'")
    assert db.query("SELECT token_id FROM system.tokens").num_rows == 0


def test_as_names_that_are_granted(server, db):
    """Who is granted one reads that one."""
    with Connections(server) as connections:
        db.run("CREATE NAMESPACE granted")
        db.run(f"CREATE USER grantee WITH PASSWORD '{PASSWORD}'")
        reader, made = connections.open("grantee", PASSWORD), []
        for number, name in enumerate([*PATHS, *ENCODED, *QUOTES, *SQL, *JOINED]):
            table = f"granted.{quoted(name)}"
            if not refused(lambda table=table: db.run(f"CREATE TABLE {table} (n BIGINT)")):
                db.run(f"INSERT INTO {table} VALUES ({number})")
                made.append((table, number))
        assert len(made) > 50
        for table, number in made:
            with pytest.raises(seracdb.Error):
                reader.query(f"SELECT n FROM {table}")
            db.run(f"GRANT SELECT ON {table} TO grantee")
            assert reader.query(f"SELECT n FROM {table}").to_pylist() == [{"n": number}]
        assert len({row["object"] for row in db.query("SELECT object FROM system.grants").to_pylist()}) == len(made)
        for table, _ in made:
            db.run(f"REVOKE SELECT ON {table} FROM grantee")
        assert reader.query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'granted'").num_rows == 0
        db.run("DROP USER grantee")
