"""Publishing into the user's folder, and the log of what was tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.errors import UsageError
from pipeline.core.report_types import Report, Trial
from pipeline.report.publish import output_folder, publish
from pipeline.report.trials import append_trial, earlier_trials


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle-in-store"
    folder.mkdir()
    (folder / "model.onnx").write_text("one")
    (folder / "artifact.json").write_text("the store's own record")
    return folder


def test_a_published_folder_is_whole_and_replaced_as_one(tmp_path: Path, bundle: Path, report: Report) -> None:
    out = tmp_path / "artifacts" / "phone" / "m"
    publish(out, bundle, report)
    assert sorted(path.name for path in out.iterdir()) == ["bundle", "junit.xml", "report.html", "report.json"]
    assert [path.name for path in (out / "bundle").iterdir()] == ["model.onnx"]
    (bundle / "model.onnx").write_text("two")
    publish(out, bundle, report)
    assert (out / "bundle" / "model.onnx").read_text() == "two"
    assert sorted(path.name for path in out.parent.iterdir()) == [".m.lock", "m"]


def test_a_failure_leaves_the_older_export(tmp_path: Path, bundle: Path, report: Report) -> None:
    out = tmp_path / "out"
    publish(out, bundle, report)
    with pytest.raises(FileNotFoundError):
        publish(out, tmp_path / "gone", report)
    assert (out / "bundle" / "model.onnx").read_text() == "one"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.lock", "bundle-in-store", "out"]


def test_where_an_export_goes(tmp_path: Path) -> None:
    assert output_folder(None, "phone", "m") == Path("artifacts/phone/m")
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UsageError, match=r"holds 'thesis\.txt', which an export would replace"):
        output_folder(tmp_path, "phone", "m")
    with pytest.raises(UsageError, match="is a file"):
        output_folder(tmp_path / "thesis.txt", "phone", "m")


def trial(label: str, megabytes: float) -> Trial:
    return Trial(label=label, origin="this run", megabytes=megabytes, accuracy=99.0)


def test_trials_of_the_same_scope_are_read_back(tmp_path: Path) -> None:
    assert earlier_trials(tmp_path, "a") == []
    for scope, label, size in (("a", "w4", 14.0), ("b", "w8", 23.0), ("a", "w4", 13.0), ("a", "fp32", 90.0)):
        append_trial(tmp_path, scope, trial(label, size))
    found = earlier_trials(tmp_path, "a")
    assert [(one.label, one.megabytes, one.origin) for one in found] == [
        ("w4", 13.0, "earlier run"),
        ("fp32", 90.0, "earlier run"),
    ]


def test_a_line_cut_short_is_passed_over(tmp_path: Path) -> None:
    append_trial(tmp_path, "a", trial("w4", 14.0))
    with (tmp_path / "trials.jsonl").open("a") as log:
        log.write('{"scope": "a", "tri')
    assert len(earlier_trials(tmp_path, "a")) == 1
