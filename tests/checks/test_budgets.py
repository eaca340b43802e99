"""The metrics that budgets can limit, as one list."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from pipeline.checks.budgets.metric import METRICS, Tolerance
from pipeline.cli.lists import list_budgets
from pipeline.cli.main import main


@pytest.mark.parametrize(
    ("tolerance", "direction", "limit"),
    [
        (Tolerance(share=0.1), "at most", 220.0),
        (Tolerance(share=0.1), "at least", 180.0),
        (Tolerance(amount=0.5), "at most", 200.5),
        (Tolerance(0.1, 0.5), "at least", 179.5),
    ],
)
def test_what_noise_may_take_of_200(tolerance: Tolerance, direction: str, limit: float) -> None:
    assert tolerance.limit(200.0, direction) == pytest.approx(limit)  # type: ignore[arg-type]


def test_latencies_of_two_runs_are_not_compared() -> None:
    compared = {name for name, metric in METRICS.usable().items() if metric.tolerance is not None}
    assert compared == {
        *("bundle_mb", "peak_memory_mb", "min_speedup", "min_weight_coverage", "min_mac_coverage"),
        *("min_top10_overlap", "min_agreement", "max_accuracy_drop", "max_kl_per_token", "max_perplexity_increase"),
        *("max_repetition_increase", "max_exact_match_drop"),
        *("min_score", "max_overflow", "instructions_m", "min_instruction_ratio"),
        "min_npu_coverage",
    }


def _install(folder: Path, value: str) -> None:
    """A distribution with one metric, as pip would leave it."""
    info = folder / "extra-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[edge_pipeline.budget]\nextra = {value}\n")


def _listed() -> str:
    console = Console(width=200)
    with console.capture() as captured:
        list_budgets(console)
    return captured.get()


def test_the_list_says_what_each_is() -> None:
    (line,) = (line for line in _listed().splitlines() if line.startswith("bundle_mb"))
    assert " ".join(line.split()) == "bundle_mb at most MB size of all files of the bundle on disk"
    assert main(["budgets"]) == 0


def test_an_installed_metric_that_is_broken_is_listed_with_its_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, "math:pi")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(METRICS.__dict__, "_places", raising=False)
    (line,) = (line for line in _listed().splitlines() if line.startswith("extra"))
    assert "The budget 'extra' of the package extra 1.0 has no unit" in line
    assert "bundle_mb" in _listed()
    METRICS.__dict__.pop("_places")
