"""Tables in memory: data frames, of which a column or several are what a model is to predict."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.untrusted import parse_json, printable, reading
from dist_relu.data.dataset import Dataset
from dist_relu.data.images import Encoded, decoded
from dist_relu.data.labels import check_classes, reads_as_number
from dist_relu.data.parts import Part, scaled
from dist_relu.data.tables import column_numbers, parquet
from dist_relu.errors import DataError

_FEW = 12
_WEIGHTS = "sample_weight"
"""The column of the weights of samples, as arrays in files are called that hold them."""


def from_frame(frame: Any, target: str | Sequence[str], *, classes: Sequence[str] | None = None) -> Dataset:
    """A data set of a frame of pandas or Polars, a table of pyarrow, or a `datasets.Dataset` of Hugging Face.

    target: the column to predict, or several. All others are features: numbers, lists of numbers that are all of one
    length, or a single column of images; but a column sample_weight has the weights of samples. Whole numbers are
    classes, numbers with a point are real targets, and text becomes classes, which have the names that occur, or
    `classes`, so that parts read one by one number them alike.

    Raises `DataError`, which names the columns, for text among the features, and for empty cells.
    """
    table = _arrow(frame)
    with reading("The frame", DataError, "a table"):
        part = labelled("The frame", table, [target] if isinstance(target, str) else list(map(str, target)))
    names = part.classes if classes is None else tuple(classes)
    return Dataset(scaled(part.x), part.labels, part.image_shape, names, part.weights)


def labelled(where: str, table: Any, targets: Sequence[str]) -> Part:
    """Features and targets in a table of pyarrow.  where: it is from, for messages.  Raises `DataError`."""
    check_has_rows(where, table)
    features = feature_names(where, table.schema, targets)
    x, image_shape = features_of(where, table, features)
    classes, weights = class_names(table.schema, targets), weights_of(where, table, targets)
    return Part(x, labels_of(where, table, targets), image_shape, classes, weights)


def check_has_rows(where: str, table: Any) -> None:
    """Raise `DataError` for a table without rows, of which columns have no types either."""
    if not table.num_rows:
        raise DataError(f"{where} has no rows.")


def feature_names(where: str, schema: Any, targets: Sequence[str]) -> list[str]:
    """All columns but targets and weights.  Raises `DataError` for targets that are none, and columns of no numbers."""
    names = list(schema.names)
    for target in targets:
        if target not in names:
            raise DataError(
                f"{where} has no column {printable(target)}; it has {_listed(names)}.{_hint(target, names)}"
            )
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise DataError(f"{where} has more than one column {printable(twice)}; give each a name of its own.")
    features = [name for name in names if name not in (*targets, _WEIGHTS)]
    if not features:
        raise DataError(f"{where} has no columns beside {_listed(targets)}; expected features to predict it from.")
    if is_of_images(schema, features):
        return features
    others = [name for name in features if not _is_of_numbers(schema.field(name).type)]
    if others:
        kinds = sorted({str(schema.field(name).type).split("<")[0] for name in others})
        raise DataError(
            f"{where}: column{'s' * (len(others) > 1)} {_listed(others)} hold{'s' * (len(others) == 1)} no numbers "
            f"(but {', '.join(kinds)}). Leave such columns out, or make numbers of them: for words, "
            f"pandas.get_dummies(frame, columns={others[:_FEW]}, dtype='float32') makes a column of 0 and 1 for each."
        )
    return features


def features_of(where: str, table: Any, names: Sequence[str]) -> tuple[Array, tuple[int, int, int] | None]:
    """Columns next to one another, (N, F), or the images in one, (N, height, width, channels); and their shape, if so.

    Only lists of bytes, and images, stay bytes: they are shades. Raises `DataError`.
    """
    if is_of_images(table.schema, names):
        images = _images(where, names[0], table.column(names[0]))
        return images, images.shape[1:]
    columns = [column_numbers(where, name, table.column(name), None).reshape(table.num_rows, -1) for name in names]
    dtype = np.result_type(*columns)
    if dtype == np.uint8 and not is_of_shades(table.schema, names):
        dtype = np.dtype(np.float32)
    return np.concatenate([column.astype(dtype, copy=False) for column in columns], axis=1), None


def is_of_images(schema: Any, names: Sequence[str]) -> bool:
    """Whether the features are a column of encoded images."""
    return len(names) == 1 and _is_image(schema.field(names[0]).type)


def is_of_shades(schema: Any, names: Sequence[str]) -> bool:
    """Whether the features are a list of bytes in a row, which are pixels; single bytes are numbers like others."""
    return len(names) == 1 and _value_type(schema.field(names[0]).type) is not None


def labels_of(where: str, table: Any, targets: Sequence[str]) -> Array:
    """Targets, (N,) or of several columns (N, T): numbers, or text.  Raises `DataError`."""
    columns = [_labels(where, target, table.column(target)) for target in targets]
    if len(columns) == 1:
        return columns[0]
    for target, column in zip(targets, columns, strict=True):
        if column.dtype == object:
            raise DataError(f"{where}: the target {target} is text; several targets must all be numbers.")
    return np.stack(columns, axis=1)


def weight_columns(schema: Any, targets: Sequence[str]) -> list[str]:
    """The name of the column of weights; none where there is no such column, or it is to be predicted."""
    return [_WEIGHTS] if _WEIGHTS in schema.names and _WEIGHTS not in targets else []


def weights_of(where: str, table: Any, targets: Sequence[str]) -> Array | None:
    """The weights of samples, (N,), where there is a column of them.  Raises `DataError`."""
    if not weight_columns(table.schema, targets):
        return None
    return column_numbers(where, _WEIGHTS, table.column(_WEIGHTS), None)


def class_names(schema: Any, targets: Sequence[str]) -> tuple[str, ...] | None:
    """The names of the classes that Hugging Face's libraries write into the schema, where they have."""
    if len(targets) > 1 or b"huggingface" not in (schema.metadata or {}):
        return None
    with reading("The schema", DataError, "one of Hugging Face"):
        feature: Any = parse_json(schema.metadata[b"huggingface"])
        for key in ("info", "features", targets[0]):
            feature = feature.get(key, {}) if isinstance(feature, dict) else {}
    names = feature.get("names") if isinstance(feature, dict) else None
    return check_classes(names) if isinstance(names, list) else None


def _arrow(frame: Any) -> Any:
    """A frame as a table of pyarrow."""
    parquet()
    import pyarrow as pa

    library = type(frame).__module__.partition(".")[0]
    with reading("The frame", DataError, "a table"):
        if library == "pandas" and hasattr(frame, "columns"):
            return pa.Table.from_pandas(frame, preserve_index=False)
        if library == "datasets" and hasattr(frame, "with_format") and hasattr(frame, "num_rows"):
            if isinstance(frame, dict):
                raise DataError(f"This is a DatasetDict of {_listed(list(frame))}; pass one of them.")
            return frame.with_format("arrow")[:]
        if hasattr(frame, "__arrow_c_stream__"):
            return pa.table(frame)
    raise TypeError(
        f"from_frame takes a frame of pandas or Polars, a table of pyarrow or a datasets.Dataset, not "
        f"{type(frame).__name__}. (A LazyFrame: pass frame.collect().)"
    )


def _labels(where: str, name: str, column: Any) -> Array:
    import pyarrow as pa

    kind = column.type
    if column.null_count:
        row = column.is_null().to_numpy().argmax()
        raise DataError(f"{where}: the target {name} is empty in row {row}, and in {column.null_count} rows in all.")
    if pa.types.is_dictionary(kind):
        kind, column = kind.value_type, column.cast(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        labels = np.array(column.to_pylist(), object)
        if (labels == "").any():
            raise DataError(f"{where}: the target {name} is empty in row {int(np.argmax(labels == ''))}.")
        return labels
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    return column_numbers(where, name, column, None)


def _images(where: str, name: str, column: Any) -> Array:
    """The images of a column as bytes, (N, height, width, channels)."""
    contents = [(cell or {}).get("bytes") or b"" for cell in column.to_pylist()]
    return decoded([Encoded(f"{where}: {name}[{row}]", partial(BytesIO, each)) for row, each in enumerate(contents)])


def _is_image(kind: Any) -> bool:
    """Whether cells hold encoded images, as Hugging Face's libraries keep them."""
    import pyarrow as pa

    return pa.types.is_struct(kind) and {kind.field(i).name for i in range(kind.num_fields)} == {"bytes", "path"}


def _value_type(kind: Any) -> Any:
    """What lists of this type hold; None for other types."""
    import pyarrow as pa

    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return kind.value_type if is_list else None


def _is_of_numbers(kind: Any) -> bool:
    import pyarrow as pa

    kind = _value_type(kind) or kind
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _listed(names: Sequence[str]) -> str:
    told = ", ".join(names[:_FEW]) or "none"
    return printable(f"{told}, ... ({len(names)} in all)" if len(names) > _FEW else told)


def _hint(target: str, names: Sequence[str]) -> str:
    if close := difflib.get_close_matches(target, names, 1):
        return f" Did you mean {printable(close[0])}?"
    if names and all(map(reads_as_number, names[:_FEW])):
        return " The first line looks like a row of numbers: the names of the columns must stand there."
    return ""
