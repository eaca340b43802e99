"""Exports up to the quantized graph, without the bundle and its measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pipeline.config.job import Job
from pipeline.core.artifact import Artifact
from pipeline.core.run_stages import run_stages
from pipeline.core.store import Store
from pipeline.core.types import silent
from pipeline.plan.build import make_plan

Arrays = dict[str, NDArray[Any]]


def save(
    path: Path,
    nodes: Sequence[NodeProto],
    weights: Arrays,
    inputs: dict[str, Sequence[int | str]],
    outputs: dict[str, Sequence[int | str]],
) -> Path:
    """An ONNX file. Inputs whose names end in `ids` are int64, all else is float32."""
    infos = [
        helper.make_tensor_value_info(name, TensorProto.INT64 if name.endswith("ids") else TensorProto.FLOAT, shape)
        for name, shape in inputs.items()
    ]
    graph = helper.make_graph(
        nodes,
        "main",
        infos,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def quantized(
    model: Path, calibration: Arrays, evaluation: Arrays | None = None, last: str = "write", **options: Any
) -> dict[str, Artifact]:
    """The artifacts of an export of a classifier up to the stage `last`, calibrated on all rows given. Any drop is
    allowed: some of these networks always answer the same, which no stricter limit can judge."""
    data, later = model.with_suffix(".calibration.npz"), model.with_suffix(".evaluation.npz")
    np.savez(data, **calibration)  # type: ignore[arg-type]
    np.savez(later, **(evaluation or calibration))  # type: ignore[arg-type]
    job = Job(
        model=str(model),
        task="text-classification",
        calibration_data=str(data),
        calibration_samples=len(next(iter(calibration.values()))),
        eval_data=(str(later),),
        budgets={"max_accuracy_drop": 100},
        **options,
    )
    stages = make_plan(job).stages
    place = [stage.name for stage in stages].index(last)
    store = Store(model.parent / "store")
    store.prepare()
    outcomes = run_stages(stages[: place + 1], store, lambda _: silent, lambda *_: None)
    return {name: outcome.artifact for name, outcome in outcomes.items()}


def answers(model: Path, rows: Arrays) -> NDArray[np.float32]:
    """The first output, one row at a time."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    count = len(next(iter(rows.values())))
    one_by_one = ({name: array[n : n + 1] for name, array in rows.items()} for n in range(count))
    return np.concatenate([session.run(None, row)[0] for row in one_by_one])


def sqnr_db(reference: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    noise = np.square(reference - actual, dtype=np.float64).sum()
    return float(10 * np.log10(np.square(reference, dtype=np.float64).sum() / noise))
