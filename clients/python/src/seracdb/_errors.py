"""Errors by what went wrong: ADBC's DB-API exceptions, one class for each kind that a caller may want to tell apart."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pyarrow
from adbc_driver_manager import AdbcStatusCode, dbapi

_Class = TypeVar("_Class", bound=type)


class NotFound(dbapi.ProgrammingError):
    """A table, namespace or other thing that is not there, or not for this user."""


class AlreadyExists(dbapi.ProgrammingError):
    """What is to be created is there already."""


class InvalidArgument(dbapi.ProgrammingError):
    """A statement or a value that the server cannot take: syntax, types, NULL where there must be none."""


class PermissionDenied(dbapi.ProgrammingError):
    """The user may not do that."""


class Unauthenticated(dbapi.ProgrammingError):
    """A wrong user name or password, or a session that has ended."""


class Conflict(dbapi.OperationalError):
    """Another commit changed the same row first. The transaction is rolled back: run it again, from its start."""


class ResourceExhausted(dbapi.OperationalError):
    """A limit of the server, such as memory, statements at a time or the size of a message."""


class Unavailable(dbapi.OperationalError):
    """Nobody answers there, or the connection broke."""


class Timeout(dbapi.OperationalError):
    """No answer in time. Whether a write happened is not known: look before you send it again."""


# gRPC code → (class, ADBC's status where only the text says the code)
_KINDS: dict[str, tuple[type[dbapi.Error], AdbcStatusCode]] = {
    "NotFound": (NotFound, AdbcStatusCode.NOT_FOUND),
    "AlreadyExists": (AlreadyExists, AdbcStatusCode.ALREADY_EXISTS),
    "InvalidArgument": (InvalidArgument, AdbcStatusCode.INVALID_ARGUMENT),
    "PermissionDenied": (PermissionDenied, AdbcStatusCode.UNAUTHORIZED),
    "Unauthenticated": (Unauthenticated, AdbcStatusCode.UNAUTHENTICATED),
    "Aborted": (Conflict, AdbcStatusCode.UNKNOWN),
    "ResourceExhausted": (ResourceExhausted, AdbcStatusCode.INTERNAL),
    "Unavailable": (Unavailable, AdbcStatusCode.IO),
    "DeadlineExceeded": (Timeout, AdbcStatusCode.TIMEOUT),
}
# "NOT_FOUND: [FlightSQL] unknown table 't' (NotFound; Prepare)". ADBC has no status for ABORTED and RESOURCE_EXHAUSTED:
# the code at the end is all that tells them apart.
_SAID = re.compile(r"\[FlightSQL\] .* \((?P<code>[A-Z]\w+); [^;]*$", re.S)


def typed(error: Exception) -> dbapi.Error | None:
    """The error of this package for one of the driver's; `None` when there is no closer one."""
    said = _SAID.search(str(error))
    kind = _KINDS.get(said["code"]) if said else None
    if said is None or kind is None or isinstance(error, kind[0]):
        return None
    made, status = kind
    result = made(
        str(error),
        status_code=getattr(error, "status_code", status),
        vendor_code=getattr(error, "vendor_code", None),
        sqlstate=getattr(error, "sqlstate", None),
        details=getattr(error, "details", None),
    )
    return result.with_traceback(error.__traceback__)


@contextmanager
def typed_errors() -> Iterator[None]:
    """Within it the driver's errors become those of this package."""
    try:
        yield
    # Where a result is read through pyarrow alone, the server's error arrives as one of pyarrow's.
    except (dbapi.Error, pyarrow.ArrowException, OSError) as error:
        closer = typed(error)
        if closer is None:
            raise
        raise closer from None


def raises_typed_errors(cls: _Class) -> _Class:
    """Class decorator: what `cls` inherits from the driver raises this package's errors."""
    for base in cls.__mro__:
        for name, member in vars(base).items() if base.__module__ == dbapi.__name__ else ():
            if callable(member) and not name.startswith("_") and not isinstance(member, type) and name not in vars(cls):
                setattr(cls, name, _typed_method(member))
    return cls


def _typed_method(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with typed_errors():
            return method(*args, **kwargs)

    return call
