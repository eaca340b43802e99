"""Metrics of scikit-learn, torchmetrics and evaluate as they are: order of arguments, types, scale."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipeline.core.errors import UsageError
from pipeline.metrics.fidelity import Array, decisions

Metric = Callable[[Sequence[dict[str, Any]], Sequence[Any]], float]
_TRUTH, _SCORES = "y_true", ("y_score", "y_prob", "y_proba")
_ERRORS = ("error", "loss", "distance", "divergence")


def adapted(found: Any, name: str) -> Metric | None:
    """A metric of one of these libraries as a function (outputs, references) -> points, higher is better; None of
    anything else.

    What it is told by: `compute` and `add_batch` (evaluate), `update` and `compute` (torchmetrics' classes), arguments
    that begin with `y_true` (scikit-learn) or `preds`, `target` (torchmetrics' functions). The first output counts.
    Values are times 100; errors and losses (by name, or `higher_is_better`) count negative, in their own units.
    """
    call = _caller(found)
    if call is None:
        return None
    higher = getattr(found, "higher_is_better", None)
    lower = higher is False or (higher is None and name.lower().endswith(_ERRORS))

    def metric(outputs: Sequence[dict[str, Any]], references: Sequence[Any]) -> float:
        value = _number(call(_first(outputs), _truth(references)))
        return -value if lower else 100.0 * value

    metric.__name__ = name
    return metric


def _caller(found: Any) -> Callable[[Array, Array], Any] | None:
    if hasattr(found, "compute") and hasattr(found, "add_batch"):
        return lambda outputs, truth: found.compute(predictions=_answers(outputs, truth), references=truth.tolist())
    if isinstance(found, type):
        stateful = hasattr(found, "compute") and hasattr(found, "update") and hasattr(found, "reset")
        return _caller(found()) if stateful else None
    if hasattr(found, "compute") and hasattr(found, "update") and hasattr(found, "reset"):
        return lambda outputs, truth: _accumulated(found, outputs, truth)
    names = _parameters(found)
    if names[:1] == [_TRUTH] and len(names) > 1:
        chances = names[1] in _SCORES
        return lambda outputs, truth: found(truth, _chances(outputs) if chances else _answers(outputs, truth))
    if names[:2] == ["preds", "target"]:
        return lambda outputs, truth: found(*_tensors(outputs, truth))
    return None


def _parameters(found: Any) -> list[str]:
    try:
        return list(inspect.signature(found).parameters)
    except (TypeError, ValueError):  # not callable, or built in without a signature
        return []


def _accumulated(found: Any, outputs: Array, truth: Array) -> Any:
    found.reset()
    found.update(*_tensors(outputs, truth))
    return found.compute()


def _first(outputs: Sequence[dict[str, Any]]) -> Array:
    """The first output of all samples, [samples, ...]."""
    arrays = [np.asarray(next(iter(sample.values()))) for sample in outputs]
    if len({array.shape for array in arrays}) > 1:
        raise UsageError(
            "The first output differs in shape from sample to sample, which a library's metric does not take.",
            "Write a function (outputs, references) -> float that calls it.",
        )
    batched = arrays[0].ndim > 0 and arrays[0].shape[0] == 1
    whole = np.concatenate(arrays) if batched else np.stack(arrays)
    return whole[:, 0] if whole.ndim == 2 and whole.shape[1] == 1 else whole


def _truth(references: Sequence[Any]) -> Array:
    """Labels, or the only column of a table of references, as numbers where they are."""
    plain = [next(iter(item.values())) if isinstance(item, dict) and len(item) == 1 else item for item in references]
    truth = np.asarray(plain)
    if truth.dtype.kind == "U":
        try:
            truth = truth.astype(np.float64)
        except ValueError:
            return truth
    whole = truth.dtype.kind == "f" and bool((truth == np.floor(truth)).all())
    return truth.astype(np.int64) if whole else truth


def _answers(outputs: Array, truth: Array) -> Array:
    """Classes where labels are whole and outputs have one more axis, yes or no where one number answers 0 or 1, else
    the outputs as they are."""
    if truth.dtype.kind not in "iub" or outputs.dtype.kind != "f":
        return outputs
    if outputs.ndim == truth.ndim + 1:
        return np.asarray(outputs.argmax(axis=1))
    asked = outputs.shape == truth.shape and set(np.unique(truth).tolist()) <= {0, 1}
    return decisions(outputs).astype(np.int64) if asked else outputs


def _chances(outputs: Array) -> Array:
    """Softmax of logits of classes; of two, the chance of the second."""
    if outputs.ndim != 2:
        return outputs
    if outputs.min() < 0 or not np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
        outputs = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        outputs = outputs / outputs.sum(axis=1, keepdims=True)
    return outputs[:, 1] if outputs.shape[1] == 2 else outputs


def _tensors(outputs: Array, truth: Array) -> tuple[Any, Any]:
    import torch  # noqa: PLC0415  # here, so that a plan does not wait for it

    return torch.from_numpy(np.ascontiguousarray(outputs)), torch.from_numpy(np.ascontiguousarray(truth))


def _number(value: Any) -> float:
    """Of a number, a tensor of one, or evaluate's dict with one."""
    if isinstance(value, dict):
        value = next(iter(value.values()))
    return float(value)
