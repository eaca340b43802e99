"""What formats have in common whose products are computed in integers: 8-bit weights times inputs rounded to 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.core.types import Json, Scheme, StrictModel
from pipeline.formats.format import Arrays, Entry, NumberFormat, Shared, read_instead
from pipeline.graph.edit import add_constant, emit, name_of, replace
from pipeline.graph.onnx_ir import ir
from pipeline.numerics.affine import affine_uint8, is_empty


class InputRounding(StrictModel):
    """How a product's input is rounded to uint8: with `ranges` found at run time, or with a calibrated `scale` and
    `zero_point`; or not at all ("none"), where it is computed from constants alone."""

    ranges: Literal["none", "run time", "calibrated"]
    scale: float = 0.0
    zero_point: int = 0


class IntegerProduct(NumberFormat):
    """Inputs are rounded with calibrated ranges under a scheme with static activations, and else with ranges found at
    run time: also where the scheme's other products take float inputs.

    `reduce_range`: codes whose 16-bit sums cannot saturate, see `core.types.Scheme`.
    """

    def __init__(self, scheme: Scheme) -> None:
        self.reduce_range = scheme.reduce_range
        self._static = scheme.activations == "static"
        self._observer = f"{scheme.observer} observer"
        if scheme.observer == "percentile":
            self._observer = f"percentile observer at {scheme.percentile:g} %"

    def input_parameters(self, ends: NDArray[np.float32] | None) -> dict[str, Json]:
        """One that calibration never saw active has no range: it is found at run time, whatever the scheme."""
        low, high = (0.0, 0.0) if ends is None else map(float, ends)
        if is_empty(low, high):
            return {"ranges": "run time"}
        scale, zero_point = affine_uint8(low, high)
        return {"ranges": "calibrated", "scale": float(scale), "zero_point": int(zero_point)}

    @property
    def integer_products(self) -> bool:
        return True

    @property
    def ranges(self) -> Literal["none", "run time", "calibrated"]:
        return "calibrated" if self._static else "run time"

    def details(self) -> dict[str, str]:
        codes = "all 8 bits; sums may saturate on x86 without VNNI"
        if self.reduce_range:
            codes = "chosen so that 16-bit sums cannot saturate and every CPU answers alike"
        return {"Weight codes": codes} | ({"Ranges from": self._observer} if self._static else {})

    def cpu_note(self, vnni: bool) -> str:
        if self.reduce_range:
            return (
                "8-bit products use weight codes whose 16-bit sums cannot saturate: they are the same on every "
                "instruction set."
            )
        if vnni:
            return ""
        return (
            "This CPU has no VNNI and the weights use all 8 bits: its 16-bit sums can saturate, so accuracy "
            "measured here says nothing about other CPUs."
        )


def emit_product(node: ir.Node, entry: Entry, weight: Sequence[ir.Value], arrays: Arrays, shared: Shared) -> None:
    """The product with 8-bit weights, its input rounded as the entry's `input` says. `weight`: codes and scales."""
    rounding = InputRounding.model_validate(entry.input)
    if rounding.ranges == "none":
        _fixed(node, entry, weight)
    elif rounding.ranges == "calibrated":
        _static(node, entry, rounding, weight, arrays, shared)
    else:
        _dynamic(node, weight, shared)


def _fixed(node: ir.Node, entry: Entry, weight: Sequence[ir.Value]) -> None:
    """The product in float, behind Cast -> Mul of the weight's codes: ONNX Runtime computes all of it once."""
    codes, scales = weight
    (real,) = emit(node, "Cast", [codes], [f"{node.name}/float"], to=ir.DataType.FLOAT)
    (widened,) = emit(node, "Mul", [real, scales], [f"{node.name}/weight"])
    read_instead(node, entry.weight, widened)


def _dynamic(node: ir.Node, weight: Sequence[ir.Value], shared: Shared) -> None:
    """DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul by both scales: ONNX Runtime fuses the last three, or
    all four, into one kernel."""
    codes, scales = weight
    activation = node.inputs[0]
    assert activation is not None  # noqa: S101
    outputs = [f"{activation.name}.dynamic.{part}" for part in ("codes", "scale", "zero_point")]
    if outputs[0] not in shared:
        shared[outputs[0]] = emit(node, "DynamicQuantizeLinear", [activation], outputs)
    x, scale, zero_point = shared[outputs[0]]
    _scaled_product(node, (x, codes, zero_point), (scale, scales))


def _scaled_product(node: ir.Node, factors: Sequence[ir.Value | None], scales: Sequence[ir.Value | None]) -> None:
    """Codes, codes of the weight and a zero point multiplied in integers, times both scales."""
    name = str(node.name)
    (summed,) = emit(node, "MatMulInteger", factors, [f"{name}/int32"])
    (real,) = emit(node, "Cast", [summed], [f"{name}/float"], to=ir.DataType.FLOAT)
    (both,) = emit(node, "Mul", scales, [f"{name}/scale"])
    (result,) = emit(node, "Mul", [real, both], [f"{name}/product"])
    replace(node, result)


def _static(
    node: ir.Node,
    entry: Entry,
    rounding: InputRounding,
    weight: Sequence[ir.Value],
    arrays: Arrays,
    shared: Shared,
) -> None:
    """QuantizeLinear -> DequantizeLinear around the activation, DequantizeLinear on the weight (QDQ form), except where
    ONNX Runtime would not recognize it."""
    codes, scales = weight
    graph, name, key = node.graph, str(node.name), name_of(node.inputs[0])
    assert graph is not None  # noqa: S101
    x, scale, zero = _rounded(node, entry, rounding, shared)
    if _becomes_gemm(node):
        _scaled_product(node, (x, codes, zero), (scale, scales))
        return
    if key not in shared:
        shared[key] = emit(node, "DequantizeLinear", [x, scale, zero], [f"{key}.rounded"])
    if arrays[f"{entry.weight}.scales"].size == 1:
        scales = add_constant(graph, f"{entry.weight}.scale", arrays[f"{entry.weight}.scales"].reshape(()))
    (real,) = emit(node, "DequantizeLinear", [codes, scales], [f"{name}/weight"], axis=1)
    (result,) = emit(node, "MatMul", [shared[key][0], real], [f"{name}/product"])
    replace(node, result)


def _rounded(node: ir.Node, entry: Entry, rounding: InputRounding, shared: Shared) -> Sequence[ir.Value | None]:
    """The codes of a product's input, their scale and zero point; those of an activation that is rounded already."""
    activation, graph = node.inputs[0], node.graph
    assert activation is not None and graph is not None  # noqa: S101
    key = name_of(activation)
    if f"{key}.codes" in shared:
        return shared[f"{key}.codes"]
    if key in shared:
        widened = shared[key][0].producer()
        assert widened is not None  # noqa: S101  # a DequantizeLinear
        return widened.inputs
    scale = add_constant(graph, f"{entry.node}.activation_scale", np.float32(rounding.scale))  # type: ignore[arg-type]
    zero = add_constant(graph, f"{entry.node}.activation_zero_point", np.uint8(rounding.zero_point))  # type: ignore[arg-type]
    shared[f"{key}.codes"] = [*emit(node, "QuantizeLinear", [activation, scale, zero], [f"{key}.codes"]), scale, zero]
    return shared[f"{key}.codes"]


def _becomes_gemm(node: ir.Node) -> bool:
    """Whether ONNX Runtime joins a product of matrices with the bias behind it to a Gemm before it looks for QDQ forms.
    It then widens the weight at every run: a classifier of 1280 x 1000 took 12 times as long as in float, and a fifth
    of it in integers (ONNX Runtime 1.32)."""
    readers, shape = node.outputs[0].consumers(), node.outputs[0].shape
    return len(readers) == 1 and readers[0].op_type == "Add" and shape is not None and len(shape) == 2
