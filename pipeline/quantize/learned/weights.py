"""The weights of a model while they are learned: which ones are, what is decided of them, and what stands for them in
the PyTorch model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from pipeline.core.store import fsync
from pipeline.formats.format import Arrays, Layer
from pipeline.formats.scheme import SchemeFormats
from pipeline.numerics.affine import Bytes, Float
from pipeline.numerics.blocks import BlockFormat, Grid, dequantize_blocks
from pipeline.quantize.learned.learned_weight import LearnedWeight
from pipeline.quantize.learned.matching import Parameter, Product, match, tables

_LOSSES = "losses"
Decided = tuple[Bytes, Grid]
"""Codes uint8 [rows, blocks, size] and the grid [rows, blocks]."""


@dataclass(frozen=True)
class _Start:
    """What training of a parameter begins with."""

    parameter: Parameter
    form: BlockFormat
    grid: Grid


class ModelWeights:
    """`learned`: the names of the parameters whose codes are learned, in the graph's order. `unmatched`: weights of
    products that are none of the model's, which are left to be rounded to the nearest code.

    `fixed`: what else the scheme stores in few bits, each value rounded to the nearest.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer], formats: SchemeFormats) -> None:
        taken = [layer for layer in layers if not formats.leaves(layer.op, str(layer.node.name), layer.weight)]
        self._products, others = match(model, [layer for layer in taken if layer.op == "linear"])
        self.fixed, self._shared = tables(model, taken, formats)
        self._starts: dict[str, _Start] = {}
        for product in self._products:
            self._begin(product, formats)
        self.learned = tuple(self._starts)
        self.unmatched = [layer.weight_name for layer in others if formats.of("linear", str(layer.node.name)).learns]
        self._decided: dict[str, Decided] = {}

    def _begin(self, product: Product, formats: SchemeFormats) -> None:
        layer = product.layer
        form = formats.of("linear", str(layer.node.name))
        if not form.learns:
            rounded, _ = form.round("linear", layer.weight)
            for parameter, rows in _split(product, np.ascontiguousarray(rounded.T)):
                self.fixed[parameter.name] = _as_parameter(parameter, torch.from_numpy(rows))
            return
        blocks, grid = form.begin(layer.weight)
        for (parameter, scale), (_, zero) in zip(_split(product, grid.scale), _split(product, grid.zero), strict=True):
            self._starts.setdefault(parameter.name, _Start(parameter, blocks, Grid(scale, zero)))

    def start(self, names: Iterable[str]) -> dict[str, LearnedWeight]:
        """Parameters as training begins with them."""
        starts = {name: self._starts[name] for name in names}
        return {name: LearnedWeight(each.parameter.rows, each.form, each.grid) for name, each in starts.items()}

    def go_on(self, names: Iterable[str]) -> dict[str, LearnedWeight]:
        """Parameters as they were decided, of which only the scales can change."""
        weights = {}
        for name in names:
            weights[name] = LearnedWeight(self._rows(name), self._starts[name].form, self._decided[name][1])
            weights[name].fix_codes()
        return weights

    def values(self, weights: Mapping[str, LearnedWeight]) -> dict[str, Tensor]:
        """What stands for parameters of the model, with gradients to what is trained."""
        return self._with_tables({name: self._placed(name, each.weight()) for name, each in weights.items()})

    def decide(self, weights: Mapping[str, LearnedWeight]) -> None:
        """Keep what was learned."""
        self._decided |= {name: each.decided() for name, each in weights.items()}

    def decided(self, names: Iterable[str]) -> dict[str, Tensor]:
        """What stands for decided parameters."""
        return self._with_tables({name: self._placed(name, torch.from_numpy(self._rows(name))) for name in names})

    def _rows(self, name: str) -> Float:
        codes, grid = self._decided[name]
        return np.ascontiguousarray(dequantize_blocks(codes, grid, self._starts[name].parameter.rows.shape[1]))

    def _placed(self, name: str, rows: Tensor) -> Tensor:
        return _as_parameter(self._starts[name].parameter, rows)

    def _with_tables(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """With the embeddings whose rows are read from a product."""
        return values | {table: values[product] for table, product in self._shared.items() if product in values}

    def of(self, names: Iterable[str]) -> dict[str, Decided]:
        """What is decided of these parameters."""
        return {name: self._decided[name] for name in names}

    def put_back(self, decided: Mapping[str, Decided]) -> None:
        """What `of` gave."""
        self._decided |= decided

    def save(self, names: Iterable[str], file: Path, losses: tuple[float, float]) -> None:
        """Write what was decided of these parameters, and the losses before and after; renamed into place, so that
        nobody finds half of it."""
        arrays = {f"{name}.{part}": array for name in names for part, array in self._parts(name).items()}
        written = file.with_suffix(".new")
        save_file({**arrays, _LOSSES: np.array(losses)}, written)
        fsync(written)
        written.replace(file)

    def restore(self, names: Iterable[str], file: Path) -> tuple[float, float]:
        """Read what `save` wrote; the losses."""
        arrays = load_file(file)
        for name in names:
            grid = Grid(arrays[f"{name}.scales"], arrays[f"{name}.zero_points"])
            self._decided[name] = (arrays[f"{name}.codes"], grid)
        before, after = arrays[_LOSSES]
        return float(before), float(after)

    def _parts(self, name: str) -> Arrays:
        codes, grid = self._decided[name]
        return {"codes": codes, "scales": grid.scale, "zero_points": grid.zero}

    def arrays(self) -> Arrays:
        """Codes, scales and zero points of the graph's weights, by their names there."""
        found: Arrays = {}
        for product in self._products:
            names = [parameter.name for parameter in product.parameters]
            if all(name in self._decided for name in names):
                parts = [self._parts(name) for name in names]
                for part in parts[0]:
                    found[f"{product.layer.weight_name}.{part}"] = np.concatenate([each[part] for each in parts])
        return found


def _split(product: Product, rows: NDArray[Any]) -> list[tuple[Parameter, NDArray[Any]]]:
    ends = np.cumsum([len(parameter.rows) for parameter in product.parameters])[:-1]
    return list(zip(product.parameters, np.split(rows, ends), strict=True))


def _as_parameter(parameter: Parameter, rows: Tensor) -> Tensor:
    return rows.T if parameter.transposed else rows
