"""Python client of SeracDB: ADBC's Flight SQL driver with SeracDB's defaults and a few shortcuts.

`connect` returns a DB-API 2.0 connection with shortcuts that speak Arrow, pandas and polars: `query`, `query_df`,
`query_pl`, `stream`, `run`, `ingest` and `transaction`. Errors are ADBC's, in closer classes: `NotFound`, `Conflict`, ….
"""

from adbc_driver_manager import AdbcStatusCode
from adbc_driver_manager.dbapi import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,
)

from ._connection import ArrowData, Connection, Cursor, IngestMode, Parameters, connect
from ._errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from ._feed import Progress

__all__ = [
    "AdbcStatusCode",
    "AlreadyExists",
    "ArrowData",
    "Conflict",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Error",
    "IngestMode",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "InvalidArgument",
    "NotFound",
    "NotSupportedError",
    "OperationalError",
    "Parameters",
    "PermissionDenied",
    "ProgrammingError",
    "Progress",
    "ResourceExhausted",
    "Timeout",
    "Unauthenticated",
    "Unavailable",
    "Warning",
    "apilevel",
    "connect",
    "paramstyle",
    "threadsafety",
]

#: DB-API 2.0.
apilevel = "2.0"
#: Threads may share the module, not a connection.
threadsafety = 1
#: Parameters are `?`; the server takes `$1` as well.
paramstyle = "qmark"
