"""Certificates, as the driver takes them."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from adbc_driver_flightsql import DatabaseOptions

_SCHEME = "grpc+tls://"


def tls_options(
    uri: str,
    *,
    ca: str | PathLike[str] | None = None,
    cert: str | PathLike[str] | None = None,
    key: str | PathLike[str] | None = None,
    server_name: str | None = None,
) -> dict[str, str]:
    """The driver's options for these files; an error where they would have no effect."""
    if (cert is None) != (key is None):
        raise ValueError("tls_cert and tls_key go together: give both files")
    options = {
        DatabaseOptions.TLS_ROOT_CERTS.value: _text(ca),
        DatabaseOptions.MTLS_CERT_CHAIN.value: _text(cert),
        DatabaseOptions.MTLS_PRIVATE_KEY.value: _text(key),
        DatabaseOptions.TLS_OVERRIDE_HOSTNAME.value: server_name,
    }
    given = {name: text for name, text in options.items() if text is not None}
    if given and not uri.startswith(_SCHEME):
        raise ValueError(f"certificates are for {_SCHEME} only, and the URI is another one")
    return given


def _text(file: str | PathLike[str] | None) -> str | None:
    return None if file is None else Path(file).read_text()
