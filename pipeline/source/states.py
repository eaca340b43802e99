"""Which output of a streaming model is the next value of which input: a state is fed back from step to step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pipeline.core.model_spec import InputSpec
from pipeline.tasks.output_kind import Output

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SIDES = frozenset(
    [
        "in",
        "input",
        "inputs",
        "out",
        "output",
        "outputs",
        "new",
        "next",
        "old",
        "prev",
        "previous",
        "past",
        "present",
        "init",
        "initial",
        "cur",
        "current",
        "updated",
        "last",
        "final",
        "i",
        "o",
        "n",
        "t",
    ]
)
"""Words that tell the value before a step from the one after it."""
_SUFFIX = re.compile(r"(?<=[a-z0-9])(in|out|n|i|o|t)$")


def pair_states(inputs: Mapping[str, InputSpec], outputs: Sequence[Output]) -> dict[str, str]:
    """Input -> the output that may be its next value: named alike (`state` and `stateN`, `h` and `hn`, `cache_in` and
    `cache_out`, `past.0.key` and `present.0.key`), or of those left the only two of one shape and dtype. Scalars are no
    states, and the first output is one only by its name. Whether an input is a state, the data tell: they do not have
    it."""
    states = {name: spec for name, spec in inputs.items() if spec.shape}
    fitting = {name: [output.name for output in outputs if fits(spec, output)] for name, spec in states.items()}
    named = _unique({name: [out for out in found if _alike(name, out)] for name, found in fitting.items()})
    left = [output.name for output in outputs[1:] if output.name not in named.values()]
    return named | _unique(
        {name: [out for out in found if out in left] for name, found in fitting.items() if name not in named}
    )


def fits(spec: InputSpec, output: Output) -> bool:
    """Whether an output can be given as the input: of its dtype, and of no other fixed size."""
    if output.dtype != spec.dtype:
        return False
    if output.shape is None:
        return True
    pairs = list(zip(spec.shape, output.shape, strict=False))
    alike = all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))
    return len(output.shape) == len(spec.shape) and alike


def _unique(found: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Pairs of an input with a single output that no other input may have."""
    single = {name: outputs[0] for name, outputs in found.items() if len(outputs) == 1}
    asked = [output for outputs in found.values() for output in outputs]
    return {name: output for name, output in single.items() if asked.count(output) == 1}


def _alike(name: str, output: str) -> bool:
    """Whether two names are one without the words and endings that tell before from after."""
    return bool(_stems(name) & _stems(output))


def _stems(name: str) -> set[str]:
    words = [word.lower() for word in _WORDS.findall(name.replace("past_key_values", "past"))]
    kept = [word for word in words if word not in _SIDES] or words
    first = kept[:-1] if kept[-1:] == ["0"] else []  # h0, before hn
    stem = ".".join(kept)
    return {stem, _SUFFIX.sub("", stem), ".".join(first)} - {""}
