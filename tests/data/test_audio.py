"""Recordings at other rates than the model's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import UsageError
from pipeline.data.audio import resampled, resampling
from pipeline.data.datasets import Dataset
from pipeline.data.readers.audio_folder import read_audio


@pytest.mark.parametrize(("rate", "wanted"), [(44_100, 16_000), (8_000, 16_000), (16_000, 16_000)])
def test_a_tone_keeps_its_frequency(rate: int, wanted: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    found = resampled(tone, rate, wanted)
    assert (found.dtype, len(found)) == (np.float32, wanted)
    middle = slice(wanted // 10, -wanted // 10)
    expected = np.sin(2 * np.pi * 440 * np.arange(wanted) / wanted)
    assert np.abs(found - expected)[middle].max() < 0.01


def test_other_rates_are_said(tmp_path: Path) -> None:
    samples = [(np.zeros(4, np.float32), rate) for rate in (16_000, 44_100, 8_000)]
    dataset = Dataset("clips", "audio", samples, None, False, "", {})
    assert resampling(dataset, tmp_path) == "", "nothing is known of the model's rate"
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 16_000}))
    assert resampling(dataset, tmp_path) == (
        "Recordings of 'clips' have 8000, 44100 samples a second; they are resampled to the model's 16000."
    )


def test_flac_without_its_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    monkeypatch.setattr("pipeline.data.readers.audio_folder.find_spec", lambda _: None)
    with pytest.raises(UsageError) as caught:
        _ = read_audio(tmp_path).samples[0]
    assert caught.value.message == "a.flac needs the Python package soundfile to be read, which is not installed."
