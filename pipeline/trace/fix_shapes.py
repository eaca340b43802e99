"""Stage function: the float graph with the shapes that its samples have, for compilers that need them fixed.

What depends on shapes alone is computed now. Attention is written out, of which no NPU's compiler takes the operator as
it is, and which is quantized part by part; GELU written with Erf becomes one operator, since QNN takes no Erf on codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import ModelProto
from onnx.inliner import inline_selected_functions
from onnxscript import optimizer
from onnxscript.rewriter.ort_fusions import erfgelu
from onnxscript.rewriter.pattern import RewriteRuleSet

from pipeline.core.errors import StageError
from pipeline.core.stage import StageContext, StageMetadata
from pipeline.data.samples import Samples, evaluation_folders, open_samples
from pipeline.graph.edit import constant, import_contrib
from pipeline.graph.files import MODEL, graph_file, save_graphs
from pipeline.runtime.session import default_session
from pipeline.trace.canonical import strip_metadata

_GELU = RewriteRuleSet([erfgelu.rule1, erfgelu.rule2], commute=True)
_WRITTEN_OUT = [("", "Attention")]
_COMPARED = 2
"""Samples on which the graph is compared with the one before."""
_TOLERANCE = 1e-3
_LARGEST = 1_900_000_000
_LEAST = -1e4
"""Far below any score, and a value of float16."""
Shape = tuple[int, ...]


def run(context: StageContext) -> StageMetadata:
    """Writes the graph. StageError if the samples have several shapes, or the graph gives something else then."""
    file, evaluation = graph_file(context.inputs["graph"].path), context.inputs["evaluation"].path
    samples = [open_samples(folder) for folder in evaluation_folders(evaluation)]
    shapes = _common_shapes(samples)
    size = sum(path.stat().st_size for path in (file, file.with_name(f"{file.name}.data")) if path.is_file())
    if size > _LARGEST:
        raise StageError(
            f"The float graph has {size:,} bytes; with fixed shapes it must fit into {_LARGEST:,}.",
            "Choose a target without an NPU.",
        )
    fixed = fix_shapes(onnx.load(file), shapes)
    save_graphs(context.out, {MODEL: fixed})
    _compare(file, graph_file(context.out), samples[0])
    return {"shapes": {name: list(shape) for name, shape in shapes.items()}}


def fix_shapes(model: ModelProto, shapes: Mapping[str, Shape]) -> ir.Model:
    """The model for inputs of these shapes, by name. An input that has none of them stays as it is."""
    for value in model.graph.input:
        for axis, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            axis.dim_value = size
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    model.graph.ClearField("value_info")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    inlined = inline_selected_functions(inferred, _WRITTEN_OUT, inline_schema_functions=True)
    fixed = optimizer.optimize(ir.from_proto(inlined), onnx_shape_inference=True)
    _GELU.apply_to_model(fixed)
    import_contrib(fixed)
    _bound_masks(fixed.graph)
    _name_nodes(fixed.graph)
    strip_metadata(fixed)
    return fixed


def _bound_masks(graph: ir.Graph) -> None:
    """Masks take scores away with minus infinity, or the least float32: no NPU's float16 has either."""
    for value in graph.initializers.values():
        array = constant(value)
        if array is not None and array.dtype == np.float32 and array.size and array.min() < _LEAST:
            value.const_value = ir.tensor(np.maximum(array, np.float32(_LEAST)), name=value.name)


def _name_nodes(graph: ir.Graph) -> None:
    """Give nodes that have no name, or that of another, one of their own."""
    taken: set[str] = set()
    for number, node in enumerate(graph):
        if not node.name or node.name in taken:
            node.name = f"fixed/{number}/{node.op_type}"
        taken.add(node.name)


def _common_shapes(samples: list[Samples]) -> dict[str, Shape]:
    """Of the inputs, by name."""
    found: dict[str, Shape] = {}
    for row in (row for each in samples for row in each):
        for name, array in row.items():
            known = found.setdefault(name, array.shape)
            if array.shape != known:
                raise StageError(
                    f"The samples' {name!r} have several shapes, as {list(known)} and {list(array.shape)}: an NPU "
                    "needs one.",
                    "Give samples of one shape, or a size in the recipe's [preprocessing].",
                )
    return found


def _compare(before: Path, after: Path, samples: Samples) -> None:
    """StageError if the graph with fixed shapes does not give what the one before gives."""
    old, new = default_session(before), default_session(after)
    names = [entry.name for entry in new.get_outputs()]
    for row in islice(samples.select([entry.name for entry in old.get_inputs()]), _COMPARED):
        kept = {entry.name: row[entry.name] for entry in new.get_inputs()}
        for name, one, other in zip(names, old.run(names, row), new.run(names, kept), strict=True):
            if not np.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE * max(float(np.abs(one).max()), 1e-6)):
                raise StageError(
                    f"With fixed shapes the output {name!r} differs by {float(np.abs(one - other).max()):.3g}.",
                    "This is a fault of the graph optimizer: export for a target without an NPU.",
                )
