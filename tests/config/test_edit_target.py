"""Writing tuned settings into a target's file."""

from __future__ import annotations

import pytest

from pipeline.config.edit_target import local_target_file, write_disabled_optimizers
from pipeline.config.loading import load_target, shipped
from pipeline.core.errors import UsageError


@pytest.fixture
def phone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "targets").mkdir()
    path = tmp_path / "targets" / "phone.toml"
    path.write_text((shipped("targets") / "phone.toml").read_text())
    return path


def test_only_the_two_settings_change(phone) -> None:
    before = phone.read_text().splitlines()
    write_disabled_optimizers(local_target_file("phone"), ["GeluFusion"], "measured in a test")
    after = phone.read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert [new for _, new in changed] == [
        'disabled_optimizers = ["GeluFusion"]',
        'disabled_optimizers = "measured in a test"',
    ]
    assert load_target("phone").runtime.disabled_optimizers == ("GeluFusion",)


def test_a_target_without_runtime_settings_gets_them(phone) -> None:
    text = phone.read_text()
    start, end = text.index("[runtime]"), text.index("[shape]")
    phone.write_text(text[:start] + text[end:])
    write_disabled_optimizers(phone, ["GeluFusion"], "measured in a test")
    assert load_target("phone").runtime.sources == {"disabled_optimizers": "measured in a test"}


def test_a_shipped_target_is_not_written_to(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        local_target_file("phone")
    assert caught.value.message == "The target 'phone' ships with the tool and has no file here to write to."


def test_a_file_with_mistakes_is_left_alone(phone) -> None:
    phone.write_text(phone.read_text().replace("memory_mb = 8192", "memory_mb = -1"))
    before = phone.read_text()
    with pytest.raises(UsageError, match="memory_mb"):
        write_disabled_optimizers(phone, ["GeluFusion"], "measured in a test")
    assert phone.read_text() == before
