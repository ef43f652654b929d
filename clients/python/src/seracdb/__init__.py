"""Python client of SeracDB: ADBC's Flight SQL driver with SeracDB's defaults and a few shortcuts.

`connect` returns a DB-API 2.0 connection; `Connection.query`, `Connection.run` and `Connection.ingest` speak Arrow.
Errors are ADBC's: `ProgrammingError` and its siblings, each with a `status_code`.
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

from ._connection import ArrowData, Connection, IngestMode, Parameters, connect

__all__ = [
    "AdbcStatusCode",
    "ArrowData",
    "Connection",
    "DataError",
    "DatabaseError",
    "Error",
    "IngestMode",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "Parameters",
    "ProgrammingError",
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
