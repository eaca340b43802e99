"""Why a weight of the graph that ONNX Runtime runs is in float: it renames and reorders what the plan speaks of."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from pipeline.checks.weights import Constant, Graph, Weight
from pipeline.core.artifact import Artifact
from pipeline.core.report_types import SkippedTensor
from pipeline.core.types import Scheme
from pipeline.formats.scheme import SchemeFormats
from pipeline.graph.dtypes import bits_of, is_floating_point
from pipeline.graph.operators import LAYERS, MOVES

MADE_AT_LOAD = "not known: ONNX Runtime made this weight of others when it loaded the model"
NOT_PLANNED = "not known: the quantization plan does not name it"
WIDENED = "stored in {bits} bits, but ONNX Runtime widens it to float before it multiplies"


@dataclass(frozen=True)
class Reasons:
    """Why weights stayed in float: what the quantization plan says `by_weight`, or, `without_plan`, what holds for
    all."""

    by_weight: Mapping[str, str] = field(default_factory=dict)
    without_plan: str = ""

    @classmethod
    def of_plan(cls, plan: Artifact | None, scheme: Scheme) -> Reasons:
        """What the stage `quantize` made says of each weight; without it, what is known of all."""
        if plan is not None:
            left = {entry["weight"]: entry["reason"] for entry in plan.metadata["left_in_float"]}
            stored = {f"{weight}.codes": reason for weight, reason in plan.metadata.get("stored_only", {}).items()}
            return cls(left | stored)
        if not SchemeFormats(scheme).rounds:
            return cls(without_plan=f"the scheme {scheme.name} keeps weights in float")
        return cls(without_plan="not known: the quantization plan is not in the store; run the export again")


@dataclass(frozen=True)
class Stored:
    """The ONNX file `path` that ONNX Runtime was given, to look up what became of its weights."""

    path: Path
    reasons: Reasons

    def left_in_float(self, weights: Sequence[Weight]) -> tuple[SkippedTensor, ...]:
        """Those of `weights`, all of the graph that ran, that are wider than 8 bits, with their reasons, the largest
        first: under the names and with the bytes that the file has them with."""
        names = {weight.name for weight in weights}
        left = [self._skipped(weight, names) for weight in weights if weight.bits > 8]
        return tuple(sorted(left, key=lambda skipped: (-skipped.megabytes, skipped.name)))

    def _skipped(self, weight: Weight, names: set[str]) -> SkippedTensor:
        found = self._origin(weight)
        if found is None:
            known = self.reasons.without_plan or self._said_in(weight.name)
            return _skipped(weight, weight.name, weight.megabytes, known or self._said_of_alike(weight, names))
        if found.name != weight.name and self._is_joined(found, weight):
            return _skipped(weight, f"{found.name} and others", weight.megabytes, self._reason(found, weight))
        size = math.prod(found.tensor.dims) * bits_of(found.tensor.data_type) / 8 / 1e6
        return _skipped(weight, found.name, size, self._reason(found, weight))

    def _is_joined(self, found: Constant, weight: Weight) -> bool:
        """Whether ONNX Runtime made `weight`, when it loaded the file, of `found` and other constants."""
        folded = self._graph.constant_behind(weight.name) is not None
        return folded and weight.values > math.prod(found.tensor.dims)

    def _reason(self, found: Constant, weight: Weight) -> str:
        said = self.reasons.by_weight.get(found.name) or self.reasons.without_plan
        bits = bits_of(found.tensor.data_type)
        if said or bits < 32:
            return said or WIDENED.format(bits=bits)
        own = next((own for own in self._graph.weights if own.name == found.name), weight)
        if own.op_type in MOVES:
            own = weight
        if own.body:
            return f"it is read in the body of {own.body}, where no weight was quantized"
        return f"no scheme takes the weights of {own.op_type}" if own.op_type not in LAYERS else NOT_PLANNED

    def _origin(self, weight: Weight) -> Constant | None:
        """By its name, by the name of what was folded into it, or by its values."""
        return self._graph.constant_behind(weight.name) or self._with_values_of(weight)

    def _said_in(self, name: str) -> str:
        """The reason of a planned weight whose name is part of `name`, as fusions make names; the longest decides."""
        named = [planned for planned in self.reasons.by_weight if planned in name]
        return self.reasons.by_weight[max(named, key=len)] if named else ""

    def _said_of_alike(self, weight: Weight, names: set[str]) -> str:
        """What holds for all stored weights that are nowhere in the graph that ran (`names`) and could be this one:
        a convolution's kernel is as large, its channels may have been filled up to whole blocks."""
        gone = (stored for stored in self._graph.weights if stored.name not in names)
        alike = [stored for stored in gone if _could_be(stored, weight)]
        behind = (self._graph.constant_behind(stored.name) for stored in alike)
        reasons = {self._reason(constant, weight) for constant in behind if constant is not None}
        return reasons.pop() if len(reasons) == 1 else MADE_AT_LOAD

    def _with_values_of(self, weight: Weight) -> Constant | None:
        """ONNX Runtime's blocked layouts reorder a weight and fill it up with zeros: the other values are the same."""
        if weight.tensor is None or not weight.tensor.HasField("raw_data"):
            return None
        wanted = values_digest(weight.tensor, "")
        return next((found for found in self._floats if self._digest(found) == wanted), None)

    @cached_property
    def _graph(self) -> Graph:
        return Graph(onnx.load(self.path, load_external_data=False))

    @cached_property
    def _floats(self) -> tuple[Constant, ...]:
        """What can be a weight in float."""
        found = (self._graph.constant_behind(weight.name) for weight in self._graph.weights)
        return tuple(constant for constant in found if constant is not None and _is_float(constant.tensor))

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {}

    def _digest(self, constant: Constant) -> str:
        if constant.name not in self._digests:
            self._digests[constant.name] = values_digest(constant.tensor, str(self.path.parent))
        return self._digests[constant.name]


_BLOCK = 16
"""Channels of ONNX Runtime's largest block."""


def values_digest(tensor: TensorProto, folder: str) -> str:
    """sha256 of a float tensor's values but zeros, in order of size; external data lie in `folder`."""
    values = numpy_helper.to_array(tensor, folder).astype(np.float32).ravel()
    return hashlib.sha256(np.sort(values[values != 0]).tobytes()).hexdigest()


def _could_be(stored: Weight, weight: Weight) -> bool:
    if len(stored.dims) != len(weight.dims) or len(stored.dims) < 3:
        return False
    channels = zip(stored.dims[:2], weight.dims[:2], strict=True)
    return stored.dims[2:] == weight.dims[2:] and all(0 <= made - own < _BLOCK for own, made in channels)


def _is_float(tensor: TensorProto) -> bool:
    return is_floating_point(tensor.data_type) and bits_of(tensor.data_type) in (16, 32)


def _skipped(weight: Weight, name: str, megabytes: float, reason: str) -> SkippedTensor:
    return SkippedTensor(name=name, op_type=weight.op_type, megabytes=megabytes, reason=reason)
