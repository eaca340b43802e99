"""What a recipe says of a model's inputs, put together with what the model itself says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.config.recipe import DeclaredInput
from pipeline.core.errors import UsageError
from pipeline.core.model_spec import InputSpec
from pipeline.source.axes import written
from pipeline.source.states import fits, pair_states
from pipeline.tasks.output_kind import Output

Declared = Mapping[str, DeclaredInput]


def whole(declared: Declared, example: Mapping[str, InputSpec]) -> dict[str, InputSpec]:
    """The inputs of a PyTorch factory: those declared, where it has an `example` with what that leaves out, and
    otherwise the example's. UsageError if a shape is missing, or an input is to become a constant."""
    found = {}
    if declared and all(entry.shape is None for entry in declared.values()) and set(declared) <= set(example):
        declared = {name: _beside(spec, declared.get(name)) for name, spec in example.items()}
    for name, entry in declared.items():
        if entry.fold:
            raise UsageError(
                f"[inputs.{name}] fold = true is for ONNX files.",
                "Bind the value in the factory, or leave fold out: the input is then fed with its value.",
            )
        if entry.shape is None:
            raise UsageError(
                f"The recipe does not say which shape the input {name!r} has.",
                f'Give [inputs.{name}] a line like shape = ["batch", 3, 32, 32].',
            )
        found[name] = InputSpec.from_data(entry.model_dump(exclude_none=True), f"[inputs.{name}] of the recipe")
    return found or dict(example)


def _beside(spec: InputSpec, said: DeclaredInput | None) -> DeclaredInput:
    known = spec.model_dump(include={"shape", "dtype", "values", "next"})
    return DeclaredInput.model_validate({**known, **(said.model_dump(exclude_none=True) if said else {})})


def merged(
    found: Mapping[str, InputSpec], declared: Declared, outputs: Sequence[Output], name: str
) -> dict[str, InputSpec]:
    """The inputs of the file `name` with what is declared of them, and the output that is the next value of each that
    may be a state. UsageError if what is declared does not fit the file."""
    unknown = [key for key in declared if key not in found]
    if unknown:
        raise UsageError(f"{name!r} has no input {unknown[0]!r}, which [inputs] names.", f"It has {', '.join(found)}.")
    pairs = pair_states(found, outputs) | {key: entry.next for key, entry in declared.items() if entry.next}
    inputs = {}
    for key, spec in found.items():
        said = declared.get(key, DeclaredInput())
        whole_spec = _merged(spec, said, f"the input {key!r} of {name}")
        if said.next is not None:
            _check_next(whole_spec, said.next, outputs, f"the input {key!r} of {name}")
        inputs[key] = whole_spec.model_copy(update={"next": pairs.get(key)})
    return inputs


def _merged(spec: InputSpec, said: DeclaredInput, what: str) -> InputSpec:
    shape = spec.shape if said.shape is None else said.shape
    differs = any(isinstance(own, int) and own != size for own, size in zip(spec.shape, shape, strict=False))
    if len(shape) != len(spec.shape) or differs or said.dtype not in (None, spec.dtype):
        raise UsageError(
            f"The recipe says that {what} is {said.dtype or spec.dtype} {written(shape)}; the file has {spec.dtype} "
            f"{written(spec.shape)}.",
            "Declare what the file has: only the size of a dynamic axis can be fixed.",
        )
    return InputSpec.from_data({**spec.model_dump(), **said.model_dump(exclude_none=True)}, what)


def _check_next(spec: InputSpec, output: str, outputs: Sequence[Output], what: str) -> None:
    """UsageError if a declared next value is no output, or does not fit the input."""
    if not any(each.name == output and fits(spec, each) for each in outputs):
        raise UsageError(
            f"The recipe says that {output!r} is the next value of {what}, {spec.dtype} {written(spec.shape)}; the "
            f"file has the outputs {', '.join(map(str, outputs))}.",
            "Name the output that has the input's shape and dtype.",
        )
