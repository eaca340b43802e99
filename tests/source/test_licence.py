"""The licence that a model's card states."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.errors import UsageError
from pipeline.source.model_config import stated_licence


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n# Model\n", "apache-2.0"),
        ("---\r\nlicense: 'mit'\r\n---\r\n", "mit"),
        ("---\nlanguage: en\n---\nlicense: mit\n", None),
        ("# Model\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_front_matter_of_the_card(tmp_path: Path, card: str, licence: str | None) -> None:
    (tmp_path / "README.md").write_text(card, newline="")
    assert stated_licence(tmp_path) == licence


def test_no_card(tmp_path: Path) -> None:
    assert stated_licence(tmp_path) is None


def test_a_card_in_a_hub_cache_is_a_link_into_its_blobs(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b/snapshots/0123"
    snapshot.mkdir(parents=True)
    blobs = tmp_path / "models--a--b/blobs"
    blobs.mkdir()
    (blobs / "abc").write_text("---\nlicense: bsd-3-clause\n---\n")
    (snapshot / "README.md").symlink_to("../../blobs/abc")
    assert stated_licence(snapshot) == "bsd-3-clause"


def test_a_card_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/README.md").symlink_to("../secret")
    with pytest.raises(UsageError, match="outside the folder"):
        stated_licence(tmp_path / "model")
