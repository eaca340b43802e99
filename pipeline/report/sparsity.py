"""What zeros save, and what they do not: bytes at the scheme's bits, and no time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.core.report_types import PassReport
from pipeline.core.types import Json, Scheme
from pipeline.formats.format import TensorClass
from pipeline.formats.scheme import SchemeFormats
from pipeline.numerics.sparse import Pattern, compressed_bytes, dense_bytes
from pipeline.quantize.layers import SMALL
from pipeline.report.text import count


def with_storage(step: PassReport, scheme: Scheme) -> PassReport:
    """A pass's report; that of `sparsify` with the bytes of its layers stored dense and compressed, scales not
    counted, in every layer and in sum. The pass does not know the scheme, so that one result serves all."""
    if step.name != "sparsify":
        return step
    formats = SchemeFormats(scheme)
    layers = tuple(_stored(layer, step.own.get("pattern"), formats) for layer in step.layers)
    sums = {name: sum(layer[name] for layer in layers) for name in ("dense_bytes", "compressed_bytes")}
    return step.model_copy(update={**sums, "layers": layers})


def sparsity_notes(passes: Sequence[PassReport]) -> list[str]:
    """What a reader must not expect of the last `sparsify`."""
    found = [step for step in passes if step.name == "sparsify"]
    return [_note(found[-1])] if found else []


def _stored(layer: dict[str, Any], pattern: str | None, formats: SchemeFormats) -> dict[str, Json]:
    values, bits = layer["values"], _bits(layer, formats)
    n_of_m = Pattern.parse(pattern) if pattern else None
    return {
        **layer,
        "bits": bits,
        "dense_bytes": dense_bytes(values, bits),
        "compressed_bytes": compressed_bytes(values, values - layer["zeros"], bits, n_of_m),
    }


def _bits(layer: dict[str, Any], formats: SchemeFormats) -> int:
    """Of a stored weight, scales not counted; those of small products stay in float."""
    op: TensorClass = "conv" if layer["kind"] == "Conv2d" else "linear"
    form = formats.of_module(op, layer["layer"])
    small = op == "linear" and layer["values"] < SMALL
    return 32 if small or form.refuses(op) else form.code_bits


def _note(step: PassReport) -> str:
    own = step.own
    dense, compressed = (own[name] / 1e6 for name in ("dense_bytes", "compressed_bytes"))
    places = f"their places in {own['pattern']}" if "pattern" in own else "a bitmask"
    return (
        f"sparsify: {100 * own['sparsity']:.1f} % of the weights of {count(len(step.layers), 'layer')} are zero, "
        "and run dense: no speed-up on this target, since ONNX Runtime's CPU kernels multiply by zeros too. "
        f"Compressed storage (values and {places}) would take {compressed:.3g} MB for them instead of {dense:.3g} MB, "
        "scales not counted; "
        "the bundle stores them dense."
    )
