"""The connection: ADBC's, with shortcuts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import adbc_driver_flightsql
import adbc_driver_manager
import pyarrow
from adbc_driver_flightsql import DatabaseOptions
from adbc_driver_manager import dbapi

from ._address import resolve
from ._errors import NotFound, raises_typed_errors, typed_errors
from ._feed import Feed, Progress, progress_bar, row_count
from ._tls import tls_options

if TYPE_CHECKING:
    import pandas
    import polars

#: What `ingest` does with a table that is or is not there.
IngestMode: TypeAlias = Literal["append", "create", "replace", "create_append"]
#: A pandas or polars frame, pyarrow's tables, batches, readers and datasets, anything with `__arrow_c_stream__`
#: (DuckDB), and iterables of those.
ArrowData: TypeAlias = Any
#: One value per `?`, or Arrow data with one row.
Parameters: TypeAlias = Sequence[Any] | pyarrow.RecordBatch | pyarrow.Table

# Bytes of a message; a single wide row can be larger than the driver's default of 16 MiB.
_MESSAGE_BYTES_MAX = 256 << 20


@raises_typed_errors
class Cursor(dbapi.Cursor):
    """A DB-API 2.0 cursor. Made by `Connection.cursor`."""

    def fetch_polars(self) -> polars.DataFrame:
        """All rows as a polars DataFrame."""
        # polars would read the driver's stream by itself, and make errors of its own of the server's.
        return _to_polars(self.fetch_arrow_table())

    def fetch_record_batch(self) -> pyarrow.RecordBatchReader:
        """The rows batch by batch."""
        reader = super().fetch_record_batch()
        return pyarrow.RecordBatchReader.from_batches(reader.schema, _typed_batches(reader))


@raises_typed_errors
class Connection(dbapi.Connection):
    """A DB-API 2.0 connection to SeracDB. Made by `connect`; not to be shared between threads."""

    #: How many `transaction()` are open within each other.
    _depth = 0

    def cursor(self, *, adbc_stmt_kwargs: Mapping[str, Any] | None = None) -> Cursor:
        """A cursor, whose statements may be used one after another."""
        with typed_errors():
            cursor = super().cursor(adbc_stmt_kwargs=adbc_stmt_kwargs)
        # The driver's manager makes its own class and has no way to say another.
        cursor.__class__ = Cursor
        return cast(Cursor, cursor)

    def adbc_clone(self) -> Connection:
        """Another session of the same user."""
        clone = super().adbc_clone()
        clone.__class__ = Connection
        return cast(Connection, clone)

    def query(self, sql: str, params: Parameters | None = None) -> pyarrow.Table:
        """Runs a query and returns its whole result."""
        with self.cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetch_arrow_table()

    def query_df(self, sql: str, params: Parameters | None = None) -> pandas.DataFrame:
        """Runs a query and returns its whole result as a pandas DataFrame."""
        return self.query(sql, params).to_pandas()

    def query_pl(self, sql: str, params: Parameters | None = None) -> polars.DataFrame:
        """Runs a query and returns its whole result as a polars DataFrame."""
        return _to_polars(self.query(sql, params))

    def stream(self, sql: str, params: Parameters | None = None) -> pyarrow.RecordBatchReader:
        """Runs a query and returns its batches as they come: iterate, or hand the reader on.

        Dropping the reader before its end stops the query.
        """
        cursor = self.cursor()
        try:
            cursor.execute(sql, params)
            reader = cursor.fetch_record_batch()
        except BaseException:
            cursor.close()
            raise
        return pyarrow.RecordBatchReader.from_batches(reader.schema, _closing(cursor, reader))

    def run(self, sql: str, params: Parameters | None = None) -> int:
        """Runs a statement that returns no rows; returns the number of rows it changed.

        Given an Arrow table or batch as `params`, the statement runs once for each row, all in one commit.
        """
        with self.cursor() as cursor:
            cursor.executemany(sql, _one_row(params))
            return cursor.rowcount

    def ingest(
        self, table: str, data: ArrowData, mode: IngestMode = "append", *, progress: bool | Progress = False
    ) -> int:
        """Loads frames or Arrow data into `table` ("name" or "namespace.name") and returns the number of rows.

        This is the fastest way in. Columns are matched by name. Loads either wholly or not at all, also when it is an
        iterable that raises. `progress`: a bar by tqdm, or a function that is called with the rows and bytes sent.
        """
        bar = progress_bar(table, row_count(data)) if progress is True else None
        feed = Feed(data, bar[0] if bar else progress if callable(progress) else None)
        namespace, _, name = table.rpartition(".")
        try:
            with self.cursor() as cursor:
                return cursor.adbc_ingest(name, feed.reader(), mode=mode, db_schema_name=namespace or None)
        except dbapi.Error:
            if feed.failure is not None:
                raise feed.failure from None
            raise
        finally:
            if bar:
                bar[1]()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All statements within it in one commit at its end; an exception rolls them back. Within another one it is a
        savepoint.

        Raises `Conflict` at its end when another commit changed a row first: all of it can be run again.
        """
        self._begin()
        self._depth += 1
        try:
            yield self
        except BaseException:
            self._depth -= 1
            # What went wrong is more telling than that there is nothing left to roll back.
            with suppress(dbapi.Error):
                self._undo()
            raise
        self._depth -= 1
        self._keep()

    def _begin(self) -> None:
        if self._depth:
            self.run(f"SAVEPOINT level_{self._depth}")
        elif self._autocommit:
            self.run("BEGIN")

    def _keep(self) -> None:
        if self._depth:
            self.run(f"RELEASE SAVEPOINT level_{self._depth}")
        elif self._autocommit:
            self.run("COMMIT")
        else:
            self.commit()

    def _undo(self) -> None:
        if self._depth:
            self.run(f"ROLLBACK TO SAVEPOINT level_{self._depth}")
        elif self._autocommit:
            self.run("ROLLBACK")
        else:
            self.rollback()


def connect(
    uri: str | None = None,
    user: str | None = None,
    password: str | None = None,
    *,
    namespace: str | None = None,
    autocommit: bool = True,
    options: Mapping[str, str] | None = None,
    tls_ca: str | PathLike[str] | None = None,
    tls_cert: str | PathLike[str] | None = None,
    tls_key: str | PathLike[str] | None = None,
    tls_server_name: str | None = None,
) -> Connection:
    """Connects and logs in.

    `uri`: `grpc://[user[:password]@]host[:port][/namespace]`, where the namespace is the one of names without one. What
    neither an argument nor the URI says is taken from SERACDB_URI, SERACDB_USER and SERACDB_PASSWORD.

    With `grpc+tls://` the server's certificate has to be of a CA that this machine trusts, or of the one in the file
    `tls_ca`. `tls_cert` and `tls_key` are the files of the certificate that a server may want from its clients,
    `tls_server_name` the name in the server's certificate when it is another than the one in the URI. All files are PEM.

    `options` are further options of the ADBC driver (see `adbc_driver_flightsql.DatabaseOptions`).
    With `autocommit=False` a transaction is open all the time, ended by `commit()` and `rollback()`, as DB-API 2.0 has
    it.
    """
    address = resolve(uri, user, password, namespace)
    tls = tls_options(address.uri, ca=tls_ca, cert=tls_cert, key=tls_key, server_name=tls_server_name)
    kwargs = {DatabaseOptions.WITH_MAX_MSG_SIZE.value: str(_MESSAGE_BYTES_MAX), **tls, **(options or {})}
    if address.user is not None:
        kwargs["username"] = address.user
    if address.password is not None:
        kwargs["password"] = address.password
    with typed_errors():
        return _open(address.uri, kwargs, address.namespace, autocommit)


def _open(uri: str, kwargs: Mapping[str, str], namespace: str | None, autocommit: bool) -> Connection:
    database = adbc_driver_flightsql.connect(uri, db_kwargs=dict(kwargs))
    connection = None
    try:
        connection = adbc_driver_manager.AdbcConnection(database)
        if namespace:
            _use(connection, namespace)
        return Connection(database, connection, autocommit=autocommit)
    except BaseException:
        if connection is not None:
            connection.close()
        database.close()
        raise


def _use(connection: adbc_driver_manager.AdbcConnection, namespace: str) -> None:
    key = adbc_driver_manager.ConnectionOptions.CURRENT_DB_SCHEMA.value
    try:
        connection.set_options(**{key: namespace})
    except dbapi.ProgrammingError as error:
        if error.status_code != adbc_driver_manager.AdbcStatusCode.INVALID_ARGUMENT:
            raise
        # The driver says "could not set option", and not what it is about.
        code = adbc_driver_manager.AdbcStatusCode.NOT_FOUND
        raise NotFound(f"unknown namespace '{namespace}'", status_code=code) from None


def _typed_batches(reader: pyarrow.RecordBatchReader) -> Iterator[pyarrow.RecordBatch]:
    with typed_errors():
        yield from reader


def _closing(cursor: Cursor, reader: pyarrow.RecordBatchReader) -> Iterator[pyarrow.RecordBatch]:
    with cursor:
        yield from reader


def _to_polars(table: pyarrow.Table) -> polars.DataFrame:
    import polars

    return cast("polars.DataFrame", polars.from_arrow(table))


def _one_row(params: Parameters | None) -> Any:
    """Arrow data as it is, a sequence of values as one row of them."""
    if params is None or hasattr(params, "__arrow_c_array__") or hasattr(params, "__arrow_c_stream__"):
        return params
    return [tuple(params)]
