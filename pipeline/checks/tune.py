"""Which of ONNX Runtime's own graph optimizations cost speed? Found by switching each off, one at a time."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from pipeline.checks.timing import covers, measure_variant
from pipeline.config.target import Runtime
from pipeline.core.types import Figure, Progress, silent
from pipeline.devices.runner import Runner, subject_of
from pipeline.runtime.session import make_session

OPTIMIZERS = (
    "SkipLayerNormFusion",
    "QDQPropagationTransformer",
    "LayerNormFusion",
    "SimplifiedLayerNormFusion",
    "EmbedLayerNormFusion",
    "AttentionFusion",
    "GroupQueryAttentionFusion",
    "GeluFusion",
    "BiasGeluFusion",
    "FastGeluFusion",
    "QuickGeluFusion",
    "BiasSoftmaxFusion",
    "MatMulAddFusion",
    "MatMulScaleFusion",
    "MatmulTransposeFusion",
    "MatMulActivationFusion",
    "MatMulIntegerToFloatFusion",
    "DynamicQuantizeMatMulFusion",
    "MatMulNBitsFusion",
    "MatMulNBitsMlpFusion",
    "MatMulNBitsQkvFusion",
    "GemmActivationFusion",
    "GemmTransposeFusion",
    "ConvActivationFusion",
    "ConvAddActivationFusion",
    "ConvAddFusion",
    "ConvMulFusion",
    "ConvBNFusion",
    "Pad_Fusion",
    "QDQSelectorActionTransformer",
    "QDQPropagationTransformer",
    "NchwcTransformer",
    "NhwcTransformer",
    "TransposeOptimizer",
    "ReshapeFusion",
    "GatherToSliceFusion",
    "CommonSubexpressionElimination",
    "ConstantFolding",
)
"""Names in ONNX Runtime 1.31 to 1.33. It ignores a name that it does not know, which then changes no graph below."""

WORTH_IT = 1.01
"""The speed-up must be known to reach this: a change that nobody can feel is not worth a setting."""
SECONDS = 30.0
"""How long an optimization is measured at most."""


@dataclass(frozen=True)
class Tried:
    """One optimization switched off: what that changes in the executed graph, and the speed-up that it brings."""

    optimizer: str
    change: str
    speedup: Figure

    @property
    def helps(self) -> bool:
        return not self.undecided and self.speedup.value >= WORTH_IT

    @property
    def undecided(self) -> bool:
        """Too few pairs, or a machine too loaded, to say whether it helps."""
        return covers(self.speedup, WORTH_IT)


@dataclass(frozen=True)
class Tuning:
    """`runtime` has the optimizations that help switched off; `speedup` is theirs together, over all switched on."""

    tried: tuple[Tried, ...]
    runtime: Runtime
    speedup: Figure | None


def tune(
    runner: Runner,
    model: Path,
    inputs: Path,
    runtime: Runtime,
    max_seconds: float = SECONDS,
    progress: Progress = silent,
) -> Tuning:
    """Switch off each optimization that changes the executed graph of `model`, and measure it on the runner against all
    on.

    `inputs`: an .npz file with one array per input. Each pair runs in a fresh process, its inferences in turn, for at
    most `max_seconds`.
    """
    plain = without(runtime, ())

    def speedup(other: Runtime) -> Figure:
        """Over `plain`, until it is known whether that is worth a setting."""
        subjects = [subject_of(model, inputs, each) for each in (plain, other)]
        return measure_variant(runner, subjects, WORTH_IT, max_seconds)

    base = executed_operators(model, plain)
    changes = {name: _difference(base, executed_operators(model, without(runtime, [name]))) for name in OPTIMIZERS}
    candidates = {name: change for name, change in changes.items() if change}
    tried = []
    for done, (name, change) in enumerate(candidates.items(), start=1):
        tried.append(Tried(name, change, speedup(without(runtime, [name]))))
        progress(done, len(candidates) + 1)
    best = without(runtime, [entry.optimizer for entry in tried if entry.helps])
    together = speedup(best) if best.disabled_optimizers else None
    progress(len(candidates) + 1, len(candidates) + 1)
    return Tuning(tuple(tried), best, together)


def without(runtime: Runtime, optimizers: Sequence[str]) -> Runtime:
    """`runtime` with exactly these optimizations switched off."""
    return runtime.model_copy(update={"disabled_optimizers": tuple(optimizers)})


def executed_operators(model: Path, runtime: Runtime) -> Counter[str]:
    """How often each operator occurs in the graph that ONNX Runtime executes."""
    with tempfile.TemporaryDirectory() as scratch:
        optimized = Path(scratch) / "optimized.onnx"
        make_session(model, runtime, optimized_model=optimized)
        return Counter(node.op_type for node in onnx.load(optimized, load_external_data=False).graph.node)


def _difference(before: Counter[str], after: Counter[str]) -> str:
    """`Add +6, BiasGelu -6`; empty if the graphs have the same operators."""
    changed = sorted(name for name in before | after if before[name] != after[name])
    return ", ".join(f"{name} {after[name] - before[name]:+d}" for name in changed)
