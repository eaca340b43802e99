"""Which parameters of the PyTorch model the products of its graph multiply with, and what its tables look up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from pipeline.formats.format import Layer
from pipeline.formats.scheme import SchemeFormats
from pipeline.numerics.affine import Float
from pipeline.quantize.quantize import tied_products


@dataclass(frozen=True, eq=False)
class Parameter:
    """A module's weight as rows of outputs, float32 [rows, columns]; `transposed`: the module has it the other way
    round."""

    name: str
    rows: Float
    transposed: bool


@dataclass(frozen=True)
class Product:
    """A product of the graph, and the parameters whose rows, one after the other, are the columns of its weight."""

    layer: Layer
    parameters: tuple[Parameter, ...]


def match(model: nn.Module, layers: Sequence[Layer]) -> tuple[list[Product], list[Layer]]:
    """The products of `layers` with their parameters, found by their values, however the graph joins them; and those
    whose weights are none of the model's."""
    having: dict[bytes, list[Parameter]] = defaultdict(list)
    for parameter in _parameters(model):
        having[parameter.rows[0].tobytes()].append(parameter)
    found, others = [], []
    for layer in layers:
        parts = _parts(np.ascontiguousarray(layer.weight.T), having)
        if parts:
            found.append(Product(layer, parts))
        else:
            others.append(layer)
    return found, others


def _parameters(model: nn.Module) -> Iterator[Parameter]:
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)):
            transposed = isinstance(module, Conv1D)
            values = module.weight.detach().numpy()
            rows = np.ascontiguousarray(values.T if transposed else values)
            yield Parameter(f"{name}.weight", rows, transposed)


def _parts(rows: Float, having: dict[bytes, list[Parameter]]) -> tuple[Parameter, ...]:
    """The parameters that `rows` are made of; none if they are not."""
    parts: list[Parameter] = []
    at = 0
    while at < len(rows):
        fitting = [
            each
            for each in having[rows[at].tobytes()]
            if each not in parts and np.array_equal(each.rows, rows[at : at + len(each.rows)])
        ]
        if not fitting:
            return ()
        parts.append(fitting[0])
        at += len(fitting[0].rows)
    return tuple(parts)


def tables(
    model: nn.Module, layers: Sequence[Layer], formats: SchemeFormats
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Embeddings as the scheme stores them; and those whose rows are read from what a product stores that is learned,
    with that product's parameter."""
    looked_up = [layer for layer in layers if layer.op == "table"]
    products = {name: formats.of("linear", str(product.node.name)) for name, product in tied_products(layers).items()}
    heads = {id(module.weight): name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    rounded: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    for name, module in model.named_modules():
        for table in looked_up if isinstance(module, nn.Embedding) else ():
            if not np.array_equal(table.weight, module.weight.detach().numpy()):
                continue
            form, product = formats.of("table", str(table.node.name)), products.get(table.weight_name)
            if product is None or not product.lends_rows(form, table.shape):
                values, _ = form.round("table", table.weight)
            elif product.learns:
                shared[f"{name}.weight"] = f"{heads[id(module.weight)]}.weight"
                continue
            else:
                values = product.round("linear", table.weight.T)[0].T
            rounded[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(values))
    return rounded, shared
