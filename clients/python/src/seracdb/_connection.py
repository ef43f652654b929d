"""The connection: ADBC's, with shortcuts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import adbc_driver_flightsql
import adbc_driver_manager
import pyarrow
from adbc_driver_manager import dbapi

#: What `ingest` does with a table that is or is not there.
IngestMode: TypeAlias = Literal["append", "create", "replace", "create_append"]
#: Arrow data: pyarrow's, or anything with `__arrow_c_stream__` (polars, DuckDB, pandas).
ArrowData: TypeAlias = Any
#: One value per `?`, or Arrow data with one row.
Parameters: TypeAlias = Sequence[Any] | pyarrow.RecordBatch | pyarrow.Table


class Connection(dbapi.Connection):
    """A DB-API 2.0 connection to SeracDB. Made by `connect`; not to be shared between threads."""

    def query(self, sql: str, params: Parameters | None = None) -> pyarrow.Table:
        """Runs a query and returns its whole result."""
        with self.cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetch_arrow_table()

    def run(self, sql: str, params: Parameters | None = None) -> int:
        """Runs a statement that returns no rows; returns the number of rows it changed.

        Given an Arrow table or batch as `params`, the statement runs once for each row, all in one commit.
        """
        with self.cursor() as cursor:
            cursor.executemany(sql, _one_row(params))
            return cursor.rowcount

    def ingest(self, table: str, data: ArrowData, mode: IngestMode = "append") -> int:
        """Loads Arrow data into `table` ("name" or "namespace.name") and returns the number of rows.

        This is the fastest way in. Columns are matched by name. Loads either wholly or not at all.
        """
        namespace, _, name = table.rpartition(".")
        if isinstance(data, pyarrow.Table) and data.num_rows == 0:
            # The driver names the table with the first batch: without one the server would learn nothing.
            data = pyarrow.record_batch([pyarrow.array([], field.type) for field in data.schema], schema=data.schema)
        with self.cursor() as cursor:
            return cursor.adbc_ingest(name, data, mode=mode, db_schema_name=namespace or None)


def connect(
    uri: str = "grpc://127.0.0.1:50051",
    user: str | None = None,
    password: str | None = None,
    *,
    autocommit: bool = True,
    options: Mapping[str, str] | None = None,
) -> Connection:
    """Connects and logs in.

    `options` are further options of the ADBC driver (see `adbc_driver_flightsql.DatabaseOptions`).
    With `autocommit=False` a transaction is open all the time, ended by `commit()` and `rollback()`, as DB-API 2.0 has it.
    """
    kwargs = dict(options or {})
    if user is not None:
        kwargs["username"] = user
    if password is not None:
        kwargs["password"] = password
    database = adbc_driver_flightsql.connect(uri, db_kwargs=kwargs)
    connection = None
    try:
        connection = adbc_driver_manager.AdbcConnection(database)
        return Connection(database, connection, autocommit=autocommit)
    except BaseException:
        if connection is not None:
            connection.close()
        database.close()
        raise


def _one_row(params: Parameters | None) -> Any:
    """Arrow data as it is, a sequence of values as one row of them."""
    if params is None or hasattr(params, "__arrow_c_array__") or hasattr(params, "__arrow_c_stream__"):
        return params
    return [tuple(params)]
