"""Arrays of a plan in files that outlive a run that was killed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.quantize import shards
from pipeline.quantize.shards import Shards, read_shards


def arrays(value: int, count: int = 8) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return {f"w{value}.codes": np.full((2, count), value, np.uint8), f"w{value}.scales": np.float16([value, 0.5])}


def filled(folder: Path, weights: range) -> Shards:
    found = Shards(folder)
    for value in weights:
        found.add(f"w{value}", arrays(value), {"noted": value})
    return found


def test_a_file_is_written_once_there_is_enough_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SIZE", 30)
    made = filled(tmp_path / "scratch", range(4))  # 20 bytes each
    files = sorted(path.name for path in (tmp_path / "scratch").iterdir())
    assert files == ["codes-1.safetensors", "codes.safetensors"]
    (tmp_path / "out").mkdir()
    made.move(tmp_path / "out")
    assert {"w3.codes", "w3.scales"} <= read_shards(tmp_path / "out").keys()
    assert made.arrays["w2.codes"].tolist() == [[2] * 8] * 2  # still read, from where they are now


def test_what_a_killed_run_left_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SIZE", 30)
    filled(tmp_path, range(3))  # the third is in no file yet
    (tmp_path / "unfinished").write_bytes(b"half of a file")
    again = Shards(tmp_path)
    assert [again.facts(f"w{value}") for value in range(3)] == [{"noted": 0}, {"noted": 1}, None]
    assert again.arrays["w1.scales"].tolist() == [1.0, 0.5]
    assert "w2.codes" not in again.arrays


def test_arrays_of_all_kinds_come_back_as_they_were(tmp_path: Path) -> None:
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    made = Shards(tmp_path / "scratch")
    made.add("w", {"w.turned": turned, "w.none": np.zeros((0, 4), np.int8), "w.order": np.array([2, 0, 1])}, None)
    (tmp_path / "out").mkdir()
    made.move(tmp_path / "out")
    found = read_shards(tmp_path / "out")
    assert found["w.turned"].tolist() == turned.tolist()
    assert (found["w.none"].shape, found["w.none"].dtype) == ((0, 4), np.int8)
    assert (found["w.order"].tolist(), found["w.order"].dtype) == ([2, 0, 1], np.int64)


def test_a_plan_without_weights_has_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    Shards(tmp_path / "scratch").move(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["codes.safetensors"]
    assert read_shards(tmp_path / "out") == {}
