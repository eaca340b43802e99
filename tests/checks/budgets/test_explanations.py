"""What dominates a figure that missed its limit, and remedies that would help."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from measured import FP32, SCHEME, W8A8, figure, judged, measured

from pipeline.checks.budgets.coverage import EXCLUDED
from pipeline.checks.budgets.metric import METRICS, NO_REFERENCE, Absent, Explained
from pipeline.checks.explain import finer_formats
from pipeline.checks.measurements import Measurements
from pipeline.checks.weights import Weight
from pipeline.config.target import Runtime
from pipeline.core.report_types import (
    Coverage,
    DatasetAccuracy,
    DecodingResult,
    MemoryResult,
    OperatorTime,
    Overflow,
    SaturatingLayer,
    SkippedTensor,
    TensorGroup,
)
from pipeline.core.types import Figure, Scheme
from pipeline.formats.int8_channel import NOISY, SLOW
from pipeline.quantize.schemes import SCHEMES
from pipeline.tasks.registry import OUTPUTS


def explain(name: str, limit: float, found: Measurements) -> Explained:
    return METRICS.get(name).explain(limit, found)


TABLE = Weight("embeddings.codes", "Gather", (31_250, 384), 12_000_000, 8)
LINEAR = Weight("layer.codes", "MatMulInteger", (2_200, 5_000), 11_000_000, 8)


def _groups() -> tuple[TensorGroup, ...]:
    return (
        TensorGroup(name="embeddings", dtype="int8", megabytes=12.0, share=0.52),
        TensorGroup(name="encoder.layer.0", dtype="int8", megabytes=11.0, share=0.48),
    )


def test_a_bundle_that_is_too_large_names_a_format_that_fits() -> None:
    """23 MB of weights and 1 MB beside them. This scheme's 4-bit tables take 4 + 32/32 of 8 bits: 24 - 12 * 3/8; those
    of w4 4 + 16/128, its products 4 + 16/32: 1 + 12 * 4.125/8 + 11 * 4.5/8."""
    found = measured(megabytes=24.0, tensors=_groups(), weights=(TABLE, LINEAR))
    dominated, remedy = explain("bundle_mb", 20.0, found)
    assert dominated == ("embeddings (int8): 12.00 MB, 52%", "encoder.layer.0 (int8): 11.00 MB, 48%")
    assert remedy == "embeddings = 4 would bring it to about 19.5 MB."
    assert explain("bundle_mb", 14.0, found)[1] == "the scheme w4 would bring it to about 13.4 MB."
    assert explain("bundle_mb", 5.0, found)[1] == (
        "No format reaches 5 MB alone (the smallest, the scheme w4, comes to about 13.4 MB): prune, or choose a "
        "smaller model."
    )


@pytest.mark.parametrize(
    ("weights", "left", "scheme", "limit", "remedy"),
    [
        # no tables: the remedy that fits is w4
        ((LINEAR,), (), SCHEME, 9.0, "the scheme w4 would bring it to about 7.2 MB."),
        # rows of an odd number of values cannot be packed in 4 bits
        ((replace(TABLE, dims=(4_000_000, 3)),), (), SCHEME, 9.0, "No format reaches 9 MB alone: prune, "),
        # w4 would turn convolutions to float
        ((Weight("c", "Conv", (10, 10, 3, 3), 11_000_000, 8),), (), W8A8, 9.0, "No format reaches 9 MB alone: prune, "),
        # an LSTM is stored in 8 bits, and what was excluded stays what it is
        (
            (Weight("l", "LSTM", (1, 4, 4), 3_000_000, 32),),
            (),
            SCHEME,
            9.0,
            "the scheme fp16 would bring it to about 6.0 MB.",
        ),
        (
            (replace(LINEAR, name="x", bits=32, values=2_750_000),),
            (SkippedTensor(name="x", op_type="MatMul", megabytes=11.0, reason="excluded by name"),),
            SCHEME,
            9.0,
            "No format reaches 9 MB alone: prune, ",
        ),
        # from float, the format that keeps most accuracy comes first
        (
            (replace(LINEAR, bits=32, values=2_750_000),),
            (),
            FP32,
            7.0,
            "the scheme fp16 would bring it to about 6.5 MB.",
        ),
    ],
)
def test_sizes_in_other_formats(
    weights: tuple[Weight, ...], left: tuple[SkippedTensor, ...], scheme: Scheme, limit: float, remedy: str
) -> None:
    """12 MB, 11 of them the weights."""
    share = figure(0.5, "share")
    covered = Coverage(weights=share, macs=share, integer_macs=share, left_in_float=left)
    found = measured(scheme, megabytes=12.0, tensors=_groups(), weights=weights, coverage=covered)
    assert explain("bundle_mb", limit, found)[1].startswith(remedy)


def test_lost_accuracy_names_its_sets_and_formats_that_are_finer() -> None:
    sets = tuple(
        DatasetAccuracy(dataset=name, samples=9, labelled=False, primary="agreement", scores={}, drop=drop)
        for name, drop in (("mild", 0.5), ("bad", 4.25))
    )
    assert explain("max_accuracy_drop", 1.0, measured(accuracy=sets))[0] == (
        "bad: 4.25 points",
        "mild: 0.50 points",
    )
    assert explain("max_power_w", 1.0, measured()) == ((), "")
    assert explain("max_accuracy_drop", 1.0, measured(FP32, accuracy=sets))[1] == (
        "Compress less in passes, if there are some, or recover with the distill pass (of a PyTorch model)."
    )


@pytest.mark.parametrize(
    ("scheme", "weights", "expected"),
    [
        (FP32, (LINEAR,), []),
        (SCHEMES.get("fp16"), (LINEAR,), ["the scheme fp32"]),
        (
            SCHEMES.get("w8"),
            (LINEAR,),
            ["min_sqnr_db, which leaves sensitive layers in float, in the recipe's scheme", "the scheme fp16"],
        ),
        (
            SCHEMES.get("w8a8").model_copy(update={"min_sqnr_db": 20.0}),
            (LINEAR,),
            ['another smoothing than 0.75 or observer = "percentile" in the recipe\'s scheme', "the scheme fp16"],
        ),
        (
            SCHEMES.get("w4").model_copy(update={"min_sqnr_db": 20.0}),
            (replace(LINEAR, bits=4), replace(TABLE, bits=4)),
            ["embeddings = 8 in the recipe's scheme", "a smaller --block-size", "the scheme w8"],
        ),
        # nothing is in blocks, or they are as small as can be
        (SCHEMES.get("w4").model_copy(update={"min_sqnr_db": 20.0}), (), ["the scheme w8"]),
        (
            SCHEMES.get("w4").model_copy(update={"min_sqnr_db": 20.0, "block_size": 16}),
            (replace(LINEAR, bits=4),),
            ["the scheme w8"],
        ),
    ],
)
def test_finer_formats_are_named_where_they_help(
    scheme: Scheme, weights: tuple[Weight, ...], expected: list[str]
) -> None:
    assert finer_formats(measured(scheme, weights=weights)) == expected


def _times(**ms: float) -> tuple[OperatorTime, ...]:
    return tuple(OperatorTime(op_type=name, count=1, ms=value, share=value / 10) for name, value in ms.items())


@pytest.mark.parametrize(
    ("operators", "before", "scheme", "remedy"),
    [
        ({"DynamicQuantizeMatMul": 8.0}, {"MatMul": 7.0}, SCHEME, "On this machine the products with 8-bit arithmetic"),
        ({"MatMulIntegerToFloat": 6.0, "DynamicQuantizeLinear": 2.0}, {"MatMul": 7.0}, SCHEME, "Rounding activations"),
        (
            {"DynamicQuantizeMatMul": 3.0, "Softmax": 5.0},
            {"MatMul": 7.0, "Softmax": 1.0},
            SCHEME,
            "The products are faster",
        ),
        ({"MatMul": 7.0}, {"MatMul": 7.0}, FP32, "The scheme fp32 multiplies in float, as the float model does: "),
        ({"MatMul": 7.0}, {}, SCHEME, ""),
    ],
)
def test_a_lost_speedup_says_what_is_slow(
    operators: dict[str, float], before: dict[str, float], scheme: Scheme, remedy: str
) -> None:
    found = measured(scheme, operators=_times(**operators), float_operators=_times(**before))
    dominated, said = explain("min_speedup", 1.0, found)
    assert said.startswith(remedy)
    assert bool(said) == bool(remedy)
    assert ("products: " in dominated[-1]) == bool(before)


def test_latency_names_a_length_only_where_there_is_one() -> None:
    slow = (OperatorTime(op_type="MatMul", count=36, ms=7.5, share=0.75),)
    text = measured(operators=slow, takes_text=True)
    assert explain("latency_p50_ms", 1.0, text) == (
        ("MatMul x36: 7.50 ms, 75%",),
        "What takes less time: a smaller --sequence-length or the prune pass (of a PyTorch model).",
    )
    images = measured(FP32, operators=slow)
    assert explain("latency_p50_ms", 1.0, images)[1] == (
        "What takes less time: the prune pass (of a PyTorch model) or a scheme with INT8 arithmetic (w8a8-dynamic, "
        "w8a8)."
    )


def test_what_takes_no_passes_is_told_of_none() -> None:
    slow = _times(MatMul=7.5)
    found = measured(operators=slow, takes_passes=False, megabytes=24.0, tensors=_groups(), weights=(TABLE, LINEAR))
    assert explain("latency_p50_ms", 1.0, found)[1] == ""
    assert explain("bundle_mb", 5.0, found)[1] == (
        "No format reaches 5 MB alone (the smallest, the scheme w4, comes to about 13.4 MB): choose a smaller model."
    )
    faster = measured(operators=slow, float_operators=_times(MatMul=9.0), takes_passes=False)
    assert explain("min_speedup", 2.0, faster)[1] == (
        "The products are faster than in float, and what is left no format makes faster."
    )
    assert "pass" not in explain("max_accuracy_drop", 1.0, found)[1]


def test_memory_that_is_used_already_is_not_saved_again() -> None:
    peaks = MemoryResult(load_ms=figure(1, "ms"), load_peak_mb=figure(50), run_peak_mb=figure(40))
    parts = {"megabytes": 24.0, "memory": peaks, "tensors": _groups()}
    found = measured(**parts, weights=(TABLE, LINEAR))
    assert explain("peak_memory_mb", 45, found)[1].startswith("Try session_config = ")
    done = Runtime(session_config={"session.disable_prepacking": "1"})
    assert explain("peak_memory_mb", 45, measured(**parts, weights=(TABLE, LINEAR), runtime=done))[1] == ""
    assert explain("peak_memory_mb", 20, found)[1] == (
        "The stored tensors alone take 23.0 MB: a smaller format or pruning has to come first."
    )
    writes = measured(
        **parts, weights=(TABLE, LINEAR), decoding=DecodingResult(prompts=(), rates={}, cache_bytes_per_token=64)
    )
    assert explain("peak_memory_mb", 45, writes)[1].startswith("Keys and values of the whole context count: ")
    smallest = SCHEMES.get("w4")
    packed = measured(smallest, **parts, weights=(replace(TABLE, bits=4), replace(LINEAR, bits=4)))
    assert "pruning or a smaller model" in explain("peak_memory_mb", 20, packed)[1]


def _left(name: str, op_type: str, megabytes: float, reason: str) -> SkippedTensor:
    return SkippedTensor(name=name, op_type=op_type, megabytes=megabytes, reason=reason)


@pytest.mark.parametrize(
    ("left", "limit", "scheme", "remedy"),
    [
        # 0.6 of the weights are covered, 0.3 were excluded, 0.1 cannot be taken
        ([_left("a", "MatMul", 3, EXCLUDED), _left("l", "LSTM", 1, "none")], 0.9, SCHEME, "Take these layers off "),
        (
            [_left("a", "MatMul", 3, EXCLUDED), _left("l", "LSTM", 1, "none")],
            0.95,
            SCHEME,
            "Take the excluded layers off --nodes-to-exclude; for what no scheme takes, lower the budget.",
        ),
        (
            [_left("l", "LSTM", 4, "none")],
            0.9,
            SCHEME,
            "No scheme takes what is left: lower the budget ",
        ),
        (
            [_left("c", "Conv", 4, "slower")],
            0.9,
            SCHEME,
            "Choose the scheme w8a8, which runs convolutions in integers where that is faster; for what ",
        ),
        (
            [_left("c", "Conv", 4, f"stored in 8 bits and computed in float: {SLOW}")],
            0.9,
            W8A8,
            "Convolutions that integers would make slower run in float: lower the budget to 0.6 (min_speedup and "
            "max_accuracy_drop judge what came of it), or give them int8-channel in [scheme.overrides].",
        ),
        (
            [_left("c", "Conv", 3, f"{NOISY} 21 dB"), _left("d", "Conv", 1, SLOW), _left("e", "Conv", 1, EXCLUDED)],
            0.9,
            W8A8,
            "Take the excluded layers off --nodes-to-exclude; for what no scheme takes, lower the budget. Convolutions "
            "that integers would make slower or less accurate run in float: lower the budget to 0.6 ",
        ),
        (
            [_left("c", "Conv", 4, "small")],
            0.9,
            W8A8,
            "No scheme takes what is left: lower the budget ",
        ),
        (
            [_left("a", "MatMul", 4, "float")],
            0.9,
            FP32,
            "Choose a scheme that stores weights and embeddings ",
        ),
    ],
)
def test_coverage_names_what_would_raise_it(
    left: list[SkippedTensor], limit: float, scheme: Scheme, remedy: str
) -> None:
    share = figure(0.6, "share")
    covered = Coverage(weights=share, macs=share, integer_macs=share, left_in_float=tuple(left))
    assert explain("min_weight_coverage", limit, measured(scheme, coverage=covered))[1].startswith(remedy)


def test_what_is_not_shown_of_the_layers_in_float_is_counted() -> None:
    share = figure(0.6, "share")
    left = tuple(_left(f"l{number}", "LSTM", 0.5, "none") for number in range(5))
    found = measured(coverage=Coverage(weights=share, macs=share, integer_macs=share, left_in_float=left))
    assert explain("min_mac_coverage", 0.9, found)[0][2:] == (
        "l2 (LSTM): 0.50 MB, none",
        "and 2 more, 1.00 MB together",
    )


def _labelled(name: str, score: float, of_float: float, labelled: bool = True) -> DatasetAccuracy:
    scores = {"accuracy": score, "accuracy_float": of_float, "agreement": 0.9} if labelled else {"agreement": 0.9}
    drop = of_float - score
    return DatasetAccuracy(dataset=name, samples=9, labelled=labelled, primary="accuracy", scores=scores, drop=drop)


def test_the_score_against_labels_is_that_of_the_worst_labelled_set() -> None:
    sets = (_labelled("good", 90.0, 91.0), _labelled("bad", 71.5, 73.0), _labelled("bare", 0.0, 0.0, labelled=False))
    score = METRICS.get("min_score").figure(judged("classifier", *sets))
    assert isinstance(score, Figure)
    assert (score.value, score.unit, score.note) == (71.5, "points", "worst set: bad (accuracy, 73.00 in float)")
    told = METRICS.get("min_score").on_set
    assert told is not None
    assert told(OUTPUTS.get("classifier"))(sets[2]) == -inf
    assert METRICS.get("min_score").figure(judged("classifier", *sets[2:])) == Absent(
        "no evaluation set has labels that are used"
    )
    assert METRICS.get("min_score").figure(measured(accuracy=sets)) == Absent(NO_REFERENCE)


def test_a_score_that_float_lacks_too_points_at_the_inputs() -> None:
    parts, remedy = explain("min_score", 80.0, measured(accuracy=(_labelled("bad", 71.5, 73.0),)))
    assert parts == ("bad: 73.00 points in float",)
    assert remedy.startswith("The float model does not reach it either: look at the pre-processing")
    parts, remedy = explain("min_score", 80.0, measured(accuracy=(_labelled("lost", 71.5, 90.0),)))
    assert parts == ("lost: 18.50 points",)


def test_weights_that_overflow_name_their_layers_and_the_way_out() -> None:
    layer = SaturatingLayer(name="dense", op_type="MatMulInteger", share=0.25)
    counted = Overflow(pairs=200, overflowing=10, layers=(layer,))
    share = METRICS.get("max_overflow").figure(measured(overflow=counted))
    assert isinstance(share, Figure)
    assert (share.value, share.note) == (0.05, "10 of 200 pairs")
    full = SCHEMES.get("w8a8").model_copy(update={"reduce_range": False})
    assert explain("max_overflow", 0.0, measured(full, overflow=counted)) == (
        ("dense (MatMulInteger): 25.0%",),
        "Set reduce_range = true in the recipe's scheme: its weights cannot overflow.",
    )
    assert explain("max_overflow", 0.0, measured(overflow=counted))[1].startswith(
        "The scheme's own weights cannot overflow"
    )
