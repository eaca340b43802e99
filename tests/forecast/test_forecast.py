"""Figures of a small model on a device of round numbers, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.loading import load_target
from pipeline.config.target import Target
from pipeline.core.types import Scheme
from pipeline.forecast import forecast as module
from pipeline.forecast.forecast import SchemeForecast, forecast
from pipeline.forecast.rates import OTHER_RUNTIME, Range, Rates, known_devices, rates_of
from pipeline.forecast.shapes import Attention, ModelShapes, Weight
from pipeline.quantize.schemes import SCHEMES

W4A8, FP32 = SCHEMES.get("w4a8"), SCHEMES.get("fp32")
PRODUCTS, HEAD = 1024 * 1024, 1024 * 4096
RATES = Rates(
    Range(low=1, typical=2, high=4),
    Range(low=100, typical=200, high=400),
    Range(low=10, typical=20, high=40),
    "by hand",
)


def shapes(tied: bool = True, window: int | None = None) -> ModelShapes:
    weights = {
        Weight("table", (4096, 1024)): 1,
        Weight("linear", (1024, 1024)): 10,
        Weight("linear", (1024, 4096), head=True): 1,
    }
    layer = Attention(cached=2048, queries=1024, window=window)
    return ModelShapes(weights, 0, tied, (layer,) * 2, 4096, 1024, 8192, experts=False, others=0)


def target(**changes: Any) -> Target:
    """The phone as it is for language models, with changes of its device or runtime."""
    data = load_target("phone").for_task("text-generation").model_dump()
    for table, values in changes.items():
        data[table] |= values
    return Target.from_data(data, "a test")


def one(monkeypatch: pytest.MonkeyPatch, scheme: Scheme, context: int = 512, **given: Any) -> SchemeForecast:
    monkeypatch.setattr(module, "rates_of", lambda _: RATES)
    (found,) = forecast("m", shapes(**given), target(), {"s": scheme}, context, 1.0).schemes
    return found


def test_bytes_of_a_tied_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """4.5 bits of each parameter, the table's once; 70 bytes of the tokenizer for each token."""
    found = one(monkeypatch, W4A8)
    weights = (10 * PRODUCTS + HEAD) * 4.5 / 8
    assert found.bits == pytest.approx(4.5)
    assert found.bundle_mb == pytest.approx((weights + 70 * 4096) / 1e6)
    assert found.devices == 9  # of 1 MB
    assert found.tokens_per_s.typical == pytest.approx(2e9 / weights)
    assert found.tokens_per_s.low == pytest.approx(1e9 / weights)


def test_a_table_of_its_own_is_stored_but_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    tied, apart = one(monkeypatch, W4A8), one(monkeypatch, W4A8, tied=False)
    assert apart.bundle_mb - tied.bundle_mb == pytest.approx(HEAD * (4 + 16 / 128) / 8e6)
    assert apart.tokens_per_s == tied.tokens_per_s


def test_a_tied_table_in_float_is_stored_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph's product reads a transposed copy."""
    assert one(monkeypatch, FP32).bundle_mb == one(monkeypatch, FP32, tied=False).bundle_mb


def test_the_cache_slows_long_texts_down(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = one(monkeypatch, W4A8), one(monkeypatch, W4A8, context=4096)
    assert short.tokens_per_s == short.tokens_per_s_full == long.tokens_per_s
    more = 1 / long.tokens_per_s_full.typical - 1 / short.tokens_per_s.typical
    assert more == pytest.approx((4096 - 512) * 2 * 1024 * 200e-12)
    assert one(monkeypatch, W4A8, context=4096, window=256).tokens_per_s_full == short.tokens_per_s
    cache = 2 * 2048 * 4 * (4096 - 512) / 1e6
    assert long.memory_mb.low - short.memory_mb.low == pytest.approx(cache)
    assert long.memory_mb.typical - short.memory_mb.typical == pytest.approx(2 * cache)


def test_a_prompt_is_multiplied_with_all_but_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    found = one(monkeypatch, W4A8)
    assert found.ttft_ms.typical == pytest.approx(
        1e3 * (2 * 10 * PRODUCTS * 128 / 20e9 + 1 / found.tokens_per_s.typical)
    )
    assert one(monkeypatch, FP32).ttft_ms.typical > 3 * found.ttft_ms.typical


@pytest.mark.parametrize(("scheme", "bits"), [("fp16", 32), ("w4a8-dynamic", 8), ("w8a8", 8)])
def test_what_is_widened_when_loaded_is_read_so(monkeypatch: pytest.MonkeyPatch, scheme: str, bits: int) -> None:
    found = one(monkeypatch, SCHEMES.get(scheme))
    assert found.tokens_per_s.typical == pytest.approx(2e9 / ((10 * PRODUCTS + HEAD) * bits / 8), rel=0.01)


@pytest.mark.parametrize(
    ("limits", "verdict", "overall"),
    [
        ({"bundle_mb": 100, "peak_memory_mb": 1000}, "fits", "fits"),
        ({"bundle_mb": 1, "peak_memory_mb": 1000}, "does not fit", "does not fit"),
        ({"bundle_mb": 100, "peak_memory_mb": 40}, "unsure", "unsure"),
    ],
)
def test_required_budgets_decide(
    monkeypatch: pytest.MonkeyPatch, limits: dict[str, float], verdict: str, overall: str
) -> None:
    monkeypatch.setattr(module, "rates_of", lambda _: RATES)
    data = target().model_dump()
    for name, limit in limits.items():
        data["budgets"][name]["limit"] = limit
    found = forecast("m", shapes(), Target.from_data(data, "a test"), {"w4a8": W4A8}, 512, 8192.0)
    assert (found.schemes[0].verdict, found.verdict) == (verdict, overall)
    assert {budget.metric for budget in found.schemes[0].budgets} == {
        *("bundle_mb", "peak_memory_mb", "ttft_p95_ms", "min_tokens_per_s")
    }


def test_a_known_device_has_its_own_rates() -> None:
    known = known_devices()[0]
    device = {"soc": f"Qualcomm Snapdragon 8 Elite ({known.soc}-AC)"}
    found = rates_of(target(device=device, runtime={"threads": 8}))
    assert found.said_by == ("Rates are fitted to published ones of Samsung Galaxy S25 (llama.cpp on all cores).")
    assert found.bandwidth_gb_s.typical == known.bandwidth_gb_s[1]
    assert found.bandwidth_gb_s.low == pytest.approx(known.bandwidth_gb_s[0] * (1 - OTHER_RUNTIME))
    fewer = rates_of(target(device=device, runtime={"threads": 1}))
    assert fewer.bandwidth_gb_s.low == pytest.approx(found.bandwidth_gb_s.low / 5)
    assert fewer.bandwidth_gb_s.high == found.bandwidth_gb_s.high
    assert fewer.prefill_gops.high == pytest.approx(found.prefill_gops.high / 5)
    assert "the target runs 1 of its cores" in fewer.said_by


def test_other_devices_get_wider_intervals() -> None:
    """Shares of the memory's peak: 37.1 of 135 GB/s to 53.5 of 85.3."""
    found = rates_of(target(runtime={"threads": 5}))
    assert found.bandwidth_gb_s.low == pytest.approx(37.1 / 135 * 33.6 * 0.85)
    assert found.bandwidth_gb_s.high == pytest.approx(53.5 / 85.3 * 33.6 * 1.15)
    assert found.said_by.startswith("No decode rates of the Qualcomm Snapdragon 7 Gen 4 (SM7750-AB) are known here:")
    without = rates_of(target(runtime={"threads": 5}, device={"isa": ["asimd", "asimddp"]}))
    assert without.prefill_gops.typical == pytest.approx(found.prefill_gops.typical / 2)
    assert without.bandwidth_gb_s == found.bandwidth_gb_s
