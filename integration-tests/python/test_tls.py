"""TLS: with and without certificates of clients, through every driver; new certificates; where it is not spoken."""

from __future__ import annotations

import signal
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import jpype
import pyarrow as pa
import pyarrow.flight as flight
import pytest
import rawflight
import seracdb
from adbc_driver_flightsql import DatabaseOptions
from conftest import root
from test_slt import start_java
from testserver import ROOT_PASSWORD, Server, binary, make_certificates, tls_args
from watching import wait_until

ANSWER = "SELECT 6 * 7 AS answer"
FAST_SECONDS = 15


@dataclass
class Trust:
    """What a client believes and shows: folders of certificates."""

    ca: Path | None = None
    shown: Path | None = None

    def file(self, name: str) -> Path | None:
        folder = self.ca if name == "ca.pem" else self.shown
        return folder and folder / name

    def text(self, name: str) -> bytes | None:
        file = self.file(name)
        return file and file.read_bytes()


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Path:
    """Certificates of another CA."""
    return make_certificates(tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="module")
def tls(ours, tmp_path_factory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("tls") / "data", args=tls_args(ours)) as running:
        yield running
        assert running.process.poll() is None, running.log()[-4000:]


@pytest.fixture(scope="module")
def mtls(ours, tmp_path_factory) -> Iterator[Server]:
    """Lets only those in who show a certificate of ours."""
    args = tls_args(ours, clients_of=ours)
    with Server(tmp_path_factory.mktemp("mtls") / "data", args=args) as running:
        yield running
        assert running.process.poll() is None, running.log()[-4000:]


# The drivers: each gives the answer, or an error of its own.


def by_pyarrow(uri: str, trust: Trust, password: str) -> int:
    given = {"tls_root_certs": trust.text("ca.pem")}
    if trust.shown:
        given |= {"cert_chain": trust.text("client.pem"), "private_key": trust.text("client.key")}
    with flight.FlightClient(uri, **{name: text for name, text in given.items() if text}) as connection:
        headers = [connection.authenticate_basic_token("root", password)]
        options = flight.FlightCallOptions(headers=headers, timeout=FAST_SECONDS)
        info = connection.get_flight_info(rawflight.statement(ANSWER), options)
        return connection.do_get(info.endpoints[0].ticket, options).read_all()["answer"][0].as_py()


def by_adbc(uri: str, trust: Trust, password: str) -> int:
    given = {
        DatabaseOptions.TLS_ROOT_CERTS.value: trust.text("ca.pem"),
        DatabaseOptions.MTLS_CERT_CHAIN.value: trust.text("client.pem"),
        DatabaseOptions.MTLS_PRIVATE_KEY.value: trust.text("client.key"),
    }
    login = {"username": "root", "password": password}
    options = login | {name: text.decode() for name, text in given.items() if text}
    with flightsql.connect(uri, db_kwargs=options, autocommit=True) as db, db.cursor() as cursor:
        cursor.execute(ANSWER)
        return cursor.fetchall()[0][0]


def by_package(uri: str, trust: Trust, password: str) -> int:
    files = {
        "tls_ca": trust.file("ca.pem"),
        "tls_cert": trust.file("client.pem"),
        "tls_key": trust.file("client.key"),
    }
    with seracdb.connect(uri, "root", password, **files) as db:
        return db.query(ANSWER)["answer"][0].as_py()


class ShellError(Exception):
    """What the shell said."""


def by_shell(uri: str, trust: Trust, password: str) -> int:
    command = [binary(), "sql", "--uri", uri, "--format", "csv", "-c", ANSWER]
    for flag, name in {"--tls-ca": "ca.pem", "--tls-cert": "client.pem", "--tls-key": "client.key"}.items():
        if file := trust.file(name):
            command += [flag, str(file)]
    done = subprocess.run(
        command, env={"SERACDB_PASSWORD": password}, capture_output=True, text=True, timeout=FAST_SECONDS
    )
    if done.returncode:
        raise ShellError(done.stderr)
    return int(done.stdout.split()[1])


class JavaError(Exception):
    """What JDBC said."""


def by_jdbc(uri: str, trust: Trust, password: str) -> int:
    url = uri.replace("grpc+tls://", "jdbc:arrow-flight-sql://") + "/?useEncryption=true"
    for name, file in {"tlsRootCerts": "ca.pem", "clientCertificate": "client.pem", "clientKey": "client.key"}.items():
        if path := trust.file(file):
            url += f"&{name}={path}"
    return jdbc_answer(url, password)


def jdbc_answer(url: str, password: str) -> int:
    start_java()
    login = jpype.java.util.Properties()
    login.put("user", "root")
    login.put("password", password)
    try:
        connection = jpype.java.sql.DriverManager.getConnection(url, login)
    except jpype.java.sql.SQLException as error:
        raise JavaError(str(error)) from error
    try:
        statement = connection.createStatement()
        result = statement.executeQuery(ANSWER)
        assert result.next()
        found = int(result.getLong(1))
        # The connection does not close what is open of it.
        result.close()
        statement.close()
        return found
    finally:
        connection.close()


DRIVERS: dict[str, Callable[[str, Trust, str], int]] = {
    "pyarrow": by_pyarrow,
    "ADBC": by_adbc,
    "package": by_package,
    "shell": by_shell,
    "JDBC": by_jdbc,
}


@pytest.fixture(params=DRIVERS)
def answer(request) -> Callable[..., int]:
    def answer(server: Server, trust: Trust, password: str = ROOT_PASSWORD, uri: str | None = None) -> int:
        return DRIVERS[request.param](uri or server.uri, trust, password)

    return answer


def failure(ask: Callable[[], int]) -> str:
    """The text of the error, which comes fast."""
    began = time.monotonic()
    with pytest.raises((flight.FlightError, pa.ArrowException, flightsql.Error, OSError, ShellError, JavaError)) as raised:
        ask()
    assert time.monotonic() - began < FAST_SECONDS
    return str(raised.value)


def test_a_driver_connects_to_a_server_that_it_trusts(answer, tls, ours, theirs):
    assert answer(tls, Trust(ours)) == 42
    assert "password" in failure(lambda: answer(tls, Trust(ours), "wrong"))
    for trust in (Trust(), Trust(theirs)):
        failure(lambda trust=trust: answer(tls, trust))
    # A certificate that nobody asks for does no harm.
    assert answer(tls, Trust(ours, shown=theirs)) == 42


def test_only_who_shows_a_certificate_gets_in_and_logs_in_all_the_same(answer, mtls, ours, theirs):
    assert answer(mtls, Trust(ours, shown=ours)) == 42
    assert "password" in failure(lambda: answer(mtls, Trust(ours, shown=ours), "wrong"))
    for trust in (Trust(ours), Trust(ours, shown=theirs)):
        said = failure(lambda trust=trust: answer(mtls, trust))
        assert "password" not in said and "token" not in said, "it got as far as the login"


def test_who_does_not_speak_tls_where_it_is_spoken_fails_at_once(answer, request, tls, server, ours):
    if request.node.callspec.params["answer"] == "JDBC":
        plain = tls.uri.replace("grpc+tls://", "jdbc:arrow-flight-sql://") + "/?useEncryption=false"
        failure(lambda: jdbc_answer(plain, ROOT_PASSWORD))
    else:
        failure(lambda: answer(tls, Trust(), uri=tls.uri.replace("grpc+tls://", "grpc://")))
    failure(lambda: answer(server, Trust(ours), uri=server.uri.replace("grpc://", "grpc+tls://")))
    assert answer(tls, Trust(ours)) == 42
    with root(server) as db:
        assert db.query(ANSWER).num_rows == 1


def test_jdbc_trusts_by_a_trust_store(tls, ours, tmp_path):
    start_java()
    java = jpype.java
    store = java.security.KeyStore.getInstance("PKCS12")
    store.load(None, None)
    read = java.io.FileInputStream(str(ours / "ca.pem"))
    store.setCertificateEntry("ca", java.security.cert.CertificateFactory.getInstance("X.509").generateCertificate(read))
    file = tmp_path / "trust.p12"
    out = java.io.FileOutputStream(str(file))
    store.store(out, jpype.JString("changeit").toCharArray())
    out.close()
    url = tls.uri.replace("grpc+tls://", "jdbc:arrow-flight-sql://") + "/?useEncryption=true"
    assert jdbc_answer(f"{url}&useSystemTrustStore=false&trustStore={file}&trustStorePassword=changeit", ROOT_PASSWORD) == 42


def test_the_package_says_which_files_go_together(tls, ours):
    with pytest.raises(ValueError, match="tls_cert and tls_key"):
        seracdb.connect(tls.uri, "root", ROOT_PASSWORD, tls_ca=ours / "ca.pem", tls_cert=ours / "client.pem")
    with pytest.raises(ValueError, match=r"grpc\+tls"):
        seracdb.connect("grpc://127.0.0.1:1", "root", "x", tls_ca=ours / "ca.pem")


def test_the_shell_says_what_is_wrong(tls, server, ours, tmp_path):
    unknown = failure(lambda: by_shell(tls.uri, Trust(), ROOT_PASSWORD))
    assert "UnknownIssuer" in unknown, unknown
    (tmp_path / "ca.pem").write_text("no certificate")
    assert f"{tmp_path}/ca.pem holds no PEM" in failure(lambda: by_shell(tls.uri, Trust(tmp_path), ROOT_PASSWORD))
    assert "use grpc+tls://" in failure(lambda: by_shell(server.uri, Trust(ours), ROOT_PASSWORD))


# The connection itself.


def handshake(server: Server, trust: Path, **settings) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(trust / "ca.pem"))
    context.set_alpn_protocols(settings.pop("alpn", ["h2"]))
    for name, value in settings.items():
        setattr(context, name, value)
    host, port = server.uri.rpartition("//")[2].split(":")
    return context.wrap_socket(socket.create_connection((host, int(port)), timeout=FAST_SECONDS), server_hostname=host)


def certificate(server: Server, trust: Path) -> bytes | None:
    """The one that a new connection gets; `None` when `trust` does not know it."""
    try:
        with handshake(server, trust) as connection:
            return connection.getpeercert(binary_form=True)
    except ssl.SSLError:
        return None


def test_versions_and_protocols(tls, ours):
    version = ssl.TLSVersion
    for wanted, said in {version.TLSv1_2: "TLSv1.2", version.TLSv1_3: "TLSv1.3"}.items():
        with handshake(tls, ours, minimum_version=wanted, maximum_version=wanted) as connection:
            assert connection.version() == said
            assert connection.selected_alpn_protocol() == "h2"
    with pytest.raises(ssl.SSLError), pytest.warns(DeprecationWarning):
        handshake(tls, ours, minimum_version=version.TLSv1, maximum_version=version.TLSv1_1)
    with pytest.raises(ssl.SSLError):
        handshake(tls, ours, alpn=["http/1.1"])


def test_a_new_certificate_is_for_new_connections(tmp_path):
    folder, old = make_certificates(tmp_path / "tls"), tmp_path / "old"
    old.mkdir()
    (old / "ca.pem").write_bytes((folder / "ca.pem").read_bytes())
    with Server(tmp_path / "data", args=tls_args(folder)) as server:
        before = certificate(server, old)
        assert before
        with seracdb.connect(server.uri, "root", ROOT_PASSWORD, tls_ca=old / "ca.pem") as db:
            db.query(ANSWER)
            make_certificates(folder, "--force")
            wait_until(lambda: certificate(server, folder) is not None, 20)
            assert certificate(server, old) is None
            # It goes on with the old one.
            assert db.query(ANSWER).num_rows == 1
        good = certificate(server, folder)
        # What cannot be used changes nothing, and is said once.
        (folder / "server.pem").write_text("-----BEGIN CERTIFICATE-----\nbroken\n")
        wait_until(lambda: "the old one stays" in server.log(), 20)
        time.sleep(2.5)  # in which it looks at the files again
        assert server.log().count("the old one stays") == 1
        assert f"{folder}/server.pem" in server.log()
        assert certificate(server, folder) == good
        # Half of a new pair is no pair.
        other = make_certificates(tmp_path / "other")
        (folder / "server.pem").write_bytes((other / "server.pem").read_bytes())
        wait_until(lambda: server.log().count("the old one stays") == 2, 20)
        assert "not the key of the certificate" in server.log()
        assert certificate(server, folder) == good
        (folder / "server.key").write_bytes((other / "server.key").read_bytes())
        wait_until(lambda: certificate(server, other) is not None, 20)
        # Asked to, it reads what has not changed.
        taken = server.log().count("as it is in its files now")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.log().count("as it is in its files now") == taken + 1, 20)
        with seracdb.connect(server.uri, "root", ROOT_PASSWORD, tls_ca=other / "ca.pem") as db:
            assert db.query(ANSWER).num_rows == 1
        assert server.stop() == 0


def test_a_new_ca_of_clients_is_for_new_connections(tmp_path, ours, theirs):
    clients = tmp_path / "clients"
    clients.mkdir()
    (clients / "ca.pem").write_bytes((ours / "ca.pem").read_bytes())
    with Server(tmp_path / "data", args=tls_args(ours, clients_of=clients)) as server:

        def gets_in(shown: Path) -> bool:
            try:
                return by_package(server.uri, Trust(ours, shown), ROOT_PASSWORD) == 42
            except seracdb.Error:
                return False

        assert gets_in(ours) and not gets_in(theirs)
        (clients / "ca.pem").write_bytes((theirs / "ca.pem").read_bytes())
        wait_until(lambda: gets_in(theirs), 30)
        assert not gets_in(ours)


# Starting.


def refusal(server: Server) -> str:
    """What a server says that does not start; it has touched nothing."""
    process = server.spawn()
    assert process.wait(60) != 0
    process.stdout.close()
    assert not server.data_dir.exists()
    return server.log()


def test_files_that_cannot_be_used_are_named_at_start(tmp_path, ours, theirs):
    nothing, text = tmp_path / "nothing.pem", tmp_path / "text.pem"
    text.write_text("no PEM")
    cert, key = str(ours / "server.pem"), str(ours / "server.key")
    for place, (args, *expected) in enumerate(
        [
            (["--tls-cert", str(nothing), "--tls-key", key], "server.tls.cert_file", nothing, "cannot read it"),
            (["--tls-cert", cert, "--tls-key", str(text)], "server.tls.key_file", text, "BEGIN PRIVATE KEY"),
            (["--tls-cert", str(text), "--tls-key", key], "server.tls.cert_file", text, "BEGIN CERTIFICATE"),
            (["--tls-cert", cert, "--tls-key", str(theirs / "server.key")], "not the key of the certificate", cert),
            (["--tls-cert", cert], "server.tls.key_file", "--tls-key"),
            (["--tls-client-ca", cert], "server.tls.client_ca_file", "server.tls.cert_file"),
            (["--tls-cert", cert, "--tls-key", key, "--tls-client-ca", key], "server.tls.client_ca_file", key),
        ]
    ):
        said = refusal(Server(tmp_path / f"data{place}", args=args))
        assert all(str(part) in said for part in expected), said


def test_a_key_that_everybody_can_read_is_a_warning(tmp_path):
    folder = make_certificates(tmp_path / "tls")
    (folder / "server.key").chmod(0o644)
    with Server(tmp_path / "data", args=tls_args(folder)) as server:
        assert f"{folder}/server.key can be read by every user" in server.log()


def test_without_tls_nobody_else_gets_there_unless_somebody_said_so(tmp_path, ours):
    everywhere = ["--listen", "0.0.0.0:0"]
    said = refusal(Server(tmp_path / "refused", args=everywhere))
    assert "--insecure" in said and "--tls-cert" in said and "0.0.0.0:0" in said
    for place, (args, variables) in enumerate(
        [
            ([*everywhere, "--insecure"], {}),
            (everywhere, {"SERACDB_SERVER__INSECURE": "true"}),
            ([*everywhere, *tls_args(ours)], {}),
            (["--listen", "[::1]:0"], {}),
        ]
    ):
        with Server(tmp_path / f"data{place}", args=args, variables=variables) as server:
            uri = server.uri.replace("0.0.0.0", "127.0.0.1")
            trust = Trust(ours) if "--tls-cert" in args else Trust()
            assert by_package(uri, trust, ROOT_PASSWORD) == 42


# Making certificates.


def test_certificates_for_trying_out(tmp_path):
    folder = tmp_path / "new"

    def make(*more: str) -> subprocess.CompletedProcess:
        command = [binary(), "tls", "self-signed", "--dir", str(folder), *more]
        return subprocess.run(command, capture_output=True, text=True)

    made = make("--host", "db.example", "--days", "3")
    assert made.returncode == 0, made.stderr
    names = {"ca.pem", "server.pem", "server.key", "client.pem", "client.key"}
    assert {file.name for file in folder.iterdir()} == names
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in folder.glob("*.key"))
    before = (folder / "server.pem").read_bytes()
    again = make()
    assert again.returncode != 0 and "--force" in again.stderr
    assert (folder / "server.pem").read_bytes() == before
    # What it says works as it is.
    lines = [line.strip() for line in made.stdout.splitlines()]
    serve = next(line for line in lines if line.startswith("seracdb serve ")).split()[2:]
    require = next(line for line in lines if line.startswith("--tls-client-ca")).split()
    shell = next(line for line in lines if line.startswith("seracdb sql ")).split()[1:]
    shown = next(line for line in lines if line.startswith("--tls-cert ")).split()
    package = next(line for line in lines if line.startswith("seracdb.connect"))
    url = next(line for line in lines if line.startswith("jdbc:"))
    with Server(tmp_path / "data", args=[*serve, *require]) as server:
        command = [binary(), *shell, *shown, "-c", ANSWER]
        command[command.index("--uri") + 1] = server.uri
        done = subprocess.run(command, env={"SERACDB_PASSWORD": ROOT_PASSWORD}, capture_output=True, text=True)
        assert "42" in done.stdout, done.stderr
        # It is also valid for the name that it was given, and not for another.
        for name, works in {"db.example": True, "other.example": False}.items():
            named = subprocess.run(
                [*command, "--tls-server-name", name],
                env={"SERACDB_PASSWORD": ROOT_PASSWORD},
                capture_output=True,
                text=True,
            )
            assert (named.returncode == 0) is works, named.stderr
    with Server(tmp_path / "plain", args=serve) as server:
        there = package.replace("grpc+tls://127.0.0.1:50051", server.uri).replace('"…"', repr(ROOT_PASSWORD))
        with eval(there) as db:
            assert db.query(ANSWER)["answer"].to_pylist() == [42]
        host = server.uri.removeprefix("grpc+tls://")
        assert jdbc_answer(url.replace("127.0.0.1:50051", host), ROOT_PASSWORD) == 42
    assert make("--force").returncode == 0
    assert (folder / "server.pem").read_bytes() != before
