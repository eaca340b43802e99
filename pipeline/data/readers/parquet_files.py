"""Rows of .parquet files, through pyarrow where it is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pipeline.core.errors import UsageError
from pipeline.core.untrusted import Limit, refused, require_file
from pipeline.data.readers.tables import Rows

PARQUET = ".parquet"
_MOST = 10_000_000


def read_parquet(path: Path) -> Rows:
    """The rows of a file, numbered from 1. UsageError if pyarrow is not installed, or it cannot read the file."""
    require_file(path, Limit.TEXT)
    if find_spec("pyarrow") is None:
        raise UsageError(
            f"{path.name} needs the Python package pyarrow to be read, which is not installed.",
            "Run `pip install pyarrow`, or give the data as .jsonl or .csv.",
        )
    from pyarrow import parquet  # noqa: PLC0415  # optional

    with refused(f"{path.name} is not a Parquet file that can be read", "Write it again, or give .jsonl or .csv."):
        file = parquet.ParquetFile(path)
        rows = file.metadata.num_rows
        size = sum(file.metadata.row_group(place).total_byte_size for place in range(file.metadata.num_row_groups))
        if rows > _MOST or size > Limit.TEXT:
            raise UsageError(f"{path.name} has {rows:,} rows of {size:,} bytes in all.", "Give a part of it.")
        return list(enumerate(file.read().to_pylist(), start=1))
