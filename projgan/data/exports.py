"""Hugging Face's exports: parquet from the hub, Arrow files of `save_to_disk`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from projgan.data.image_source import Classes, ImageSource, readable
from projgan.data.labels import check_class
from projgan.errors import DataError

EXPORTS = (".parquet", ".arrow")


def find_exports(folder: Path, files: Sequence[str]) -> list[Path]:
    """Of one kind; the caches that the library leaves beside its Arrow files are no data."""
    for suffix in EXPORTS:
        found = [folder / name for name in files if name.endswith(suffix)]
        if found := [file for file in found if not file.name.startswith((".", "cache-"))]:
            return found
    return []


@dataclass(frozen=True)
class _Table:
    """One file of an export: its columns, how many rows, and one column in pieces."""

    schema: Any
    rows: int
    column: Callable[[str], Iterator[Any]]


def _table(file: Path) -> _Table:
    """A parquet file, or an Arrow file as `save_to_disk` writes it (a stream) or others do."""
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.ParquetFile(file)

        def of_parquet(name: str) -> Iterator[Any]:
            return (part.column(0) for part in table.iter_batches(batch_size=64, columns=[name]))

        return _Table(table.schema_arrow, table.metadata.num_rows, of_parquet)

    from pyarrow import ipc, memory_map

    def parts() -> tuple[Any, Iterator[Any]]:
        held = memory_map(str(file))
        if held.read(6) == b"ARROW1":
            whole = ipc.open_file(held)
            return whole.schema, (whole.get_batch(i) for i in range(whole.num_record_batches))
        held.seek(0)
        stream = ipc.open_stream(held)
        return stream.schema, iter(stream)

    def of_arrow(name: str) -> Iterator[Any]:
        return (part.column(name) for part in parts()[1])

    schema, batches = parts()
    return _Table(schema, sum(part.num_rows for part in batches), of_arrow)


def open_export(
    path: Path, files: list[Path], asked: str, passed: Counter[str] | None = None
) -> ImageSource:
    """Hugging Face's export: a column of images ({bytes, path} or bytes), perhaps one of labels."""
    kind = files[0].suffix.removeprefix(".")
    try:
        from pyarrow import types
    except ModuleNotFoundError:
        raise DataError(
            f"{asked} is {kind}: pip install 'projected-gan-bench[data]' to read it"
        ) from None
    with readable(asked):
        tables = [_table(file) for file in files]
    columns: dict[str, Any] = {field.name: field.type for field in tables[0].schema}

    def holds_images(kind: Any) -> bool:
        return types.is_binary(kind) or (
            types.is_struct(kind) and any(f.name == "bytes" for f in kind)
        )

    found = [name for name, kind in columns.items() if holds_images(kind)]
    if not found:
        raise DataError(f"{asked}: none of its columns ({', '.join(columns)}) holds images")
    column = next((name for name in ("image", "img") if name in found), found[0])
    names = [
        f"{file.relative_to(path.parent if path.is_file() else path).as_posix()}:{row}"
        for file, table in zip(files, tables, strict=True)
        for row in range(table.rows)
    ]

    def classes() -> Classes:
        label = next((n for n in ("label", "labels") if n in columns), None)
        if label is None:
            return Classes()
        if not types.is_integer(columns[label]):
            return Classes(note=f"column {label} holds {columns[label]} and no numbers of classes")
        with readable(asked):
            labels = [x for t in tables for part in t.column(label) for x in part.to_pylist()]
        if set(labels) <= {-1, None}:  # as Hugging Face marks what has none
            return Classes(note=f"column {label} gives no image a class")
        for name, given in zip(names, labels, strict=True):
            check_class(given, name, f"column {label}", asked)
        return Classes(labels, _classes_of_export(tables[0].schema, label))

    def walk(start: int) -> Iterator[bytes]:
        before = 0
        for table in tables:
            if before + table.rows <= start:
                before += table.rows
                continue
            for part in table.column(column):
                for value in part[max(0, start - before) :]:
                    held = value.as_py()
                    content = held["bytes"] if isinstance(held, dict) else held
                    yield content or b""
                before += len(part)

    return ImageSource(path, kind, names, walk, files, passed or Counter(), classes)


def _classes_of_export(schema: Any, label: str) -> tuple[str, ...]:
    """Names of the classes, which Hugging Face keeps in the file's metadata."""
    try:
        hub = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(hub["info"]["features"][label]["names"])
    except (KeyError, ValueError, TypeError):
        return ()
