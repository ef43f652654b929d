"""Just enough protobuf to speak Flight SQL by hand: length-delimited fields, varints, `Any`."""

from __future__ import annotations

PREFIX = "type.googleapis.com/arrow.flight.protocol.sql."


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: bytes | str | int | bool) -> bytes:
    """One field: a varint for integers and booleans, length-delimited for the rest."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def packed(name: str, *fields: bytes) -> bytes:
    """A Flight SQL message in `Any`."""
    return field(1, PREFIX + name) + field(2, b"".join(fields))


def parse(data: bytes) -> dict[int, int | bytes]:
    """Fields of a message by number; the last one of each wins, as protobuf says."""
    found: dict[int, int | bytes] = {}
    at = 0

    def read_varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(data):
        key = read_varint()
        kind = key & 7
        if kind == 0:
            found[key >> 3] = read_varint()
        elif kind == 2:
            length = read_varint()
            found[key >> 3] = data[at : at + length]
            at += length
        else:
            raise ValueError(f"wire type {kind}")
    return found


def unpack(data: bytes) -> tuple[str, dict[int, int | bytes]]:
    """The name and the fields of a message in `Any`."""
    any_ = parse(data)
    return bytes(any_[1]).decode().removeprefix(PREFIX), parse(bytes(any_.get(2, b"")))
