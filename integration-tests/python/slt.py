"""sqllogictest files for drivers in Python: a file's records, Arrow values as text, and whether an answer is right.

Reads the dialect that slt/*.slt is written in and compares as the Rust runner (integration-tests/tests/slt.rs) does, so
that the files mean the same to both. A directive that the files do not use is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa

#: What `skipif` and `onlyif` know the runner by, as in Rust.
ENGINE = "seracdb"
NANOS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


@dataclass(frozen=True)
class Record:
    """One statement or query and what it must answer. Of `count`, `error` and `rows` at most one is given."""

    line: int
    sql: str
    count: int | None = None
    error: str | None = None
    rows: list[str] | None = None
    rowsort: bool = False


@dataclass(frozen=True)
class Answer:
    """What a driver made of a record: rows as text, or a count of rows changed, or the message of an error."""

    rows: list[list[str]] | None = None
    count: int | None = None
    error: str | None = None


def records(path: Path, labels: frozenset[str] = frozenset()) -> Iterator[Record]:
    """The records of a file that apply to a runner with these labels."""
    # Not splitlines: to it more than the line feed ends a line.
    lines = iter(enumerate(path.read_text(encoding="utf-8").split("\n"), 1))
    applies = True
    for number, line in lines:
        match [] if line.startswith("#") else line.split():
            case []:
                pass
            case ["skipif", label]:
                applies &= label not in labels | {ENGINE}
            case ["onlyif", label]:
                applies &= label in labels | {ENGINE}
            case [("statement" | "query"), *_] as words:
                try:
                    record = _record(number, words, _block(line for _, line in lines))
                except ValueError as error:
                    raise ValueError(f"{path.name}:{number}: {error}") from error
                if applies:
                    yield record
                applies = True
            case _:
                raise ValueError(f"{path.name}:{number}: unknown: {line}")


def _block(lines: Iterator[str]) -> list[str]:
    """The lines up to the next empty one."""
    block = []
    for line in lines:
        if not line:
            break
        block.append(line)
    return block


def _record(number: int, words: list[str], block: list[str]) -> Record:
    results = block.index("----") if "----" in block else len(block)
    sql, rows = "\n".join(block[:results]), block[results + 1 :]
    if not sql or any("<slt:ignore>" in row for row in rows):
        raise ValueError("no SQL, or results that are not understood")
    match words:
        case ["query", types, *sort] if sort in ([], ["rowsort"]) and re.fullmatch("[TIRB]+", types):
            return Record(number, sql, rows=rows, rowsort=bool(sort))
        case ["statement", *_] if "----" in block:
            raise ValueError("a statement with results")
        case ["statement", "ok"]:
            return Record(number, sql)
        case ["statement", "count", count]:
            return Record(number, sql, count=int(count))
        case ["statement", "error", *message] if message:
            return Record(number, sql, error=" ".join(message))
    raise ValueError(f"unknown: {' '.join(words)}")


def wrong(record: Record, answer: Answer) -> str | None:
    """What is wrong with an answer, or None."""
    if record.error is not None:
        if answer.error is None:
            return f"no error, but {answer}"
        return None if re.search(record.error, answer.error) else f"the error is: {answer.error}"
    if answer.error is not None:
        return f"failed: {answer.error}"
    if record.count is not None:
        # A query among the statements counts its rows.
        count = answer.count if answer.rows is None else len(answer.rows)
        return None if count == record.count else f"the count is {count}"
    if record.rows is None:
        return None
    rows = [[value or "(empty)" for value in row] for row in answer.rows or []]
    rows = sorted(rows) if record.rowsort else rows
    got = [" ".join(normalized(value) for value in row) for row in rows]
    return None if got == [normalized(row) for row in record.rows] else "the rows are:\n" + "\n".join(got)


def normalized(text: str) -> str:
    """Runs of white space, line feeds too, are one space, and none at the ends."""
    return re.sub(r"[ \t\n\f\r]+", " ", text.strip())


def table_rows(table: pa.Table) -> list[list[str]]:
    """An Arrow table as Arrow's Rust crate displays it."""
    columns = [[text(value) for value in column] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def text(value: pa.Scalar) -> str:
    """One Arrow value as Arrow's Rust crate displays it."""
    kind = value.type
    if not value.is_valid:
        return "NULL"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return list_text([text(item) for item in value.values])
    if pa.types.is_struct(kind):
        return struct_text([(field.name, text(value[i])) for i, field in enumerate(kind)])
    if pa.types.is_timestamp(kind):
        return timestamp_text(value.value * NANOS[kind.unit]) + _zone(kind.tz)
    if pa.types.is_time(kind):
        return time_text(value.value * NANOS[kind.unit])
    if pa.types.is_date32(kind):
        return str(np.datetime64(value.value, "D"))
    if pa.types.is_interval(kind):
        return interval_text(*value.as_py())
    if pa.types.is_float32(kind):
        return float_text(np.float32(value.as_py()))
    return plain_text(value.as_py())


def plain_text(value: object) -> str:
    """A value whose Python type says all about it."""
    match value:
        case bool():
            return str(value).lower()
        case int() | str():
            return str(value)
        case float():
            return float_text(value)
        case Decimal():
            return format(value, "f")
        case bytes():
            return value.hex()
    raise TypeError(f"no text for {type(value)}")


def float_text(value: float | np.float32) -> str:
    """The shortest digits that read back as `value`; which exponents are written out depends on its width."""
    if not np.isfinite(value):
        return {"nan": "NaN"}.get(str(value), str(value))
    longest, smallest = (13, -6) if isinstance(value, np.float32) else (16, -5)
    sign, digits, exponent = Decimal(str(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    point = len(digits) + exponent
    minus, whole = "-" * sign, "".join(map(str, digits))
    if whole == "0":
        return f"{minus}0.0"
    if 0 < point <= longest:
        whole = whole.ljust(point, "0")
        return f"{minus}{whole[:point]}.{whole[point:] or 0}"
    if smallest < point <= 0:
        return f"{minus}0.{'0' * -point}{whole}"
    return f"{minus}{whole[0]}{'.' * (len(whole) > 1)}{whole[1:]}e{point - 1}"


def timestamp_text(nanos: int) -> str:
    """A time since 1970, without a zone."""
    seconds, rest = divmod(nanos, 10**9)
    # NumPy's has a year 0.
    return f"{np.datetime64(seconds, 's')}{_fraction(rest)}"


def _zone(name: str | None) -> str:
    if name not in (None, "UTC"):
        raise TypeError(f"no text for the time zone {name}")
    return "Z" if name else ""


def time_text(nanos: int) -> str:
    """A time of day."""
    seconds, rest = divmod(nanos, 10**9)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{_fraction(rest)}"


def _fraction(nanos: int) -> str:
    """Three, six or nine digits, as few as say it all."""
    digits = f"{nanos:09}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f".{digits}" if digits else ""


def interval_text(months: int, days: int, nanos: int) -> str:
    """The parts that are not zero."""
    parts = [f"{months} mons"] if months else []
    parts += [f"{days} days"] if days else []
    sign = "-" if nanos < 0 else ""
    seconds, rest = divmod(abs(nanos), 10**9)
    parts += [f"{sign}{seconds // 3600} hours"] if seconds >= 3600 else []
    parts += [f"{sign}{seconds // 60 % 60} mins"] if seconds // 60 % 60 else []
    parts += [f"{sign}{seconds % 60}.{rest:09} secs"] if seconds % 60 or rest else []
    return " ".join(parts) or "0 secs"


def list_text(items: list[str]) -> str:
    return f"[{', '.join(items)}]"


def struct_text(fields: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{name}: {value}" for name, value in fields) + "}"
