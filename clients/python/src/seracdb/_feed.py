"""What `ingest` takes, as batches for the driver."""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import pyarrow
import pyarrow.dataset

#: Called with the rows and bytes that went to the server so far.
Progress: TypeAlias = Callable[[int, int], object]

# The driver sends each batch as one message, and refuses more than 16 MiB.
BATCH_BYTES = 4 << 20
# With progress: a bar that jumps once is none.
STEP_ROWS = 64 * 1024


class Feed:
    """Batches on their way to the driver: cut to size, counted, and with the exception that ended them."""

    def __init__(self, data: Any, progress: Progress | None = None):
        self.source = reader_of(data)
        self.progress = progress
        self.failure: BaseException | None = None

    def reader(self) -> pyarrow.RecordBatchReader:
        """The batches; can be read once."""
        return pyarrow.RecordBatchReader.from_batches(self.source.schema, self._batches())

    def _batches(self) -> Iterator[pyarrow.RecordBatch]:
        rows = size = 0
        try:
            for batch in self.source:
                for piece in self._pieces(batch):
                    yield piece
                    rows, size = rows + piece.num_rows, size + piece.nbytes
                    if self.progress:
                        self.progress(rows, size)
            if rows == 0:
                # The driver names the table with the first batch: without one the server would learn nothing.
                yield _no_rows(self.source.schema)
        except GeneratorExit:
            # The driver wants no more: it has its own reason.
            raise
        except BaseException as error:
            # The driver only passes its text on; the caller wants the exception.
            self.failure = error
            raise

    def _pieces(self, batch: pyarrow.RecordBatch) -> Iterator[pyarrow.RecordBatch]:
        row_bytes = batch.nbytes // max(batch.num_rows, 1) or 1
        step = max(BATCH_BYTES // row_bytes, 1)
        if self.progress:
            step = min(step, STEP_ROWS)
        return (batch.slice(start, step) for start in range(0, batch.num_rows, step))


def _no_rows(schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    return pyarrow.record_batch([pyarrow.array([], field.type) for field in schema], schema=schema)


def reader_of(data: Any) -> pyarrow.RecordBatchReader:
    """Batches of a frame, of Arrow data, or of an iterable of those."""
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas and isinstance(data, pandas.DataFrame):
        # The index is no column: `reset_index()` makes it one.
        data = pyarrow.Table.from_pandas(data, preserve_index=False).replace_schema_metadata(None)
    elif polars and isinstance(data, polars.LazyFrame):
        data = data.collect()
    elif isinstance(data, pyarrow.dataset.Dataset):
        data = data.scanner()
    if isinstance(data, pyarrow.RecordBatchReader):
        return data
    if isinstance(data, (pyarrow.Table, pyarrow.dataset.Scanner)):
        return data.to_reader()
    if hasattr(data, "__arrow_c_stream__"):
        return pyarrow.RecordBatchReader.from_stream(data)
    if hasattr(data, "__arrow_c_array__"):
        return pyarrow.Table.from_batches([pyarrow.record_batch(data)]).to_reader()
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes, dict)):
        return _joined(data)
    raise TypeError(f"cannot ingest {type(data).__name__}: give a frame, Arrow data, or an iterable of those")


def _joined(parts: Iterable[Any]) -> pyarrow.RecordBatchReader:
    """The batches of all parts. Names and types are the first part's; later ones are cast to them."""
    remaining = iter(parts)
    first = next(remaining, None)
    if first is None:
        raise ValueError("cannot ingest an empty iterable: nothing says which columns there are")
    head = reader_of(first)
    schema = head.schema

    def batches() -> Iterator[pyarrow.RecordBatch]:
        for part in itertools.chain([head], remaining):
            for batch in reader_of(part):
                yield batch if batch.schema.equals(schema) else batch.select(schema.names).cast(schema)

    return pyarrow.RecordBatchReader.from_batches(schema, batches())


def row_count(data: Any) -> int | None:
    """The number of rows, where it is known before they are read."""
    if isinstance(data, (pyarrow.Table, pyarrow.RecordBatch)):
        return data.num_rows
    shape = getattr(data, "shape", None)
    return shape[0] if shape else None


def progress_bar(table: str, total: int | None) -> tuple[Progress, Callable[[], object]] | None:
    """tqdm's bar and what closes it; `None` with a warning when tqdm is not installed."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        warnings.warn("no progress bar: pip install 'seracdb[progress]'", stacklevel=3)
        return None
    bar = tqdm(total=total, desc=table, unit=" rows", unit_scale=True)

    def show(rows: int, size: int) -> None:
        bar.set_postfix_str(f"{size / 1e6:.1f} MB", refresh=False)
        bar.update(rows - bar.n)

    return show, bar.close
