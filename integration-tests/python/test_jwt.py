"""JWTs that an identity provider has signed: taken by the keys of a file, and by nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as flightsql
import grpc
import jwt
import pyarrow.flight as flight
import pytest
from bearers import adbc, ends, execute, header, raw, refused, rows, start, whoami
from conftest import root
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from raw_grpc import Caller
from rawflight import statement
from test_client_rules import java, java_rows
from test_transactions import COMMIT, REFUSED
from testserver import Server

ISSUER, AUDIENCE = "https://id.example.org/", "seracdb"
RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
# Seconds after which the server has looked at its file of keys.
LOOKED = 1.2
# Name of a key → its algorithm, the key, and how its public half is written.
KEYS: dict[str, tuple[str, Any, Any]] = {
    "rsa": ("RS256", RSA, RSAAlgorithm),
    "pss": ("PS384", RSA, RSAAlgorithm),
    "p256": ("ES256", ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
    "p384": ("ES384", ec.generate_private_key(ec.SECP384R1()), ECAlgorithm),
    "ed": ("EdDSA", ed25519.Ed25519PrivateKey.generate(), OKPAlgorithm),
}


def public(name: str, key: Any, kind: Any, **more: str) -> dict:
    return json.loads(kind.to_jwk(key.public_key())) | {"kid": name, "use": "sig"} | more


def jwks(*names: str) -> dict:
    # An encryption key and a secret are in many such files.
    others = [public("enc", OTHER_RSA, RSAAlgorithm, use="enc"), {"kty": "oct", "kid": "secret", "k": encoded(b"secret" * 8)}]
    return {"keys": [public(name, key, kind) for name, (_, key, kind) in KEYS.items() if name in names] + others}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def put(file: Path, keys: dict | str) -> None:
    """In the place of the file there is, at once."""
    new = file.with_suffix(".new")
    new.write_text(keys if isinstance(keys, str) else json.dumps(keys))
    os.replace(new, file)


def replace(file: Path, keys: dict | str) -> None:
    """And waits until the server has looked at it."""
    put(file, keys)
    time.sleep(LOOKED)


def settings(file: Path, **more: str) -> dict[str, str]:
    values = {"JWKS_FILE": str(file), "JWT_ISSUER": ISSUER, "JWT_AUDIENCE": AUDIENCE}
    values |= {"JWT_ALGORITHMS": '["RS256", "PS384", "ES256", "ES384", "EdDSA"]', "JWT_ROLE_CLAIM": "role"} | more
    return {f"SERACDB_AUTH__{name}": value for name, value in values.items()}


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Server]:
    """A server that takes JWTs of all kinds of keys. Its file of keys stays as it is."""
    directory = tmp_path_factory.mktemp("jwt")
    put(directory / "jwks.json", jwks(*KEYS))
    with Server(directory / "data", variables=settings(directory / "jwks.json")) as server:
        make_users(server)
        yield server


@pytest.fixture
def rotating(tmp_path) -> Iterator[tuple[Server, Path]]:
    """A server of its own, and its file of keys with one key."""
    file = tmp_path / "jwks.json"
    put(file, jwks("p256"))
    with Server(tmp_path / "data", variables=settings(file)) as server:
        make_users(server)
        yield server, file


def make_users(server: Server) -> None:
    with root(server) as db:
        db.run("CREATE USER ann WITH PASSWORD 'ann'")
        db.run("CREATE USER sue WITH PASSWORD 'sue' ROLE service")
        db.run("CREATE TABLE t (n INT)")
        db.run("GRANT ALL ON t TO ROLE user")


def claims(**changed: Any) -> dict:
    """Those of ann for a minute, but for what is changed; `...` leaves one out."""
    now = int(time.time())
    all_of_them = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now, "nbf": now - 1, "exp": now + 60}
    # Which lowers none.
    all_of_them |= {"role": "system"} | changed
    return {name: value for name, value in all_of_them.items() if value is not ...}


def signed(name: str = "p256", header: dict | None = None, **changed: Any) -> str:
    algorithm, key, _ = KEYS[name]
    return jwt.encode(claims(**changed), key, algorithm, {"kid": name} if header is None else header)


def by_hand(header: dict, body: dict, sign: Callable[[bytes], bytes]) -> str:
    text = ".".join(encoded(json.dumps(part).encode()) for part in (header, body))
    return f"{text}.{encoded(sign(text.encode()))}"


@pytest.mark.parametrize("name", KEYS)
def test_each_kind_of_key_vouches_for_a_user(served, name):
    assert whoami(served, signed(name)) == "ann"
    # Without the name of a key, all that fit are tried.
    assert whoami(served, signed(name, header={})) == "ann"
    with adbc(served, signed(name)) as connection:
        assert rows(connection, "SELECT user_id FROM system.queries WHERE state = 'running'") == [("ann",)]


def test_jdbc_comes_by_one(served):
    with java(served, user=None, password=None, token=signed("rsa")) as connection:
        assert java_rows(connection.createStatement().executeQuery("SELECT user_id FROM system.queries WHERE state = 'running'")) == ["ann"]


def test_its_calls_are_of_one_session(served):
    token = signed(sub="sue")
    connection = raw(served, token)
    transaction = connection.begin()
    connection.query("INSERT INTO t VALUES (1)", transaction)
    assert connection.query("SELECT n FROM t", transaction) == [{"n": 1}]
    assert raw(served, signed(sub="sue", jti="another")).query("SELECT n FROM t") == []
    connection.end(transaction, COMMIT)
    raw(served, token).query("BEGIN")
    raw(served, token).query("DELETE FROM t")
    assert raw(served, signed()).query("SELECT n FROM t") == [{"n": 1}]
    raw(served, token).query("COMMIT")
    assert raw(served, signed()).query("SELECT n FROM t") == []
    with adbc(served, signed(sub="sue"), autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (2)")
        connection.rollback()
        assert rows(connection, "SELECT n FROM t") == []


def test_an_audience_among_others_will_do(served):
    assert whoami(served, signed(aud=["other", AUDIENCE])) == "ann"


PEM = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
DER = RSA.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def hs256(secret: bytes, **header: str) -> str:
    sign = lambda text: hmac.new(secret, text, hashlib.sha256).digest()  # noqa: E731
    return by_hand({"alg": "HS256", "typ": "JWT"} | header, claims(sub="root"), sign)


def signed_with(key: Any, algorithm: str, kid: str, **changed: Any) -> str:
    return jwt.encode(claims(**changed), key, algorithm, {"kid": kid})


def tampered() -> str:
    header, body, signature = signed("rsa").split(".")
    return f"{header}.{encoded(json.dumps(claims(sub='root')).encode())}.{signature}"


WRONG: dict[str, Callable[[], str]] = {
    "alg none": lambda: by_hand({"alg": "none", "typ": "JWT"}, claims(sub="root"), lambda _: b""),
    "alg None": lambda: by_hand({"alg": "None", "kid": "rsa"}, claims(sub="root"), lambda _: b""),
    "no alg": lambda: by_hand({"typ": "JWT"}, claims(sub="root"), lambda _: b""),
    "HS256 by the public key": lambda: hs256(PEM, kid="rsa"),
    "HS256 by its DER": lambda: hs256(DER),
    "HS256 by the secret of the file": lambda: hs256(b"secret" * 8, kid="secret"),
    "another key": lambda: signed_with(OTHER_RSA, "RS256", "rsa"),
    "another curve's key": lambda: signed_with(ec.generate_private_key(ec.SECP256R1()), "ES256", "p256"),
    "the key for encryption": lambda: signed_with(OTHER_RSA, "RS256", "enc"),
    "a key that is not there": lambda: signed_with(RSA, "RS256", "other"),
    "a key of another algorithm": lambda: signed_with(RSA, "RS512", "rsa"),
    "its own key": lambda: jwt.encode(claims(sub="root"), OTHER_RSA, "RS256", {"jwk": public("x", OTHER_RSA, RSAAlgorithm)}),
    "another body": tampered,
    "no signature": lambda: signed("rsa").rsplit(".", 1)[0] + ".",
    "a critical header": lambda: jwt.encode(claims(), RSA, "RS256", {"kid": "rsa", "crit": ["b64"], "b64": False}),
    "another audience": lambda: signed(aud="other"),
    "other audiences": lambda: signed(aud=["a", "b"]),
    "no audience": lambda: signed(aud=...),
    "another issuer": lambda: signed(iss="https://evil.example.org/"),
    "no issuer": lambda: signed(iss=...),
    "expired": lambda: signed(exp=int(time.time()) - 1),
    "no expiry": lambda: signed(exp=...),
    "an expiry that is no time": lambda: by_hand_with_rsa(exp="4000000000"),
    "not yet": lambda: signed(nbf=int(time.time()) + 60),
    "a beginning that is no time": lambda: by_hand_with_rsa(nbf="1"),
    "no user": lambda: signed(sub=...),
    "a user that is not there": lambda: signed(sub="nobody"),
    "a role that is none": lambda: signed(role="emperor"),
    "no role": lambda: signed(role=...),
    "two parts": lambda: "a.b",
    "three parts": lambda: "a.b.c",
    "four parts": lambda: signed() + ".x",
    "nothing": lambda: "..",
}


def by_hand_with_rsa(**changed: Any) -> str:
    sign = lambda text: RSA.sign(text, padding.PKCS1v15(), hashes.SHA256())  # noqa: E731
    return by_hand({"alg": "RS256", "kid": "rsa"}, claims(**changed), sign)


def test_what_is_signed_by_hand_is_taken_too(served):
    """So that those that are wrong are refused for what is wrong with them."""
    assert whoami(served, by_hand_with_rsa()) == "ann"


@pytest.mark.parametrize("what", WRONG)
def test_wrong_ones_are_refused_without_a_reason(served, what):
    text = refused(served, WRONG[what]())
    session = "the token is unknown or its session ended"
    assert "the token is not accepted" in text or (session in text and what in ("two parts", "four parts"))
    assert not any(word in text.lower() for word in ("key", "signature", "algorithm", "rs256", "audience", "issuer"))
    # It makes no user.
    with root(served) as db, pytest.raises(flightsql.Error):
        db.run("CREATE TOKEN FOR USER nobody")


def test_a_role_can_only_be_lowered(served):
    raw(served, signed(sub="sue", role="service")).query("CREATE NAMESPACE by_claim")
    with pytest.raises(REFUSED, match="permission denied"):
        raw(served, signed(sub="sue", role="user")).query("CREATE NAMESPACE too_low")
    for role in ("service", "admin", "system"):
        with pytest.raises(REFUSED, match="permission denied"):
            raw(served, signed(sub="ann", role=role)).query("CREATE NAMESPACE too_high")
    with pytest.raises(REFUSED, match="permission denied"):
        raw(served, signed(sub="root", role="user")).query("CREATE USER evil WITH PASSWORD 'x'")
    # Nor by way of a token, which would have the user's own role.
    for sql in ("CREATE TOKEN", "CREATE TOKEN FOR USER ann"):
        with pytest.raises(REFUSED, match="lower role"):
            raw(served, signed(sub="root", role="admin")).query(sql)
    (row,) = raw(served, signed(sub="sue", role="service")).query("CREATE TOKEN")
    assert whoami(served, row["token"]) == "sue"


def test_a_ticket_is_of_the_role_that_it_was_issued_to(served):
    """Its parts run already, with the rights of that."""
    high, low = raw(served, signed(sub="sue")), raw(served, signed(sub="sue", role="user"))
    several = flight.FlightCallOptions(headers=[header(signed(sub="sue")), (b"seracdb-endpoints", b"2")])
    for options in (high.options, several):
        info = high.connection.get_flight_info(statement("SELECT 1 AS n"), options)
        with pytest.raises(REFUSED, match="no such ticket"):
            low.connection.do_get(info.endpoints[0].ticket, low.options).read_all()
        assert high.connection.do_get(info.endpoints[0].ticket, high.options).read_all().num_rows == 1


def test_what_runs_ends_when_it_expires(served):
    exp = int(time.time()) + 3
    token = signed(exp=exp)
    connection = raw(served, token)
    reader = start(connection)
    handle = connection.prepare("SELECT 1")
    ends(reader, lambda: time.sleep(exp - time.time()))
    with pytest.raises(flight.FlightUnauthenticatedError):
        execute(connection, handle)
    refused(served, token)


def test_keys_come_and_go_with_the_file(rotating):
    server, file = rotating
    old, new = signed("p256"), signed("ed")
    assert whoami(server, old) == "ann"
    refused(server, new)
    replace(file, jwks("p256", "ed"))
    assert whoami(server, old) == whoami(server, new) == "ann"
    of_old, of_new = start(raw(server, old)), start(raw(server, new))
    ends(of_old, lambda: put(file, jwks("ed")))
    refused(server, old)
    assert of_new.read_chunk().data.num_rows > 0
    of_new.cancel()
    assert whoami(server, new) == "ann"


@pytest.mark.parametrize("wrong", ["", "{", '{"keys": []}', json.dumps(jwks())])
def test_a_file_that_cannot_be_read_changes_nothing(rotating, wrong):
    server, file = rotating
    replace(file, wrong)
    assert whoami(server, signed()) == "ann"
    time.sleep(LOOKED)
    assert server.log().count("the keys of before stay in use") == 1
    file.unlink()
    time.sleep(LOOKED)
    assert whoami(server, signed()) == "ann"
    replace(file, jwks("p384"))
    assert whoami(server, signed("p384")) == "ann"
    refused(server, signed())


def test_a_file_like_the_one_before_is_another_all_the_same(rotating):
    """Of the same size and age."""
    server, file = rotating
    other = ec.generate_private_key(ec.SECP256R1())
    before, text = file.stat(), file.read_text()
    (key,) = (key for key in json.loads(text)["keys"] if key["kid"] == "p256")
    for name, value in public("p256", other, ECAlgorithm).items():
        text = text.replace(key[name], value)
    new = file.with_suffix(".new")
    new.write_text(text)
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (new.stat().st_size, new.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    os.replace(new, file)
    time.sleep(LOOKED)
    refused(server, signed())
    assert whoami(server, signed_with(other, "ES256", "p256")) == "ann"


def test_nobody_waits_for_a_file_that_does_not_answer(rotating):
    """As on a disk that has gone: the keys of before stay in use."""
    server, file = rotating
    pipe = file.with_suffix(".pipe")
    os.mkfifo(pipe)
    os.replace(pipe, file)
    time.sleep(LOOKED)
    with Caller(server) as caller:
        assert caller.call("ListActions", b"", seconds=5).code is grpc.StatusCode.OK
        by_jwt = (("authorization", f"Bearer {signed()}"),)
        assert caller.call("ListActions", b"", by_jwt, seconds=5).code is grpc.StatusCode.OK
    with root(server) as db:
        db.run("DROP USER ann")
    with Caller(server, by_jwt) as caller:
        assert caller.call("ListActions", b"", seconds=5).code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("content", [None, "{", json.dumps(jwks())])
def test_the_server_does_not_start_without_keys(tmp_path, content):
    file = tmp_path / "jwks.json"
    if content is not None:
        file.write_text(content)
    server = Server(tmp_path / "data", variables=settings(file))
    process = server.spawn()
    assert process.wait(60) != 0
    assert "auth.jwks_file" in server.log() and "jwks.json" in server.log()


def test_without_a_file_no_jwt_is_taken(server):
    with pytest.raises(flight.FlightUnauthenticatedError, match="unknown"):
        raw(server, signed(sub="root")).query("SELECT 1")


def test_another_claim_may_name_the_user(tmp_path):
    put(tmp_path / "jwks.json", jwks("p256"))
    variables = settings(tmp_path / "jwks.json", JWT_USER_CLAIM="preferred_username")
    with Server(tmp_path / "data", variables=variables) as server:
        make_users(server)
        assert whoami(server, signed(sub="1234", preferred_username="ann")) == "ann"
        refused(server, signed(sub="ann"))
