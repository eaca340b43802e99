"""The folder of QNN's libraries; those themselves are tried in test_compiler.py."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest

from pipeline.core.errors import IntegrityError, StageError
from pipeline.devices.fetched import RECORD, listing, remove
from pipeline.devices.qnn import environment, setup
from pipeline.devices.qnn.environment import find, require

LIBRARY = "site/onnxruntime_qnn/libQnnHtp.so"


def made(cache: Path, **changed: object) -> Path:
    """An environment whose only library is no library."""
    folder = cache / "qnn"
    (folder / LIBRARY).parent.mkdir(parents=True)
    (folder / LIBRARY).write_text("library")
    record = {
        "wheel": "2.7.0",
        "onnxruntime": onnxruntime.__version__,
        "package": {"file": "wheel.whl", "sha256": "0" * 64},
        "files": listing(folder),
    }
    (folder / RECORD).write_text(json.dumps(record | changed))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_DEVICES", str(tmp_path))
    monkeypatch.setattr(environment, "require_platform", lambda: None)
    environment._verify_once.cache_clear()
    return tmp_path


def test_without_it_the_command_is_named() -> None:
    assert find() is None
    with pytest.raises(StageError, match=r"QNN is not set up on this machine\.") as caught:
        require()
    assert caught.value.remedy == "`edge devices setup qnn` fetches it (a wheel of 98 MB from PyPI), without root."


def test_of_another_onnx_runtime(cache: Path) -> None:
    made(cache, onnxruntime="1.20.0")
    with pytest.raises(StageError, match=r"QNN was set up for ONNX Runtime 1\.20\.0, and here it is "):
        require()


def test_changed_since(cache: Path) -> None:
    folder = made(cache)
    assert require().folder == folder
    (folder / LIBRARY).write_text("another")
    environment._verify_once.cache_clear()
    with pytest.raises(
        IntegrityError, match=f"The qnn environment {folder} was changed after it was set up: {LIBRARY}"
    ):
        require()


def test_an_unreadable_record(cache: Path) -> None:
    (made(cache) / RECORD).write_text("{")
    with pytest.raises(IntegrityError, match="cannot be read"):
        find()


def test_what_fails_leaves_what_was_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(cache)
    monkeypatch.setattr(setup, "require_platform", lambda: None)
    monkeypatch.setattr(setup, "WHEEL", "onnxruntime-qnn==0.0.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(StageError, match=r"onnxruntime-qnn==0\.0\.0 cannot be fetched: ") as caught:
        setup.set_up()
    assert "glibc 2.35" in caught.value.remedy
    assert sorted(path.name for path in cache.iterdir()) == ["qnn", "qnn.lock"]
    assert (folder / LIBRARY).exists()
    assert remove("qnn") is True
    assert remove("qnn") is False
