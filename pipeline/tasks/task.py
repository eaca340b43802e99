"""A task: what its inputs are, which data calibrates it, and what its outputs mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Task:
    """`auto_class`: the transformers class that loads the model, and `architecture_suffixes` by which a config.json
    tells that it is one of the task. `data`: the kind of its samples; `calibration`: the data used if none is given,
    empty if there is none. `output`: the name of the graph output that is judged; `family`: what it is, a name in
    `tasks.registry.OUTPUTS`, if neither config.json nor the graph say otherwise."""

    name: str
    auto_class: str
    data: Literal["text", "image", "audio"]
    calibration: str
    output: str
    family: str
    architecture_suffixes: tuple[str, ...]
