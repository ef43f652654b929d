"""Fixtures: a shared server for tests that only speak SQL, servers of their own for tests that stop them."""

from __future__ import annotations

import itertools
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import boto3
import pytest
import seracdb
from moto.server import ThreadedMotoServer
from object_stores import Bucket, Folder
from testserver import ROOT_PASSWORD, Server

BUCKET = "frozen"
T = TypeVar("T")

_names = itertools.count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    """One running server for the whole session. Do not stop it; use a `namespace` of your own."""
    with Server(tmp_path_factory.mktemp("shared") / "data") as running:
        yield running
        assert running.process.poll() is None, f"the server died:\n{running.log()[-4000:]}"


@pytest.fixture
def own_server(tmp_path) -> Iterator[Server]:
    """A running server that the test may stop, kill and start again."""
    with Server(tmp_path / "data") as running:
        yield running


@pytest.fixture
def connect(server) -> Iterator[Callable[..., seracdb.Connection]]:
    """Opens connections to the shared server and closes them after the test."""
    with Connections(server) as connections:
        yield connections.open


@pytest.fixture
def db(connect) -> seracdb.Connection:
    """A connection of root to the shared server."""
    return connect()


@pytest.fixture
def namespace(db) -> str:
    """A fresh namespace on the shared server."""
    name = f"ns{next(_names)}"
    db.run(f"CREATE NAMESPACE {name}")
    return name


@pytest.fixture
def s3(monkeypatch):
    """An S3 server with an empty bucket; its address is in the environment that servers inherit."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    for name, value in {
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
    client.create_bucket(Bucket=BUCKET)
    yield client
    # What it holds belongs to the process, not to this server.
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST"), timeout=30).close()
    moto.stop()


@pytest.fixture(params=["bucket", "folder"])
def shared(request, tmp_path) -> Bucket | Folder:
    """An object store that two data directories could use."""
    if request.param == "folder":
        return Folder(tmp_path / "shared")
    return Bucket(request.getfixturevalue("s3"), BUCKET)


class Connections:
    """Connections to one server, closed together."""

    def __init__(self, server: Server):
        self.server = server
        self.opened: list[seracdb.Connection] = []

    def open(self, user: str = "root", password: str = ROOT_PASSWORD) -> seracdb.Connection:
        connection = seracdb.connect(self.server.uri, user, password)
        self.opened.append(connection)
        return connection

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *_) -> None:
        for connection in self.opened:
            connection.close()


def root(server: Server) -> seracdb.Connection:
    """A connection of root to `server`; the caller closes it."""
    return seracdb.connect(server.uri, "root", ROOT_PASSWORD)


def two_at_a_time(work: Callable[[T], object], items: Iterable[T]) -> None:
    """Does the work for each item: one client that waits for each answer leaves a core idle."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, items))
