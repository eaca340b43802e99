"""`ort/`: the graphs in ONNX Runtime's own format, already optimized, which a reduced build of it loads.

https://onnxruntime.ai/docs/performance/model-optimizations/ort-format-models.html; what ONNX Runtime's converter does
(`onnxruntime.tools.convert_onnx_models_to_ort`, style Fixed), with the session settings of the bundle, which it cannot
take.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnxruntime.tools.ort_format_model import create_config_from_models

from pipeline.bundle.layout import LARGEST_SINGLE
from pipeline.bundle.records import ORT_FOLDERS, in_ort_format
from pipeline.bundle.verify import require_golden
from pipeline.config.target import DISABLED_OPTIMIZERS, Runtime
from pipeline.core.errors import StageError
from pipeline.graph.files import Graphs, graph_megabytes
from pipeline.runtime.session import make_session

OPERATORS = "required_operators.config"
_INT8 = "session.qdqisint8allowed"
"""Arm has kernels for signed activations and weights; elsewhere, unsigned activations are faster or the only ones."""
_BLOCKED = "NchwcTransformer"
"""Its layout fits the CPU that it ran on alone; ONNX Runtime's own converter leaves it out too."""


def write_ort(out: Path, graphs: Graphs, runtime: Runtime) -> None:
    """Write the graphs of the bundle `out` for each of `ORT_FOLDERS`, with the operators that they need.

    Raises:
        StageError: If they are too large for the format, or do not give the golden outputs.
    """
    if graph_megabytes(graphs) * 1e6 > LARGEST_SINGLE:
        raise StageError(
            f"Graphs of more than {LARGEST_SINGLE:,} bytes fit into no .ort file.", "Leave --format ort out."
        )
    for name in ORT_FOLDERS:
        made = in_ort_format(graphs, name)
        made.files[0].parent.mkdir(parents=True)
        entries = {**runtime.session_entries, "session.save_model_format": "ORT", _INT8: str(int(name == "arm64"))}
        entries[DISABLED_OPTIMIZERS] = ";".join(filter(None, [entries.get(DISABLED_OPTIMIZERS), _BLOCKED]))
        settings = runtime.model_copy(update={"session_config": entries, "disabled_optimizers": ()})
        for file, new in zip(graphs.files, made.files, strict=True):
            make_session(file, settings, optimized_model=new)
        _write_operators(made.files)
        require_golden(out, [make_session(made, runtime)], f"The bundle's {made.files[0].relative_to(out).as_posix()}")


def _write_operators(files: Sequence[Path]) -> None:
    """Without the converter's comments, which name folders of this machine."""
    place = files[0].parent / OPERATORS
    create_config_from_models([*files], place, enable_type_reduction=False)
    lines = [line for line in place.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    place.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
