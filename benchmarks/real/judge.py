"""What a bundle decides beside the given float model, by ONNX Runtime and numpy alone: nothing of the pipeline is used.

A model is a session and the states it carries from step to step. Decisions are what an app would read off the outputs:
classes, texts, boxes, pixels, frames, directions of vectors. `kept` is the share of float's that another model takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

Array = NDArray[Any]
Outputs = list[Array]
Kept = Callable[[Sequence[Outputs], Sequence[Outputs]], float]
Right = Callable[[Sequence[Outputs], Sequence[Any]], float]


def session(file: Path, options: Mapping[str, str] | None = None, disabled: Sequence[str] = ()) -> ort.InferenceSession:
    """One thread on the CPU, as all are timed."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    for key, value in (options or {}).items():
        settings.add_session_config_entry(key, value)
    return ort.InferenceSession(file, settings, ["CPUExecutionProvider"], disabled_optimizers=list(disabled) or None)


def bundle_session(bundle: Path) -> ort.InferenceSession:
    """As the bundle's metadata says that an app should make it."""
    said = json.loads((bundle / "metadata.json").read_text(encoding="utf-8"))["runtime"]
    return session(bundle / "model.onnx", said.get("session_config"), said.get("disabled_optimizers", ()))


@dataclass(frozen=True)
class Samples:
    """Inputs with the samples on their first axis, numbers that are the same for all, and `states`: input -> output of
    the step before. With states the samples are sequences [sequences, steps, ...], whose first states are zeros."""

    arrays: Mapping[str, Array]
    states: Mapping[str, str]

    def feeds(self) -> Iterator[dict[str, Array]]:
        """A sample (or a step) at a time."""
        per_sample = {name: array for name, array in self.arrays.items() if array.ndim}
        same = {name: array for name, array in self.arrays.items() if not array.ndim}
        for place in range(len(next(iter(per_sample.values())))):
            if not self.states:
                yield {**{name: array[place : place + 1] for name, array in per_sample.items()}, **same}
            else:
                steps = len(next(iter(per_sample.values()))[place])
                for step in range(steps):
                    yield {**{name: array[place][step : step + 1] for name, array in per_sample.items()}, **same}

    def first_states(self, model: ort.InferenceSession) -> dict[str, Array]:
        shapes = {given.name: given.shape for given in model.get_inputs()}
        return {
            name: np.zeros([axis if isinstance(axis, int) else 1 for axis in shapes[name]], np.float32)
            for name in self.states
        }


def answers(model: ort.InferenceSession, samples: Samples) -> list[Outputs]:
    """The outputs of every sample, states left out."""
    names = [output.name for output in model.get_outputs()]
    taken = {given.name for given in model.get_inputs()}
    kept = [place for place, name in enumerate(names) if name not in samples.states.values()]
    found, carried, left = [], samples.first_states(model), 0
    for feed in samples.feeds():
        if samples.states and left == 0:
            carried, left = samples.first_states(model), _steps(samples)
        outputs = model.run(names, {name: value for name, value in {**feed, **carried}.items() if name in taken})
        carried = {name: outputs[names.index(after)] for name, after in samples.states.items()}
        left -= 1
        found.append([outputs[place] for place in kept])
    return found


def _steps(samples: Samples) -> int:
    return next(array.shape[1] for array in samples.arrays.values() if array.ndim)


def sqnr_db(reference: Sequence[Outputs], other: Sequence[Outputs]) -> float:
    """Signal over noise of the worst output: of float's deviations from its mean, over all samples."""
    worst = np.inf
    for place in range(len(reference[0])):
        if reference[0][place].dtype.kind != "f":
            continue
        pairs = zip(reference, other, strict=True)
        noise = sum(float(((a[place] - b[place]).astype(np.float64) ** 2).sum()) for a, b in pairs)
        flat = np.concatenate([a[place].astype(np.float64).ravel() for a in reference])
        worst = min(worst, 10 * np.log10(((flat - flat.mean()) ** 2).sum() / max(noise, 1e-30)))
    return float(worst)


def classes(*places: int) -> Kept:
    """The largest of the last axis, of the outputs `places`."""

    def kept(reference: Sequence[Outputs], other: Sequence[Outputs]) -> float:
        pairs = list(zip(reference, other, strict=True))
        same = [a[place].argmax(-1) == b[place].argmax(-1) for a, b in pairs for place in places]
        return float(np.mean(np.concatenate([part.ravel() for part in same])))

    return kept


def pixels() -> Kept:
    """The class of every pixel of maps [batch, classes, height, width]."""

    def moved(rows: Sequence[Outputs]) -> list[Outputs]:
        return [[np.moveaxis(outputs[0], 1, -1)] for outputs in rows]

    return lambda reference, other: classes(0)(moved(reference), moved(other))


def above(threshold: float, place: int = 0) -> Kept:
    """F1 of the values above `threshold`."""

    def kept(reference: Sequence[Outputs], other: Sequence[Outputs]) -> float:
        wanted = np.concatenate([a[place].ravel() > threshold for a in reference])
        found = np.concatenate([b[place].ravel() > threshold for b in other])
        return float(2 * (wanted & found).sum() / max(1, wanted.sum() + found.sum()))

    return kept


def decisions(threshold: float, place: int = 0) -> Kept:
    """The share of values on the same side of `threshold`."""

    def kept(reference: Sequence[Outputs], other: Sequence[Outputs]) -> float:
        pairs = zip(reference, other, strict=True)
        same = [((a[place] > threshold) == (b[place] > threshold)).ravel() for a, b in pairs]
        return float(np.mean(np.concatenate(same)))

    return kept


def texts(blank: int, read: Callable[[Outputs], Array] = lambda outputs: outputs[0].argmax(-1)) -> Kept:
    """One minus the edits between the texts over the length of float's."""

    def text(outputs: Outputs) -> list[int]:
        best = read(outputs).ravel().astype(int).tolist()
        return [b for a, b in zip([None, *best], best, strict=False) if b not in (a, blank)]

    def kept(reference: Sequence[Outputs], other: Sequence[Outputs]) -> float:
        pairs = [(text(a), text(b)) for a, b in zip(reference, other, strict=True)]
        return 1 - sum(_edits(a, b) for a, b in pairs) / max(1, sum(len(a) for a, _ in pairs))

    return kept


def characters(alphabet: Callable[[], Sequence[str]]) -> Right:
    """One minus the character error rate of texts whose classes are a blank and then `alphabet`."""

    def right(outputs: Sequence[Outputs], labels: Sequence[str]) -> float:
        letters = ["", *alphabet()]
        edits = 0
        for given, label in zip(outputs, labels, strict=True):
            best = given[0].argmax(-1).ravel().tolist()
            kept = [letters[b] for a, b in zip([None, *best], best, strict=False) if b not in (a, 0)]
            edits += _edits(list("".join(kept).strip()), list(label))
        return 1 - edits / sum(map(len, labels))

    return right


def _edits(one: Sequence[object], other: Sequence[object]) -> int:
    row = list(range(len(other) + 1))
    for at, left in enumerate(one, 1):
        before, row[0] = row[0], at
        for to, right in enumerate(other, 1):
            before, row[to] = row[to], min(row[to] + 1, row[to - 1] + 1, before + (left != right))
    return row[-1]


def directions() -> Kept:
    """The mean cosine of vectors, less their mean."""

    def kept(reference: Sequence[Outputs], other: Sequence[Outputs]) -> float:
        a, b = (np.stack([outputs[0].ravel() for outputs in rows]).astype(np.float64) for rows in (reference, other))
        a, b = a - a.mean(0), b - a.mean(0)
        return float(np.mean((a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)))

    return kept


def explained() -> Kept:
    """The share of the variance of the worst float output that is kept."""

    def kept(reference: Sequence[Outputs], other: Sequence[Outputs]) -> float:
        return float(1 - 10 ** (-sqnr_db(reference, other) / 10))

    return kept


def worst(*judges: Kept) -> Kept:
    """The least that any of them finds kept."""
    return lambda reference, other: min(kept(reference, other) for kept in judges)


Boxes = tuple[Array, Array, Array]
"""Corners [n, 4], scores and classes."""


def boxes(decode: Callable[[Outputs], Boxes], least: float, overlap: float = 0.5) -> Kept:
    """F1 of the boxes that suppression leaves, each of which has its match: the same class, an intersection over union
    of half. Boxes of float within 10 % of the least score count neither way, for they come and go with rounding."""

    def sure(outputs: Outputs, score: float) -> list[Boxes]:
        return [_suppress(decode(outputs), score, overlap)]

    def kept(reference: Sequence[Outputs], other: Sequence[Outputs]) -> float:
        matched = total = 0
        for a, b in zip(reference, other, strict=True):
            (wanted,), (found,) = sure(a, least * 1.1), sure(b, least * 1.1)
            (loose_wanted,), (loose_found,) = sure(a, least * 0.9), sure(b, least * 0.9)
            matched += _matches(wanted, loose_found) + _matches(found, loose_wanted)
            total += len(wanted[1]) + len(found[1])
        return matched / max(1, total)

    return kept


def _suppress(found: Boxes, least: float, overlap: float) -> Boxes:
    corners, scores, kinds = (array[found[1] >= least] for array in found)
    order, left = np.argsort(-scores), []
    for place in order:
        if all(kinds[place] != kinds[of] or _iou(corners[place], corners[of]) <= overlap for of in left):
            left.append(place)
    return corners[left], scores[left], kinds[left]


def _matches(wanted: Boxes, found: Boxes) -> int:
    free = set(range(len(found[1])))
    count = 0
    for corners, kind in zip(wanted[0], wanted[2], strict=True):
        near = [(_iou(corners, found[0][at]), at) for at in free if found[2][at] == kind]
        if near and max(near)[0] >= 0.5:
            free.remove(max(near)[1])
            count += 1
    return count


def _iou(one: Array, other: Array) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    both = float(np.prod(np.maximum(sides, 0)))
    return both / max(1e-9, float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - both)
