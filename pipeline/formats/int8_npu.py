"""8-bit codes for NPUs: products read them behind DequantizeLinear, and all activations between operators are rounded
too (`Scheme.everywhere`), so that a compiler finds integers from end to end."""

from __future__ import annotations

from pipeline.formats.format import Arrays, Entry, Shared, constants, read_instead
from pipeline.formats.int8_channel import Int8Channel
from pipeline.graph.edit import add_constant, emit, graph_of
from pipeline.graph.onnx_ir import ir


class Int8Npu(Int8Channel):
    name = "int8-npu"
    meaning = "8-bit integers, one scale per output channel or table row, in QDQ form throughout (for NPUs)"

    @staticmethod
    def emit(node: ir.Node, entry: Entry, arrays: Arrays, shared: Shared) -> None:
        if entry.op == "linear":
            _product(node, entry, arrays)
        else:
            Int8Channel.emit(node, entry, arrays, shared)

    def cpu_note(self, vnni: bool) -> str:  # what its products are on CPUs is not what it is made for
        return ""


def _product(node: ir.Node, entry: Entry, arrays: Arrays) -> None:
    """DequantizeLinear on the weight; the input is rounded where it is made."""
    (codes,) = constants(node, entry.weight, arrays, "codes")
    scales = arrays[f"{entry.weight}.scales"]
    scale = add_constant(graph_of(node), f"{entry.weight}.scales", scales if scales.size > 1 else scales.reshape(()))
    (real,) = emit(node, "DequantizeLinear", [codes, scale], [f"{node.name}/weight"], axis=1)
    read_instead(node, entry.weight, real)
