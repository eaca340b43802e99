from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.errors import UsageError
from pipeline.core.types import Scheme
from pipeline.quantize.schemes import OBSERVERS, SCHEMES, describe, resolve_scheme

WHERE = "recipe r"


def refusal(given: str | dict[str, Any], **overrides: Any) -> tuple[str, str]:
    with pytest.raises(UsageError) as caught:
        resolve_scheme(given, overrides, WHERE)
    return caught.value.message, caught.value.remedy


@pytest.mark.parametrize("name", list(SCHEMES))
def test_every_registered_scheme_resolves_to_itself(name: str) -> None:
    scheme = resolve_scheme(name, {}, WHERE)
    assert scheme == SCHEMES.get(name)
    assert scheme.name == name


@pytest.mark.parametrize(
    ("name", "formats"),
    [
        ("fp32", (32, "float", 32)),
        ("w8a8-dynamic", (8, "dynamic", 8)),
        ("w8a8", (8, "static", 8)),
        ("w8", (8, "float", 8)),
        ("w4", (4, "float", 4)),
        ("w4a8", (4, "float", 4)),
        ("w4a8-dynamic", (4, "dynamic", 4)),
        ("fp16", (16, "float", 16)),
    ],
)
def test_names_say_the_formats(name: str, formats: tuple[int, str, int]) -> None:
    scheme = SCHEMES.get(name)
    assert (scheme.weights, scheme.activations, scheme.embeddings) == formats


@pytest.mark.parametrize("name", list(OBSERVERS))
def test_every_registered_observer_can_be_named(name: str) -> None:
    assert resolve_scheme("w8a8", {"observer": name}, WHERE).observer == name
    assert OBSERVERS.get(name)


def test_flags_win_over_the_table_and_the_table_over_its_base() -> None:
    table = {"base": "w8a8", "percentile": 99.0, "observer": "percentile"}
    scheme = resolve_scheme(table, {"percentile": 99.9}, WHERE)
    assert (scheme.weights, scheme.observer, scheme.percentile) == (8, "percentile", 99.9)
    assert table == {"base": "w8a8", "percentile": 99.0, "observer": "percentile"}


def test_description_is_plain_data_that_comes_back() -> None:
    plain = describe(SCHEMES.get("w8a8"))
    assert plain["smoothing"] == 0.75
    assert Scheme.model_validate(plain) == SCHEMES.get("w8a8")


def test_unknown_name() -> None:
    assert refusal("w8a9") == ("Unknown scheme 'w8a9'.", "Did you mean 'w8a8' or 'w8'?")
    assert refusal("int8") == (
        "Unknown scheme 'int8'.",
        "Allowed: fp16, fp32, w4, w4a8, w4a8-dynamic, w4a8-static, w8, w8a16-npu, w8a8, w8a8-dynamic, w8a8-npu.",
    )


def test_table_without_a_base() -> None:
    assert refusal({"weights": 8}) == (
        "recipe r: a scheme table needs `base`.",
        "Allowed: fp32, w8a8-dynamic, w8a8, w8, w4, w4a8, w4a8-dynamic, w4a8-static, w8a8-npu, w8a16-npu, fp16.",
    )


def test_unknown_keys_and_values_are_all_named() -> None:
    message, _ = refusal({"base": "w4", "weigths": 8, "block_size": 33})
    assert message == (
        "the scheme of recipe r has 2 mistakes:\n"
        "  - block_size: Input should be 16, 32, 64, 128 or 256 (given: 33)\n"
        "  - weigths: unknown key. Did you mean 'weights'?"
    )


def test_unknown_observer() -> None:
    assert refusal("w8a8", observer="percentil") == ("Unknown observer 'percentil'.", "Did you mean 'percentile'?")


@pytest.mark.parametrize(
    ("base", "overrides", "message", "remedy"),
    [
        (
            "w4",
            {"weights": 16, "rounding": "nearest", "activations": "static"},
            "The scheme 'w4' rounds activations to 8 bits (static) but stores weights in 16.",
            'Use weights = 8 or 4, or activations = "float".',
        ),
        (
            "w8a8",
            {"weights": 32},
            "The scheme 'w8a8' rounds activations to 8 bits (static) but stores weights in 32.",
            'Use weights = 8 or 4, or activations = "float".',
        ),
        (
            "w4",
            {"weights": 8},
            "The scheme 'w4' asks for GPTQ but stores weights in 8 bits.",
            'Use weights = 4 or 2, or rounding = "nearest": from 8 bits on it costs next to nothing.',
        ),
        (
            "w8",
            {"rounding": "learned"},
            "The scheme 'w8' asks for learned rounding but stores no products in blocks of 4 or 2 bits.",
            'Use weights = 4 or 2 with activations = "float", or rounding = "nearest".',
        ),
        (
            "w4a8-dynamic",
            {"rounding": "learned"},
            "The scheme 'w4a8-dynamic' asks for learned rounding but stores no products in blocks of 4 or 2 bits.",
            'Use weights = 4 or 2 with activations = "float", or rounding = "nearest".',
        ),
        (
            "w4a8",
            {"rounding": "learned", "smoothing": 0.5},
            "The scheme 'w4a8' learns the codes of weights that smoothing = 0.5 changes.",
            "Leave smoothing out: it helps products on rounded inputs, and learned ones are of float inputs.",
        ),
        (
            "w4a8",
            {"learning": {"epochs": 3}},
            "The scheme 'w4a8' has [scheme.learning], but rounding = 'gptq'.",
            'Add rounding = "learned", or remove the table.',
        ),
        (
            "w4a8",
            {"weights": 2},
            "The scheme 'w4a8' stores products in 2-bit blocks of 32, slower in ONNX Runtime than those of 4 bits.",
            "Use block_size = 64 or more.",
        ),
        (
            "w4",
            {"weights": 2, "block_size": 64},
            "The scheme 'w4' stores products in 2 bits with accuracy_level = 0.",
            "Use accuracy_level = 4: ONNX Runtime computes others 100 times slower.",
        ),
        (
            "w4a8-dynamic",
            {"weights": 2, "block_size": 64},
            "The scheme 'w4a8-dynamic' rounds activations to 8 bits (dynamic) but stores weights in 2.",
            'Use weights = 8 or 4, or activations = "float".',
        ),
        (
            "w4a8-static",
            {"symmetric": False},
            "The scheme 'w4a8-static' has zero points (symmetric = false), which blocks widened to 8 bits do not.",
            'Use activations = "float" with accuracy_level = 4, or symmetric = true.',
        ),
        (
            "w8a8",
            {"activation_aware": True},
            "The scheme 'w8a8' has smoothing and activation_aware, which scale the same channels.",
            "Leave one of the two out: smoothing is for inputs rounded to 8 bits, activation_aware for weights.",
        ),
        (
            "w8a8",
            {"average_bits": 3.0},
            "The scheme 'w8a8' has average_bits = 3 beside activations = \"static\".",
            "It chooses among blocks of 2, 4 and 8 bits, with float activations (accuracy_level 4 rounds them), and "
            "leaves nothing in float.",
        ),
        (
            "w4a8",
            {"average_bits": 3.0, "min_sqnr_db": 20.0},
            "The scheme 'w4a8' has average_bits = 3 beside min_sqnr_db.",
            "It chooses among blocks of 2, 4 and 8 bits, with float activations (accuracy_level 4 rounds them), and "
            "leaves nothing in float.",
        ),
        (
            "w8a8",
            {"percentile": 0.999},
            "The scheme 'w8a8' has the percentile 0.999.",
            "It is the share of values that a range holds, in percent: above 50, at most 100.",
        ),
        (
            "w8a8",
            {"percentile": 100.5},
            "The scheme 'w8a8' has the percentile 100.5.",
            "It is the share of values that a range holds, in percent: above 50, at most 100.",
        ),
    ],
)
def test_inconsistent_schemes(base: str, overrides: dict[str, Any], message: str, remedy: str) -> None:
    assert refusal(base, **overrides) == (message, remedy)
