"""Parameters that a model has under several names, as an embedding whose matrix is the output layer's too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from torch import nn


def other_names(model: nn.Module) -> Mapping[str, list[str]]:
    """For each name of a parameter, its other names in the order of the model; none for a parameter with one name."""
    names: dict[int, list[str]] = defaultdict(list)
    places = list(model.named_parameters(remove_duplicate=False))
    for name, parameter in places:
        names[id(parameter)].append(name)
    return {name: [other for other in names[id(parameter)] if other != name] for name, parameter in places}
