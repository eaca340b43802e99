"""A task: what its inputs are, which data calibrates it, and what its outputs mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.tasks.output_kind import Output

Takes = Literal["text", "image", "audio", "tensor"]
"""The kind of a task's samples; `tensor`: inputs as they are."""


Recognizes = Callable[[Mapping[str, Any], Sequence[Output]], bool]
"""Whether a graph with inputs of these names and these outputs is of a task."""


def by_names(*outputs: str, takes: str = "", axes: int | None = None) -> Recognizes:
    """Outputs called so, the first of `axes` axes, of a graph with the input `takes`, as transformers' and Optimum's
    exports name them."""

    def recognizes(inputs: Mapping[str, Any], offered: Sequence[Output]) -> bool:
        known = {output.name: output for output in offered}
        named = set(outputs) <= known.keys() and (not takes or takes in inputs)
        return named and (axes is None or known[outputs[0]].rank == axes)

    return recognizes


def never(inputs: Mapping[str, Any], offered: Sequence[Output]) -> bool:  # noqa: ARG001
    """Of a task that must be named."""
    return False


@dataclass(frozen=True)
class Task:
    """`auto_class`: the transformers class that loads the model, and `architecture_suffixes` by which a config.json
    tells that it is one of the task; `recognizes`, that an ONNX file is. `decodes`: whether
    its models have an encoder and a decoder, in a graph each; `aliases`: names of other tasks that such models have
    too; `continues`: whether they continue texts, with a cache of the tokens before. `data`: the kind of its samples;
    `calibration`: the data used if none is given, empty if there is none. `output`: the name of the graph output that
    is judged; `family`: what it is, a name in `tasks.registry.OUTPUTS`, if neither config.json nor the graph say
    otherwise."""

    name: str
    auto_class: str
    data: Takes
    calibration: str
    output: str
    family: str
    architecture_suffixes: tuple[str, ...]
    recognizes: Recognizes = never
    decodes: bool = False
    continues: bool = False
    aliases: tuple[str, ...] = ()
