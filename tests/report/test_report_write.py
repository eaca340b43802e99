from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pipeline.api import Result
from pipeline.core.errors import ExitCode, UsageError
from pipeline.core.report_types import Report
from pipeline.core.types import Verdict
from pipeline.report.write import read_report, write_reports


def test_round_trip(report: Report, tmp_path: Path) -> None:
    write_reports(report, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["junit.xml", "report.html", "report.json"]
    assert read_report(tmp_path / "report.json") == report
    assert ET.parse(tmp_path / "junit.xml").getroot().tag == "testsuites"
    assert b"\r" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_writing_twice_gives_the_same_bytes(report: Report, tmp_path: Path) -> None:
    write_reports(report, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_reports(read_report(tmp_path / "report.json"), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(UsageError) as caught:
        read_report(path)
    assert caught.value.message == f"There is no report file {str(path)!r}."
    assert caught.value.remedy == "Give the report.json that `edge export` or `edge check` wrote."
    assert caught.value.exit_code is ExitCode.BAD_USAGE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "report.json is not valid JSON: Expecting property name enclosed in double quotes: line 1"),
        (b"\xff", "report.json is not valid JSON: 'utf-8' codec can't decode byte 0xff"),
        (b"[1]", "report.json is JSON but not a report: it has no `version`."),
        (b'{"verdict": "PASS"}', "report.json is JSON but not a report: it has no `version`."),
        (b'{"version": 99}', "report.json is a report of version 99; allowed is version 2."),
    ],
)
def test_a_file_that_is_no_report(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_report(path)
    assert caught.value.message.startswith(message)


def test_all_mistakes_of_a_report_are_named(bare: Report, tmp_path: Path) -> None:
    data = bare.model_dump(mode="json") | {"verdict": "MAYBE", "tarmac": 1}
    path = tmp_path / "report.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_report(path)
    first, *lines = sorted(caught.value.message.splitlines(), reverse=True)
    assert first == "report.json has 2 mistakes:"
    assert any(line.startswith("  - verdict: Input should be 'PASS', 'FAIL' or 'NOT_MEASURED'") for line in lines)
    assert any(line.startswith("  - tarmac: unknown key.") for line in lines)


def test_a_report_is_short_where_python_shows_it(report: Report) -> None:
    held = sum(result.verdict is Verdict.PASS for result in report.budgets)
    line = (
        f"Report({report.verdict}: {report.model} on {report.target}, recipe "
        f"{report.recipe}; {held} of {len(report.budgets)} budgets held)"
    )
    assert repr(report) == str(report) == line
    named = report.model_copy(update={"model": "<b>&"})
    shown = named._repr_html_()
    assert "&lt;b&gt;&amp; on" in shown
    assert shown.count("<tr>") == 1 + len(report.budgets)
    assert Result(named, Path("a<b"))._repr_html_() == shown + "<p>a&lt;b</p>"
