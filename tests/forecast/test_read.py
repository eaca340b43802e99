"""Where a forecast's config.json is read from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.core.errors import UsageError
from pipeline.forecast.read import read_planned


def test_a_folder_a_file_and_a_file_of_another_name(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name in ("config.json", "mine.json"):
        (folder / name).write_text(json.dumps({"model_type": "llama"}))
    assert read_planned(str(folder)) == ("tiny", {"model_type": "llama"})
    assert read_planned(str(folder / "config.json")) == ("tiny", {"model_type": "llama"})
    assert read_planned(str(folder / "mine.json"))[0] == "mine"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_planned(f"{tmp_path}/none")
    assert caught.value.message == f"There is no model '{tmp_path}/none': no such folder or file."
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UsageError, match=r"list\.json is not a JSON object"):
        read_planned(f"{tmp_path}/list.json")
