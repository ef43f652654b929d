"""Where to connect and as whom: arguments, then the URI, then the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

DEFAULT_URI = "grpc://127.0.0.1:50051"
DEFAULT_PORT = 50051
_SCHEMES = ("grpc", "grpc+tcp", "grpc+tls")


@dataclass(frozen=True)
class Address:
    """What a connection needs to know."""

    #: As the driver takes it: no user, no namespace.
    uri: str
    user: str | None
    password: str | None = field(repr=False)
    namespace: str | None


def resolve(
    uri: str | None = None, user: str | None = None, password: str | None = None, namespace: str | None = None
) -> Address:
    """`uri`: `grpc://[user[:password]@]host[:port][/namespace]`, percent-encoded; `grpc+tls://` for TLS."""
    parts = urlsplit(uri or os.environ.get("SERACDB_URI") or DEFAULT_URI)
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.query or parts.fragment:
        # The text may hold a password: it is not repeated.
        raise ValueError("no address: grpc://[user[:password]@]host[:port][/namespace], or the same with grpc+tls://")
    host = parts.netloc.rpartition("@")[2]
    if parts.port is None:
        host = f"{host.rstrip(':')}:{DEFAULT_PORT}"
    return Address(
        uri=f"{parts.scheme}://{host}",
        user=_first(user, parts.username, "SERACDB_USER"),
        password=_first(password, parts.password, "SERACDB_PASSWORD"),
        namespace=namespace or unquote(parts.path.strip("/")) or None,
    )


def _first(argument: str | None, in_uri: str | None, variable: str) -> str | None:
    if argument is not None:
        return argument
    if in_uri is not None:
        return unquote(in_uri)
    return os.environ.get(variable)
