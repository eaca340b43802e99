"""Learning a decoder's weights: first those outside its blocks, then block after block, then all scales together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from pipeline.core.types import Learning, Progress
from pipeline.quantize.learned.decoder import Decoder, Weights
from pipeline.quantize.learned.learned_weight import LearnedWeight
from pipeline.quantize.learned.training import batches, divergence, relative_error, train
from pipeline.quantize.learned.weights import ModelWeights

_LOGITS = 2**25
"""Values of one batch: 134 MB."""
_HELD = 16
"""One of so many batches is not trained on."""
_FLOAT: Weights = {}
ENDS, TUNING = "ends", "tuning"

Loss = Callable[[Tensor, Weights], Tensor]
"""Of a batch of windows, told by their places int64 [batch], with values of the weights that are trained."""


class Learner:
    """`losses`: of each unit of the work, the mean loss before and after it on windows that were not trained on.

    Args:
        decoder: The float model.
        weights: Of that model.
        windows: int64 [windows, tokens]: several times the batch, at least twice.
        vocabulary: How many logits there are of a token.
        learning: How to train.
        folder: Where hidden states lie, and what is decided: what an earlier try left there is taken over.
        progress: Told of each update.
    """

    def __init__(
        self,
        decoder: Decoder,
        weights: ModelWeights,
        windows: Tensor,
        vocabulary: int,
        learning: Learning,
        folder: Path,
        progress: Progress,
    ) -> None:
        self._decoder, self._weights, self._windows = decoder, weights, windows
        self._learning, self._folder = learning, folder
        self._every = max(1, -(-learning.batch * windows.shape[1] * vocabulary // _LOGITS))
        whole = list(torch.arange(len(windows)).view(-1, learning.batch))
        held = max(1, len(whole) // _HELD)
        self._batches, self._judged = whole, whole[-held:]
        self._seen = (len(whole) - held) * learning.batch
        self._units = [*([ENDS] if self._names(ENDS) else []), *decoder.blocks]
        self._done, self._progress = 0, progress
        self.losses: dict[str, tuple[float, float]] = {}

    def learn(self) -> None:
        """Decide all weights."""
        if not all(self._restored(unit) for unit in self._units if self._names(unit)):
            self._learn_units()
        if self._learning.tuning_steps:
            self._tune()

    def _learn_units(self) -> None:
        states, rounded = self._states("float"), self._states("rounded")
        if ENDS in self._units:
            self._fill(states, lambda places: self._decoder.embed(self._windows[places], _FLOAT))
            for place in range(len(self._decoder.blocks)):
                self._advance(states, place, _FLOAT)
            self._learn(ENDS, lambda places, values: self._lost(states[places], states[places], places, values))
        begin = self._ends()
        self._fill(states, lambda places: self._decoder.embed(self._windows[places], _FLOAT))
        self._fill(rounded, lambda places: self._decoder.embed(self._windows[places], begin))
        for place, block in enumerate(self._decoder.blocks):
            self._advance(states, place, _FLOAT)
            self._learn(block, self._loss_of_block(place, states, rounded))
            self._advance(rounded, place, self._weights.fixed | self._weights.decided(self._names(block)))

    def _loss_of_block(self, place: int, states: Tensor, rounded: Tensor) -> Loss:
        """On rounded inputs, against what the block gives in float (`states`); of the last one, what the model says."""
        ends = self._ends()

        def loss(places: Tensor, values: Weights) -> Tensor:
            found = self._decoder.block(place, rounded[places], {**self._weights.fixed, **values})
            if place < len(self._decoder.blocks) - 1:
                return relative_error(states[places], found)
            return self._lost(states[places], found, places, ends)

        return loss

    def _lost(self, states: Tensor, found: Tensor, places: Tensor, ends: Weights) -> Tensor:
        """How far the model's probabilities move with other hidden states behind the blocks, and other `ends`."""
        ids = self._windows[places]
        with torch.no_grad():
            reference = self._decoder.logits(states, ids, _FLOAT, self._every)
        return divergence(reference, self._decoder.logits(found, ids, ends, self._every))

    def _learn(self, unit: str, loss: Loss) -> None:
        """Train the weights of one unit; what they were before stays if that is better on windows held back."""
        names, learning = self._names(unit), self._learning
        if not names or self._restored(unit):
            return
        weights = self._weights.start(names)
        self._weights.decide(weights)
        order = list(batches(self._seen, learning.batch, learning.epochs, learning.seed + self._units.index(unit)))
        self._improve(unit, weights, loss, order, (learning.rate, learning.scale_rate))

    def _tune(self) -> None:
        """All scales together: what the whole model says against float, with gradients through all blocks."""
        learning = self._learning
        if self._restored(TUNING):
            return
        fixed = self._weights.fixed

        def loss(places: Tensor, values: Weights) -> Tensor:
            ids = self._windows[places]
            with torch.no_grad():
                reference = self._decoder.whole(ids, _FLOAT, self._every)
            return divergence(reference, self._decoder.whole(ids, {**fixed, **values}, self._every))

        rounds = -(-learning.tuning_steps // max(1, self._seen // learning.batch))
        order = batches(self._seen, learning.batch, rounds, learning.seed + len(self._units))
        steps = list(islice(order, learning.tuning_steps))
        self._improve(TUNING, self._weights.go_on(self._weights.learned), loss, steps, (0.0, learning.scale_rate))

    def _improve(
        self,
        unit: str,
        weights: dict[str, LearnedWeight],
        loss: Loss,
        order: Sequence[Tensor],
        rates: tuple[float, float],
    ) -> None:
        names = list(weights)
        before, kept = self._judge(loss, names), self._weights.of(names)
        train(
            list(weights.values()), lambda places: loss(places, self._weights.values(weights)), order, rates, self._step
        )
        self._weights.decide(weights)
        after = self._judge(loss, names)
        if not after < before:
            self._weights.put_back(kept)
        self.losses[unit] = (before, after)
        self._weights.save(names, self._file(unit), self.losses[unit])

    @torch.no_grad()
    def _judge(self, loss: Loss, names: Sequence[str]) -> float:
        values = self._weights.decided(names)
        return sum(float(loss(places, values)) for places in self._judged) / len(self._judged)

    def _restored(self, unit: str) -> bool:
        """Whether an earlier try decided this unit."""
        if not self._file(unit).is_file():
            return False
        self.losses[unit] = self._weights.restore(self._names(unit), self._file(unit))
        return True

    def _file(self, unit: str) -> Path:
        return self._folder / f"{unit}.safetensors"

    def _names(self, unit: str) -> list[str]:
        """The learned parameters of a block, of what is in no block (`ENDS`), or of all (`TUNING`)."""
        if unit == TUNING:
            return list(self._weights.learned)
        inside = {
            name: block
            for name in self._weights.learned
            for block in self._decoder.blocks
            if name.startswith(f"{block}.")
        }
        return [name for name in self._weights.learned if inside.get(name, ENDS) == unit]

    def _ends(self) -> Weights:
        return {**self._weights.fixed, **self._weights.decided(self._names(ENDS))}

    def _states(self, name: str) -> Tensor:
        """float32 [windows, tokens, hidden size] on disk."""
        self._folder.mkdir(parents=True, exist_ok=True)
        shape = (*self._windows.shape, self._decoder.embed(self._windows[self._batches[0]], _FLOAT).shape[-1])
        file, count = self._folder / f"{name}.bin", math.prod(shape)
        with file.open("wb") as room:  # a full disk is an error here; where mapped memory is written, it kills
            for _ in self._windows:
                room.write(bytes(4 * count // len(self._windows)))
        return torch.from_file(str(file), shared=True, size=count, dtype=torch.float32).view(shape)

    @torch.no_grad()
    def _fill(self, states: Tensor, computed: Callable[[Tensor], Tensor]) -> None:
        for places in self._batches:
            states[places] = computed(places)

    def _advance(self, states: Tensor, place: int, weights: Weights) -> None:
        """Hidden states go on to what a block gives."""
        self._fill(states, lambda places: self._decoder.block(place, states[places], weights))

    def _step(self) -> None:
        self._done += 1
        per_unit = self._seen // self._learning.batch * self._learning.epochs
        self._progress(self._done, len(self._units) * per_unit + self._learning.tuning_steps)
