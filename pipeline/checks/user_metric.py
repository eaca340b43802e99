"""A user's own metric: one Python function over raw outputs and references, `file.py:name`."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import inspect
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pipeline.checks.library_metrics import Metric, adapted
from pipeline.core.digest import sha256_file
from pipeline.core.errors import StageError, UsageError
from pipeline.core.types import Json
from pipeline.core.untrusted import Limit, read_bytes, user_path, users_code, words

_FORM = (
    "Give --metric file.py:name of a function (outputs, references) -> float, higher is better, or a metric of "
    "scikit-learn, torchmetrics or evaluate (sklearn.metrics:f1_score)."
)
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
CONTRACT = (
    "A metric is a function (outputs, references) -> float, in points, higher is better. outputs: a list with a dict "
    "per sample, output name -> array with a batch axis of 1; outputs.predict(inputs) runs the model again. "
    "references: a list with the label of each sample, or its row of --references as a dict of texts. Example: def "
    "right(outputs, references): return 100 * sum("
    'o["logits"].argmax() == int(r) for o, r in zip(outputs, references)) / len(references)'
)
MISFITS = (TypeError, KeyError, AttributeError, IndexError, NameError, ImportError)
_LARGEST = 1e15


@dataclass(frozen=True)
class UserMetric:
    """A metric and, if the data set has no labels for it, its references. `spec`, `file`: where they were given."""

    function: Metric
    references: list[dict[str, str]] | None = None
    spec: str = ""
    file: Path | None = None

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", "metric")

    def identity(self) -> dict[str, Json]:
        """What of it changes a result: the file's bytes (not those of what it imports), its name, the references."""
        place = self.spec.rpartition(":")[0]
        code = sha256_file(Path(place).expanduser()) if place.endswith(".py") else _version(place)
        return {"code": code, "name": self.name, "references": self.references}

    def place(self) -> dict[str, Json]:
        """Where to load it from again."""
        return {"spec": self.spec, "references": None if self.file is None else str(self.file)}

    def references_for(self, dataset: str, labels: Sequence[Any] | None, samples: int) -> Sequence[Any]:
        """The given references, else the set's labels: one per sample (of embedded pairs, one per pair). None for each,
        where there are none and the function has a default for them."""
        if labels is None and self.references is None and _takes(self.function, []):
            return [None] * samples
        return check_references(labels if self.references is None else self.references, dataset, samples)


def load_user_metric(spec: str | None, references: str | Path | None) -> UserMetric | None:
    """What the flags --metric and --references name; None without them."""
    if spec is None:
        if references is not None:
            raise UsageError("--references without --metric says nothing.", _FORM)
        return None
    references = None if references is None else Path(references)
    return UserMetric(load_metric(spec), None if references is None else read_references(references), spec, references)


def load_metric(spec: str) -> Metric:
    """The function that `file.py:name` or `package.module:name` names, or a metric of a library (see
    `library_metrics`). A file is run as any Python module is. UsageError if it is not there, cannot be imported, or is
    no metric."""
    place, _, name = spec.rpartition(":")
    module, said = _module(place, spec)
    found = getattr(module, name, None) if name else None
    if found is None:
        raise UsageError(f"{said} has no function {name!r}.", _FORM)
    with users_code(lambda error: f"{name!r} of {said} cannot be made: {words(error)}.", _FORM):
        library = adapted(found, name)
    if library is not None:
        return library
    if not callable(found):
        raise UsageError(f"{said} has no function {name!r}.", _FORM)
    if not _takes(found, [], []):
        raise UsageError(f"{name!r} of {said} cannot be called with two arguments.", _FORM)
    return found


def _module(place: str, spec: str) -> tuple[ModuleType, str]:
    """The module that holds a metric, and what messages call it."""
    path = user_path(place)
    if place.endswith(".py") and path.is_file() and not spec.endswith(":"):
        described = importlib.util.spec_from_file_location(f"_edge_metric_{path.stem}", path)
        assert described is not None and described.loader is not None  # noqa: S101  # it is a .py file
        module = importlib.util.module_from_spec(described)
        with users_code(lambda error: _unimported(path.name, error), _FORM):
            described.loader.exec_module(module)
        return module, path.name
    if not _DOTTED.fullmatch(place) or place.endswith(".py") or spec.endswith(":"):
        raise UsageError(f"--metric {spec!r} is not an existing file.py:name.", _FORM)
    with users_code(lambda error: _unimported(place, error), _FORM):
        return importlib.import_module(place), place


def _unimported(name: str, error: BaseException) -> str:
    return f"{name} cannot be imported: {type(error).__name__}: {words(error)}."


def _version(module: str) -> str:
    """The versions of the packages that a module may come from."""
    packages = packages_distributions().get(module.partition(".")[0], [])
    return ", ".join(f"{name} {version(name)}" for name in sorted(set(packages))) or module


def _takes(function: Metric, *arguments: object) -> bool:
    """Whether it can be called so, as far as Python tells before it is."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # built in, without a signature
        return len(arguments) == 2
    return True


class Predictions(list[dict[str, Any]]):
    """The outputs of each sample by name, of one model, and the model: a metric may run it on inputs of its own, as a
    closed-loop rollout of a control policy does."""

    def __init__(self, outputs: Iterable[dict[str, Any]], run: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        super().__init__(outputs)
        self._run = run

    def predict(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The model's outputs by name for `inputs` by name, arrays with a batch axis."""
        return self._run({name: np.asarray(value) for name, value in inputs.items()})


def read_references(path: Path) -> list[dict[str, str]]:
    """A .csv with a header: a dict of texts by column per sample, in order. UsageError if it is missing or ragged."""
    if not path.exists():
        raise UsageError(f"There is no file {str(path)!r}.", "Give --references a .csv with a row per sample.")
    content = read_bytes(path, Limit.TEXT)
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path.name} cannot be read as CSV: {error}.", "Save it as UTF-8 with a header.") from error
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise UsageError(f"{path.name}, row {number} does not have {len(reader.fieldnames or [])} columns.")
    return rows


def check_references(references: Sequence[Any] | None, dataset: str, samples: int) -> Sequence[Any]:
    """The references, if there is one per sample; UsageError if not."""
    if references is None:
        raise UsageError(
            f"The metric has no references: the data set {dataset!r} has no labels.",
            "Give --references file.csv with a row per sample, or labelled --eval-data.",
        )
    if len(references) != samples:
        raise UsageError(
            f"There are {len(references)} references for the {samples} samples of {dataset!r}.",
            "Give one row per sample, in order.",
        )
    return references


def call(metric: Metric, outputs: Sequence[dict[str, Any]], references: Sequence[Any]) -> float:
    """The metric's value; StageError if it raises or does not give a finite number."""
    name = getattr(metric, "__name__", "metric")
    with users_code(
        lambda error: f"The metric {name!r} failed: {type(error).__name__}: {words(error)}.", "Correct it.", StageError
    ):
        value = metric(outputs, references)
        number = _number(value)
        if not abs(number) <= _LARGEST:
            raise StageError(f"The metric {name!r} returned {_short(value)}, which is not a finite number.", _FORM)
    return number


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _short(value: Any) -> str:
    if isinstance(value, int):
        return f"a number of {value.bit_length()} bits"
    return repr(value)[:200]
