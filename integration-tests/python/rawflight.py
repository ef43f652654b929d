"""Flight SQL without a driver: logins, statements, results message by message."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow.flight as flight
from testserver import ROOT_PASSWORD, Server
from wire import field, packed


def statement(sql: str) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_command(packed("CommandStatementQuery", field(1, sql)))


class Client:
    """A logged-in connection."""

    def __init__(self, connection: flight.FlightClient):
        self.connection = connection
        self.headers = [connection.authenticate_basic_token("root", ROOT_PASSWORD)]
        self.options = flight.FlightCallOptions(headers=self.headers)

    def start(self, sql: str) -> flight.FlightStreamReader:
        """Starts a query; what is read from the result is up to the caller."""
        info = self.connection.get_flight_info(statement(sql), self.options)
        return self.connection.do_get(info.endpoints[0].ticket, self.options)


@contextmanager
def client(server: Server, own: bool = False) -> Iterator[Client]:
    """`own`: on a connection that no other client of this process shares."""
    options = [("grpc.use_local_subchannel_pool", 1)] if own else []
    with flight.FlightClient(server.uri, generic_options=options) as connection:
        yield Client(connection)


def basic(user: str, password: str) -> bytes:
    """The value of a header by which a call needs no login."""
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())
