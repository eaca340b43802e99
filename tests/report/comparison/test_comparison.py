"""What a comparison says: in words, in the terminal, on its page, in a report, and in the store."""

from __future__ import annotations

import io

import pytest
from pages import Page
from rich.console import Console

from pipeline.config.target import Shape
from pipeline.core.errors import StageError, UsageError
from pipeline.core.report_types import Candidate, Comparison, Difference, HostInfo, Refusal, Report, Trial
from pipeline.core.types import Evidence, Figure
from pipeline.report.comparison.cache import comparison_key, keep_comparison, known_comparison
from pipeline.report.comparison.files import comparison_folder, write_comparison
from pipeline.report.comparison.html import comparison_page
from pipeline.report.comparison.terminal import render_comparison
from pipeline.report.comparison.text import nearest_sentences, uncompared_note, verdict_sentence, warnings
from pipeline.report.html import html
from pipeline.report.junit import junit_xml
from pipeline.report.terminal import render


def _against(*rows: tuple[str, float, str]) -> tuple[Difference, ...]:
    units = {"size": ("%", 1.0), "latency": ("%", 2.0), "drop": ("points", 0.1), "fidelity": ("share", 0.01)}
    return tuple(
        Difference(axis=axis, unit=units[axis][0], margin=units[axis][1], value=value, outcome=outcome)  # type: ignore[arg-type]
        for axis, value, outcome in rows
    )


def _candidate(label: str, kind: str, megabytes: float, ms: float, drop: float, kept: float, **more) -> Candidate:
    latency = Figure(value=ms, unit="ms", evidence=Evidence.HOST)
    speedup = Figure(value=30 / ms, unit="x", evidence=Evidence.HOST, low=29 / ms, high=31 / ms)
    return Candidate(
        label=label,
        kind=kind,  # type: ignore[arg-type]
        scheme="w4a8",
        megabytes=megabytes,
        latency=latency,
        speedup=None if kind == "float" else speedup,
        drop=drop,
        fidelity=None if kind == "float" else kept,
        **more,
    )


@pytest.fixture
def dominated() -> Comparison:
    """Plain w4a8-b64 is as small and as fast as the recipe, and more accurate; w4a8 is more accurate, but larger."""
    better = (("drop", -6.5, "better"), ("fidelity", -0.13, "better"))
    candidates = (
        _candidate("float", "float", 90.3, 30.0, 0.0, 1.0),
        _candidate("cut <b>", "recipe", 12.0, 26.0, 8.4, 0.75),
        _candidate(
            *("w4a8", "plain", 12.3, 27.2, 1.9, 0.88),
            on_pareto_front=True,
            against=_against(("size", 2.5, "worse"), ("latency", 4.6, "worse"), *better),
        ),
        _candidate(
            *("w4a8-b64", "plain", 11.95, 26.1, 1.9, 0.88),
            on_pareto_front=True,
            dominates=True,
            against=_against(("size", -0.4, "same"), ("latency", 0.4, "same"), *better),
        ),
    )
    return Comparison(
        model="m",
        model_digest="0" * 64,
        task="feature-extraction",
        target="robot",
        recipe="cut <b>",
        passes=("prune",),
        bundle_digest="1" * 64,
        fidelity_name="top10_overlap",
        candidates=candidates,
        refused=(Refusal(label="w8a8", reason="There is nothing to calibrate on."),),
        same_bytes="w4a8-b64",
        same_latency="",
        dominated_by=("w4a8-b64",),
        runs=100,
        threads=1,
        host=HostInfo(cpu="a CPU", isa=(), cores=2, memory_mb=8000, system="Linux"),
        versions={},
    )


@pytest.fixture
def on_the_front(dominated: Comparison) -> Comparison:
    candidates = [
        candidate.model_copy(update={"dominates": False, "on_pareto_front": True}) for candidate in dominated.candidates
    ]
    return dominated.model_copy(update={"dominated_by": (), "candidates": tuple(candidates)})


WORDS = "as large (-0.4 %), as fast (+0.4 %), 6.5 points higher in accuracy, 0.13 higher in top10_overlap"


def test_a_dominated_recipe_is_warned_of_with_the_scheme_and_what_it_gains(dominated) -> None:
    assert warnings(dominated) == (f"cut <b> is dominated by plain w4a8-b64: {WORDS}.",)
    assert verdict_sentence(dominated) == (
        "cut <b> is dominated by plain quantization: w4a8-b64 loses nothing against it, and gains."
    )
    assert nearest_sentences(dominated) == (
        f"At the same bytes: w4a8-b64 is {WORDS}.",
        "At the same latency: no plain scheme is as fast as cut <b>.",
    )


def test_a_recipe_on_the_front_is_not(on_the_front) -> None:
    assert warnings(on_the_front) == warnings(None) == ()
    assert "not dominated: no plain scheme is as small, as fast and as accurate" in verdict_sentence(on_the_front)


def test_the_table_has_a_row_per_candidate_the_largest_first(dominated) -> None:
    file = io.StringIO()
    render_comparison(dominated, Console(file=file, width=110))
    rows = [line.split() for line in file.getvalue().splitlines()]
    labels = [row[0] for row in rows[2:6]]
    assert labels == ["float", "w4a8", "cut", "w4a8-b64"]
    assert rows[3][2:5] == ["12.30", "27.2", "1.10x"]
    assert rows[3][-4:] == ["worse", "in", "size,", "latency"]
    assert rows[5][-2:] == ["dominates", "it"]
    text = " ".join(file.getvalue().split())
    assert "Not compared: w8a8, There is nothing to calibrate on." in text
    assert "Differences count above 1 % of bytes, 2 % of latency, 0.1 points of accuracy, 0.01 of top10_overlap" in text
    assert "WARNING cut <b> is dominated" in text


def test_the_page_is_whole_escaped_and_the_same_each_time(dominated, tmp_path) -> None:
    source = comparison_page(dominated)
    page = Page(source)
    assert page.loads == []
    assert "cut <b> is dominated by plain quantization" in page.words()
    assert "dominates it : as large" in page.words()
    assert source.count("<figure>") == 4
    write_comparison(dominated, tmp_path / "new")
    assert (tmp_path / "new/compare.html").read_text() == source
    read_back = Comparison.model_validate_json((tmp_path / "new/compare.json").read_text())
    assert comparison_page(read_back) == source


def test_an_exports_folder_is_not_written_to(tmp_path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(UsageError, match="holds what an export made"):
        comparison_folder(tmp_path, "t", "m", "w4")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        comparison_folder(tmp_path / "file", "t", "m", "w4")
    assert str(comparison_folder(None, "t", "m", "w4")) == "artifacts/t/m-compare/w4"


def test_a_report_warns_everywhere_and_keeps_its_verdict(report: Report, dominated) -> None:
    warned = report.model_copy(update={"comparison": dominated, "warnings": warnings(dominated)})
    file = io.StringIO()
    render(warned, Console(file=file, width=100))
    assert "Warning: cut <b> is dominated by plain w4a8-b64" in " ".join(file.getvalue().split())
    page = Page(html(warned))
    words = page.words()
    assert words.index("Warning cut <b> is dominated") < words.index("Budgets")
    assert "Beside plain quantization" in page.headings
    assert 'name="warnings" value="cut &lt;b&gt; is dominated by plain w4a8-b64' in junit_xml(warned)
    assert junit_xml(warned).count("<failure") == junit_xml(report).count("<failure")
    assert "Warning" not in html(report)


def test_the_store_knows_a_comparison_by_what_it_is_about(dominated, tmp_path) -> None:
    key = comparison_key("bundle", "evaluation", Shape(), None)
    assert known_comparison(tmp_path, key) is None
    keep_comparison(tmp_path, key, dominated)
    assert known_comparison(tmp_path, key) == dominated
    others = [
        comparison_key("other", "evaluation", Shape(), None),
        comparison_key("bundle", "other", Shape(), None),
        comparison_key("bundle", "evaluation", Shape(batch_size=2), None),
        comparison_key("bundle", "evaluation", Shape(), "mine.py:score"),
        comparison_key("bundle", "evaluation", Shape(), None, "ssh:pi@board"),
    ]
    assert len({key, *others}) == 6
    file = next((tmp_path / "comparisons").iterdir())
    file.write_text(file.read_text()[:-20])
    assert known_comparison(tmp_path, key) is None
    keep_comparison(tmp_path, key, dominated.model_copy(update={"version": 0}))
    assert known_comparison(tmp_path, key) is None


def test_a_recipe_that_was_not_compared_is_told_of_a_better_plain_run() -> None:
    this = Trial(label="cut", origin="this run", megabytes=12.5, accuracy=91.6)
    plain = [
        Trial(label="w4a8", origin="earlier run", megabytes=12.8, accuracy=98.1),
        Trial(label="w4a8-b128", origin="earlier run", megabytes=12.4, accuracy=97.5),
    ]
    note = "Not compared with plain quantization yet: run `edge compare`."
    assert uncompared_note(this, plain[:1]) == note
    assert uncompared_note(this, plain) == (
        f"{note} An earlier run of plain w4a8-b128 kept 97.5 points at 12.4 MB, this one 91.6 at 12.5."
    )


def test_what_could_not_be_compared_is_not_called_harmless(dominated: Comparison) -> None:
    why = "the machine was loaded while latencies were measured"
    unknown = [
        candidate.model_copy(
            update={"dominates": False, "incomparable_reason": why if candidate.kind == "plain" else ""}
        )
        for candidate in dominated.candidates
    ]
    comparison = dominated.model_copy(update={"dominated_by": (), "candidates": tuple(unknown)})
    assert verdict_sentence(comparison) == f"Whether cut <b> is dominated by w4a8, w4a8-b64 is not known: {why}."


def test_comparisons_are_not_kept_behind_a_link(dominated, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "comparisons").symlink_to(tmp_path / "mine")
    with pytest.raises(StageError, match="is a link, where a folder belongs"):
        keep_comparison(tmp_path, "0" * 64, dominated)
    assert list((tmp_path / "mine").iterdir()) == []


def test_somebodys_folder_is_not_written_to(dominated, tmp_path) -> None:
    write_comparison(dominated, tmp_path / "mine")
    (tmp_path / "mine" / ".compare.json.edge-new-abcdefgh").touch()  # of a killed run
    write_comparison(dominated, tmp_path / "mine")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["compare.html", "compare.json"]
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(UsageError, match=r"holds 'thesis\.txt', which edge did not write"):
        write_comparison(dominated, tmp_path / "mine")
