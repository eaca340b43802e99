"""Which output is the next value of which input."""

from __future__ import annotations

import pytest

from pipeline.config.recipe import DeclaredInput
from pipeline.core.errors import UsageError
from pipeline.core.model_spec import InputSpec
from pipeline.source.declared import merged
from pipeline.source.states import pair_states
from pipeline.tasks.output_kind import Output


def spec(*shape: int | str, dtype: str = "float32") -> InputSpec:
    return InputSpec.model_validate({"shape": shape, "dtype": dtype})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        *(("state", "stateN"), ("h", "hn"), ("h0", "hn"), ("c", "cn"), ("hidden_in", "hidden_out"), ("r1i", "r1o")),
        *(("conv_cache", "conv_cache_out"), ("past_key_values.0.key", "present.0.key"), ("prev_h", "h")),
        *(("mem", "next_mem"), ("stateIn", "stateOut"), ("lstm.state.1", "new_lstm.state.1")),
    ],
)
def test_pairs_by_name(before: str, after: str) -> None:
    """Two others of the same shape stand beside the right one, so that the shape does not tell."""
    inputs = {"x": spec("batch", 8), before: spec(2, "batch", 4)}
    alike = [Output(name, "float32", (2, None, 4)) for name in ("some", after, "other")]
    outputs = [Output("y", "float32", (None, 3)), *alike]
    assert pair_states(inputs, outputs) == {before: after}


def test_pairs_by_the_only_shape() -> None:
    inputs = {"a": spec("batch", 8), "b": spec(1, 2, 128, 2), "c": spec(1, 4)}
    outputs = [
        Output("one", "float32", (None, 8)),
        Output("two", "float32", (None, 2, None, 2)),
        Output("three", "float32", (1, 5)),
    ]
    assert pair_states(inputs, outputs) == {"b": "two"}, "the first output is no state unless it is named so"


@pytest.mark.parametrize(
    "outputs",
    [
        [Output("y", "float32", (1, 4)), Output("hn", "float32", (1, 5))],
        [Output("y", "float32", (1, 4)), Output("hn", "float16", (1, 4))],
        [Output("y", "float32", (1, 4)), Output("hn", "float32", (1, 1, 4))],
        [Output("y", "float32", (1, 4)), Output("p", "float32", (1, 4)), Output("q", "float32", (1, 4))],
        [Output("y", "float32", (1, 4))],
    ],
    ids=["size", "dtype", "rank", "two", "none"],
)
def test_no_pair(outputs: list[Output]) -> None:
    assert pair_states({"h": spec(1, 4), "ids": spec("batch", 4, dtype="int64"), "rate": spec()}, outputs) == {}


FOUND = {"x": spec("batch", 3, "axis2"), "h": spec(1, "batch", 4)}
OUTPUTS = [Output("y", "float32", (None, 2)), Output("a", "float32", (1, None, 4)), Output("b", "float32", None)]


def test_a_recipe_fixes_axes_and_names_states() -> None:
    declared = {
        "x": DeclaredInput(shape=("batch", 3, 160), values=5),
        "h": DeclaredInput(next="b"),
    }
    assert merged(FOUND, declared, OUTPUTS, "m.onnx") == {
        "x": spec("batch", 3, 160).model_copy(update={"values": 5}),
        "h": spec(1, "batch", 4).model_copy(update={"next": "b"}),
    }


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"z": DeclaredInput()}, "'m.onnx' has no input 'z', which [inputs] names."),
        (
            {"x": DeclaredInput(shape=("batch", 4, 160))},
            "The recipe says that the input 'x' of m.onnx is float32 [batch, 4, 160]; the file has float32 [batch, 3, "
            "axis2].",
        ),
        (
            {"x": DeclaredInput(dtype="int64")},
            "The recipe says that the input 'x' of m.onnx is int64 [batch, 3, axis2]; the file has float32 [batch, 3, "
            "axis2].",
        ),
        (
            {"h": DeclaredInput(next="y")},
            "The recipe says that 'y' is the next value of the input 'h' of m.onnx, float32 [1, batch, 4]; the file "
            "has the outputs y float32 [?, 2], a float32 [1, ?, 4], b float32 [?].",
        ),
    ],
    ids=["unknown", "size", "dtype", "state"],
)
def test_what_a_recipe_says_must_fit_the_file(declared: dict[str, DeclaredInput], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        merged(FOUND, declared, OUTPUTS, "m.onnx")
    assert caught.value.message == message
