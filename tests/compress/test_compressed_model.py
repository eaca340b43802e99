"""What a pass leaves for the next one: edits alone, or edits and values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_specs import hugging_face

from pipeline.compress import PREVIOUS_PASS
from pipeline.compress.compressed_model import WEIGHTS_FILE, load_compressed, save_compressed
from pipeline.compress.prune.units_ffn import feed_forwards
from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError


def left_in(folder: Path) -> dict[str, Artifact]:
    return {PREVIOUS_PASS: Artifact(folder, "compress.0.prune", "k", "d", {})}


@pytest.mark.parametrize("trained", [False, True])
def test_a_pass_goes_on_where_the_last_one_stopped(tiny_encoder: Path, tmp_path: Path, trained: bool) -> None:
    first = load_compressed(hugging_face(tiny_encoder), {})
    assert (first.edits, first.trained) == ((), False)
    edit = feed_forwards(first.model)[0].edit(range(64))
    edit.apply(first.model)
    bias = first.model.get_parameter("encoder.layer.0.intermediate.dense.bias")
    bias.data += float(trained)
    save_compressed(tmp_path, first.model, [edit.model_dump(mode="json")], trained)
    assert (tmp_path / WEIGHTS_FILE).is_file() == trained
    second = load_compressed(hugging_face(tiny_encoder), left_in(tmp_path))
    assert second.trained == trained
    again = second.model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.model.state_dict().items())


def test_values_of_another_structure_are_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    model = load_compressed(hugging_face(tiny_encoder), {}).model
    model.encoder.layer[0].extra = torch.nn.Linear(2, 2)
    save_compressed(tmp_path, model, [], trained=True)
    with pytest.raises(StageError, match=r"do not fit the edited model: 'encoder.layer.0.extra.bias' is not in the"):
        load_compressed(hugging_face(tiny_encoder), left_in(tmp_path))
