"""Just enough protobuf to speak Flight SQL by hand: length-delimited fields, varints, `Any`."""

from __future__ import annotations

from collections.abc import Iterator

PREFIX = "type.googleapis.com/arrow.flight.protocol.sql."
#: Bytes of the values of these wire types.
FIXED_BYTES = {1: 8, 5: 4}


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


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message in their order, repeated ones as often as they are there."""
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        if key & 7 == 0:
            value, at = read_varint(data, at)
            yield key >> 3, value
            continue
        if key & 7 == 2:
            length, at = read_varint(data, at)
        elif key & 7 in FIXED_BYTES:
            length = FIXED_BYTES[key & 7]
        else:
            raise ValueError(f"wire type {key & 7}")
        yield key >> 3, data[at : at + length]
        at += length


def parse(data: bytes) -> dict[int, int | bytes]:
    """Fields of a message by number; the last one of each wins, as protobuf says."""
    return dict(fields(data))


def unpack(data: bytes) -> tuple[str, dict[int, int | bytes]]:
    """The name and the fields of a message in `Any`."""
    any_ = parse(data)
    return bytes(any_[1]).decode().removeprefix(PREFIX), parse(bytes(any_.get(2, b"")))
