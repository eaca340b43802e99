"""Publishing into the user's folder, and the log of what was tried."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from pipeline.bundle.manifest import write_manifest
from pipeline.core.errors import UsageError
from pipeline.core.report_types import Report, Trial
from pipeline.report import publish as publishing
from pipeline.report.output_folder import default_output, output_folder
from pipeline.report.publish import publish, publish_reports
from pipeline.report.trial_log import append_trial, earlier_trials

REPORTS = ["junit.xml", "report.html", "report.json"]


def made(folder: Path, model: str) -> Path:
    """A bundle as it lies in the store."""
    (folder / "golden").mkdir(parents=True)
    (folder / "model.onnx").write_text(model)
    (folder / "golden" / "golden.json").write_text("{}")
    write_manifest(folder, {})
    (folder / "artifact.json").write_text("the store's own record")
    return folder


def put(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return made(tmp_path / "store" / "bundle", "one")


@pytest.fixture
def out(tmp_path: Path, bundle: Path, report: Report) -> Path:
    """An export."""
    folder = tmp_path / "artifacts" / "phone" / "m"
    publish(folder, bundle, report)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_published_folder_is_whole_and_replaced_as_one(tmp_path: Path, out: Path, report: Report) -> None:
    assert names(out) == ["bundle", *REPORTS]
    assert names(out / "bundle") == ["golden", "manifest.json", "model.onnx"]
    assert {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()} == {0o644}
    publish(out, made(tmp_path / "two", "two"), report)
    assert (out / "bundle" / "model.onnx").read_text() == "two"
    assert names(out.parent) == [".m.lock", "m"]


def test_a_failure_leaves_the_older_export(tmp_path: Path, out: Path, report: Report) -> None:
    with pytest.raises(FileNotFoundError):
        publish(out, tmp_path / "gone", report)
    assert (out / "bundle" / "model.onnx").read_text() == "one"
    assert names(out.parent) == [".m.lock", "m"]


def test_where_an_export_goes(tmp_path: Path) -> None:
    assert output_folder(None, "phone", "m", "w4") == Path("artifacts/phone/m/w4")
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UsageError, match=r"holds 'thesis\.txt', which edge did not write"):
        output_folder(tmp_path, "phone", "m", "w4")
    with pytest.raises(UsageError, match="is a file"):
        output_folder(tmp_path / "thesis.txt", "phone", "m", "w4")


@pytest.mark.parametrize("name", ["..", ".", "/", "a/../../..", "\x1b[2J", "x" * 5000, "a\0b", "~", "-rf"])
def test_no_name_of_a_model_leads_out_of_artifacts(name: str) -> None:
    folder = default_output("phone", name, "w4")
    assert folder.parts[:2] == ("artifacts", "phone")
    assert len(folder.parts) == 4
    assert folder.parent.name.isprintable()
    assert folder.parent.name[0] not in ".~-"


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda out: (out / "thesis.txt").touch(), "thesis.txt"),
        (lambda out: (out / "bundle" / "notes.txt").touch(), "bundle/notes.txt"),
        (lambda out: (out / "bundle" / "link").symlink_to(out), "bundle (link is neither a file nor a folder)"),
        (lambda out: (out / "bundle" / "empty").mkdir(), "bundle (empty is an empty folder)"),
        (lambda out: (out / "report.json").write_text("{}"), "report.json"),
        (lambda out: (out / "report.json").write_text("[" * 100_000), "report.json"),
        (lambda out: (out / "report.json").unlink(), "bundle"),
        (lambda out: (out / "bundle" / "manifest.json").unlink(), "bundle"),
        (lambda out: (out / "bundle" / "manifest.json").write_text('{"files": 1}'), "bundle"),
        (lambda out: (out / "junit.xml").unlink() or (out / "junit.xml").mkdir(), "junit.xml"),
        (lambda out: (out / "junit.xml").unlink() or os.mkfifo(out / "junit.xml"), "junit.xml"),
        (lambda out: (out / "compressed-model").symlink_to(out), "compressed-model"),
        (lambda out: put(out / "compressed-model" / "notes.md"), "compressed-model/notes.md"),
        (lambda out: put(out / "compressed-model" / "1_Pooling" / "mine.txt"), "compressed-model/1_Pooling/mine.txt"),
        (
            lambda out: (out / "compressed-model" / "empty").mkdir(parents=True),
            "compressed-model (empty is an empty folder)",
        ),
    ],
)
def test_what_an_export_did_not_make_is_not_replaced(out: Path, bundle: Path, report: Report, spoil, named) -> None:
    spoil(out)
    for attempt in (lambda: output_folder(out, "t", "m", "w4"), lambda: publish(out, bundle, report)):
        with pytest.raises(UsageError) as caught:
            attempt()
        assert caught.value.message == f"The output folder {out} holds {named!r}, which edge did not write."
    assert names(out.parent) == [".m.lock", "m"]


def test_a_saved_model_is_replaced(out: Path, bundle: Path, report: Report) -> None:
    saved = (
        "config.json",
        "model.safetensors",
        "1_Pooling/config.json",
        "tokenizer.json",
        "modeling_own.py",
        "edits.json",
    )
    for name in saved:
        put(out / "compressed-model" / name)
    publish(out, bundle, report)
    assert names(out) == ["bundle", *REPORTS]


def test_an_export_of_an_older_version_is_replaced(out: Path, bundle: Path, report: Report) -> None:
    for name in ("report.json", "bundle/manifest.json"):
        data = json.loads((out / name).read_text())
        (out / name).write_text(json.dumps(data | {"version": 0, "format": 1, "odd": True}))
    publish(out, bundle, report)


def test_what_comes_in_between_is_not_replaced(
    tmp_path: Path, out: Path, bundle: Path, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody puts a file into the folder after the last look at it and before it is swapped."""
    write = publishing.write_reports

    def late(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        (out / "thesis.txt").write_text("years of work")

    monkeypatch.setattr(publishing, "write_reports", late)
    with pytest.raises(UsageError, match=r"holds 'thesis\.txt'"):
        publish(out, bundle, report)
    assert (out / "thesis.txt").read_text() == "years of work"
    assert names(out.parent) == [".m.lock", "m"]


def test_what_a_killed_export_left_is_removed_and_nothing_else(out: Path, bundle: Path, report: Report) -> None:
    left = [Path(tempfile.mkdtemp(prefix=f".m-edge-{kind}-", dir=out.parent)) for kind in ("new", "new", "old", "old")]
    (left[0] / "bundle").mkdir()
    (left[1] / ".report.json.edge-new-abcdefgh").touch()
    (left[2] / "m" / "bundle").mkdir(parents=True)
    (left[3] / "thesis").touch()  # not ours, whatever it is called
    (out.parent / ".m-backup01").mkdir()
    (out.parent / ".m-edge-new-abcdefgh").symlink_to(left[3])
    publish(out, bundle, report)
    assert names(out.parent) == sorted([".m-backup01", ".m-edge-new-abcdefgh", left[3].name, ".m.lock", "m"])
    assert names(left[3]) == ["thesis"]


def test_the_lock_follows_no_link(tmp_path: Path, out: Path, bundle: Path, report: Report) -> None:
    (tmp_path / "thesis").write_text("years of work")
    (out.parent / ".m.lock").unlink()
    (out.parent / ".m.lock").symlink_to(tmp_path / "thesis")
    with pytest.raises(Exception, match="is a link, where a plain file belongs"):
        publish(out, bundle, report)
    assert (tmp_path / "thesis").read_text() == "years of work"


def test_reports_of_a_check(tmp_path: Path, out: Path, report: Report) -> None:
    for folder in (tmp_path / "new" / "below", out):
        publish_reports(report, folder)
        (folder / ".report.html.edge-new-abcdefgh").write_text("killed")
        publish_reports(report, folder)
        assert [name for name in names(folder) if name != "bundle"] == REPORTS
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").touch()
    with pytest.raises(UsageError, match="holds 'thesis'"):
        publish_reports(report, tmp_path / "mine")
    assert names(tmp_path / "mine") == ["thesis"]


def trial(label: str, megabytes: float) -> Trial:
    return Trial(label=label, origin="this run", megabytes=megabytes, accuracy=99.0)


def test_trials_of_the_same_scope_are_read_back(tmp_path: Path) -> None:
    assert earlier_trials(tmp_path, "a") == ([], [])
    for scope, label, size in (("a", "w4", 14.0), ("b", "w8", 23.0), ("a", "w4", 13.0), ("a", "fp32", 90.0)):
        append_trial(tmp_path, scope, trial(label, size))
    found, notes = earlier_trials(tmp_path, "a")
    assert [(one.label, one.megabytes, one.origin) for one in found] == [
        ("w4", 13.0, "earlier run"),
        ("fp32", 90.0, "earlier run"),
    ]
    assert notes == []


def test_a_line_cut_short_is_passed_over_and_the_next_stands_alone(tmp_path: Path) -> None:
    append_trial(tmp_path, "a", trial("w4", 14.0))
    with (tmp_path / "trials.jsonl").open("a") as log:
        log.write('{"scope": "a", "tri')
    append_trial(tmp_path, "a", trial("w8", 23.0))
    found, notes = earlier_trials(tmp_path, "a")
    assert [one.label for one in found] == ["w4", "w8"]
    assert notes == ["1 line of trials.jsonl in the store cannot be read; passed over."]


GOOD = {"scope": "a", "trial": {"label": "x", "origin": "this run", "megabytes": 1.0, "accuracy": 99.0}}
ODD = [
    *(b"1", b"null", b"[]", b'""', b"{}", b'{"scope": "a"}', b'{"scope": "a", "trial": null}'),
    b"\xff\xfe\x00",
    b"[" * 15_000,
    b"x" * 30_000,
    *(
        json.dumps(GOOD | {"trial": GOOD["trial"] | changed}).encode()  # type: ignore[operator]
        for changed in (
            {"megabytes": 0},
            {"megabytes": -1},
            {"megabytes": 1e300},
            {"megabytes": "much"},
            {"accuracy": 1e300},
            {"accuracy": 10**400},
            {"accuracy": float("nan")},
            {"origin": "elsewhere"},
            {"label": None},
            {"more": 1},
        )
    ),
]


@pytest.mark.parametrize("line", ODD)
def test_an_odd_line_fails_no_later_export(tmp_path: Path, line: bytes) -> None:
    append_trial(tmp_path, "a", trial("w4", 14.0))
    with (tmp_path / "trials.jsonl").open("ab") as log:
        log.write(line + b"\n")
    append_trial(tmp_path, "a", trial("w8", 23.0))
    found, notes = earlier_trials(tmp_path, "a")
    assert [one.label for one in found] == ["w4", "w8"]
    assert notes == ["1 line of trials.jsonl in the store cannot be read; passed over."]


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    with (tmp_path / "trials.jsonl").open("wb") as log:
        log.truncate(100_000_000_000)  # sparse
    append_trial(tmp_path, "a", trial("w4", 14.0))
    found, _ = earlier_trials(tmp_path, "a")
    assert [one.label for one in found] == ["w4"]


def test_a_log_that_is_no_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("years of work")
    (tmp_path / "trials.jsonl").symlink_to("thesis")
    append_trial(tmp_path, "a", trial("w4", 14.0))
    assert (tmp_path / "thesis").read_text() == "years of work"
    found, notes = earlier_trials(tmp_path, "a")
    assert found == []
    assert notes[0].startswith("The log of earlier exports was passed over: ")
