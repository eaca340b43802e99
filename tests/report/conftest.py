"""One realistic report with every kind of verdict, and a bare one."""

from __future__ import annotations

import math

import pytest

from pipeline.core.report_types import (
    BudgetResult,
    Coverage,
    DatasetAccuracy,
    HostInfo,
    LatencyResult,
    MemoryResult,
    OperatorTime,
    PassReport,
    Report,
    SkippedTensor,
    StageRecord,
    TensorGroup,
    Trial,
)
from pipeline.core.types import Evidence, Figure, Scheme, Verdict

HOST, DEVICE = Evidence.HOST, Evidence.DEVICE
HOSTILE = "all-MiniLM-L6-v2 <script>alert('x')</script>"

FIGURES = {
    "latency_p95_ms": Figure(value=18.24, unit="ms", evidence=HOST, low=17.61, high=19.02),
    "bundle_mb": Figure(value=23.4, unit="MB", evidence=HOST),
    "max_accuracy_drop": Figure(value=0.19, unit="points", evidence=HOST, low=-0.12, high=0.51),
    "min_top10_overlap": Figure(value=0.89996, unit="share", evidence=HOST, low=0.891, high=0.909),
    "min_speedup": Figure(value=2.31, unit="x", evidence=HOST, low=2.24, high=2.38, note="interleaved"),
}


def budget_results() -> tuple[BudgetResult, ...]:
    """PASS, PASS, PASS, FAIL, required NOT_MEASURED, optional NOT_MEASURED."""
    most, least = {"direction": "at most"}, {"direction": "at least"}
    passed = {"required": True, "accepts": (HOST, DEVICE), "verdict": Verdict.PASS}
    missing = {"accepts": (DEVICE,), "verdict": Verdict.NOT_MEASURED}
    data = [
        {"metric": "latency_p95_ms", "unit": "ms", "limit": 25.0, "margin": 6.76, **most, **passed},
        {"metric": "bundle_mb", "unit": "MB", "limit": 25.0, "margin": 1.6, **most, **passed},
        {"metric": "max_accuracy_drop", "unit": "points", "limit": 1.0, "margin": 0.81, **most, **passed},
        {
            "metric": "min_top10_overlap",
            "unit": "share",
            "limit": 0.9,
            "margin": -0.00004,
            "reason": "0.89996 < 0.9 on ag-news",
            "dominated_by": ("encoder.layer.5.output.dense (38 %)", "embeddings.word_embeddings (21 %)"),
            "remedy": "Leave encoder.layer.5.output.dense in float: nodes_to_exclude in the recipe's scheme.",
            **least,
            **passed,
            "verdict": Verdict.FAIL,
        },
        {
            "metric": "peak_memory_mb",
            "unit": "MB",
            "limit": 150.0,
            "required": True,
            "reason": "only device evidence counts, and no device is connected",
            "remedy": "Connect the phone and run `edge check` again.",
            **most,
            **missing,
        },
        {
            "metric": "max_power_w",
            "unit": "W",
            "limit": 2.5,
            "required": False,
            "reason": "no power meter on this host",
            **most,
            **missing,
        },
    ]
    figures = [FIGURES.get(str(item["metric"])) for item in data]
    rows = zip(data, figures, strict=True)
    return tuple(BudgetResult.model_validate(item | {"figure": figure}) for item, figure in rows)


def samples(median: float, how_many: int = 300) -> tuple[float, ...]:
    """A skewed distribution without randomness: Weibull quantiles above 0.97 of the median."""
    quantiles = [(index + 0.5) / how_many for index in range(how_many)]
    return tuple(median * (0.97 + 0.04 * (-math.log(1 - q)) ** 0.8) for q in quantiles)


def latency() -> LatencyResult:
    times = sorted(samples(17.5))
    at = {name: times[int(len(times) * share)] for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}
    figures = {name: Figure(value=value, unit="ms", evidence=HOST) for name, value in at.items()}
    return LatencyResult(
        shape={"input_ids": (1, 128), "attention_mask": (1, 128)},
        threads=1,
        warmup=20,
        samples_ms=samples(17.5),
        float_samples_ms=samples(40.4),
        p95=FIGURES["latency_p95_ms"],
        speedup=FIGURES["min_speedup"],
        **figures,
    )


def operators(times: dict[str, tuple[int, float]]) -> tuple[OperatorTime, ...]:
    total = sum(ms for _, ms in times.values())
    return tuple(OperatorTime(op_type=k, count=n, ms=ms, share=ms / total) for k, (n, ms) in times.items())


BUNDLE_TIMES = {
    "DynamicQuantizeMatMul": (24, 6.3),
    "MatMulIntegerToFloat": (12, 2.1),
    "MatMul": (12, 2.4),
    "LayerNormalization": (13, 1.9),
    "Add": (25, 1.2),
    "Gelu": (6, 1.4),
    "Softmax": (6, 0.9),
    "Transpose": (24, 0.5),
    "DynamicQuantizeLinear": (12, 0.4),
    "Gather": (3, 0.05),
    "DequantizeLinear": (3, 0.02),
    "Reshape": (24, 0.01),
}
FLOAT_TIMES = {"MatMul": (48, 32.7), "LayerNormalization": (13, 2.0), "Add": (25, 1.6), "Gelu": (6, 1.5)}


def tensors() -> tuple[TensorGroup, ...]:
    rows = [("embeddings.word_embeddings", "int8", 11.7), ("embeddings.position_embeddings", "float32", 0.79)]
    rows += [(f"encoder.layer.{index}", "int8", 1.77) for index in range(6)]
    rows += [(f"encoder.layer.{index}", "float32", 0.04) for index in range(6)]
    return tuple(TensorGroup(name=name, dtype=dtype, megabytes=mb, share=mb / 23.4) for name, dtype, mb in rows)


TRIALS = (
    Trial(label="float32", origin="float", megabytes=90.4, accuracy=100.0),
    Trial(label="w8a8-dynamic", origin="this run", megabytes=23.4, accuracy=99.81),
    Trial(label="w8a8-dynamic per tensor", origin="earlier run", megabytes=22.9, accuracy=99.54),
    Trial(label="w4 block 32", origin="earlier run", megabytes=14.3, accuracy=99.2),
    Trial(label="w8a8 static", origin="earlier run", megabytes=58.7, accuracy=97.69),
    *(
        Trial(label=f"search {i}", origin="search", megabytes=14.5 + i, accuracy=99.2 + 0.06 * i + 0.1 * (i % 3))
        for i in range(9)
    ),
)


@pytest.fixture(scope="session")
def bare() -> Report:
    """Nothing measured, nothing compressed."""
    return Report(
        model="tiny",
        model_digest="0" * 64,
        task="feature-extraction",
        target="phone",
        target_title="Mid-range phone",
        recipe="plain",
        scheme=Scheme(name="fp32", activations="float"),
        verdict=Verdict.NOT_MEASURED,
        exit_code=4,
        budgets=budget_results()[4:],
        figures={},
        host=HostInfo(cpu="Some CPU", isa=(), cores=1, memory_mb=2048, system="Linux"),
        versions={"onnxruntime": "1.31.1"},
        bundle_digest="1" * 64,
    )


@pytest.fixture(scope="session")
def report() -> Report:
    """Everything filled in, and a model name that is hostile to HTML."""
    scores = {"spearman_float": 82.03, "spearman_bundle": 81.84, "cosine": 0.9961}
    return Report(
        model=HOSTILE,
        model_digest="ab" * 32,
        task="feature-extraction",
        target="phone",
        target_title="Mid-range phone",
        recipe="balanced",
        scheme=Scheme(name="w8a8-dynamic", weights=8, activations="dynamic", embeddings=8),
        verdict=Verdict.FAIL,
        exit_code=1,
        budgets=budget_results(),
        figures=FIGURES
        | {"tokens_per_joule": Figure(value=812.0, unit="1/J", evidence=Evidence.ESTIMATED, low=640, high=990)},
        accuracy=(
            DatasetAccuracy(dataset="sts-b", samples=1379, labelled=True, primary="spearman", scores=scores, drop=0.19),
            DatasetAccuracy(
                dataset="ag-news",
                samples=600,
                labelled=False,
                primary="cosine",
                scores={"cosine": 0.9987},
                drop=0.13,
            ),
        ),
        latency=latency(),
        memory=MemoryResult(
            load_ms=Figure(value=84.1, unit="ms", evidence=HOST),
            load_peak_mb=Figure(value=45.2, unit="MB", evidence=HOST),
            run_peak_mb=Figure(value=52.9, unit="MB", evidence=HOST),
        ),
        operators=operators(BUNDLE_TIMES),
        float_operators=operators(FLOAT_TIMES),
        tensors=tensors(),
        coverage=Coverage(
            weights=Figure(value=0.9913, unit="share", evidence=HOST),
            macs=Figure(value=1.0, unit="share", evidence=HOST),
            integer_macs=Figure(value=0.894, unit="share", evidence=HOST),
            left_in_float=(
                SkippedTensor(name="pooler.bias", op_type="Add", megabytes=0.0015, reason="biases stay in float"),
                SkippedTensor(
                    name="embeddings.position_embeddings.weight",
                    op_type="Add",
                    megabytes=0.79,
                    reason="added, not looked up: there is no integer kernel for it",
                ),
            ),
        ),
        trials=TRIALS,
        calibration={"data": "text-en", "samples": 512, "seed": 0, "licence": "CC-BY-4.0"},
        passes=(
            PassReport.model_validate(
                {
                    "pass": "prune",
                    "heads": [0, 3],
                    "ratio": 0.25,
                    "parameters_before": 22_700_000,
                    "parameters_after": 19_100_000,
                }
            ),
        ),
        stages=(
            StageRecord(name="source", key="c0ffee" * 10, cached=True, seconds=0.0),
            StageRecord(name="trace", key="decade" * 10, cached=False, seconds=4.83),
        ),
        host=HostInfo(
            cpu="Intel(R) Xeon(R) Platinum 8481C",
            isa=("avx2", "avx512_vnni"),
            cores=2,
            memory_mb=8192,
            system="Linux 6.1",
        ),
        versions={"onnxruntime": "1.31.1", "torch": "2.13.0"},
        bundle_digest="cd" * 32,
        notes=("The calibration samples are random: use your own data for a release.", "A < B & C"),
    )
