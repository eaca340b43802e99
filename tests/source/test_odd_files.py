"""Files that nobody sane writes: each is refused by one message that names the file and what is wrong with it."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.errors import UsageError
from pipeline.source.model_config import check_files, check_sizes, read_config
from pipeline.source.weights import check_weights, count_tensors

QUICK = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def message(call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    return caught.value.message


def weights(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> Path:
    path.mkdir(exist_ok=True)
    size = len(header) if length is None else length
    (path / "model.safetensors").write_bytes(struct.pack("<Q", size) + header + data)
    return path


def header(**tensors: object) -> bytes:
    return json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()


def entry(begin: int, end: int, **other: object) -> dict[str, object]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end], **other}


_NO_HEADER = "The weights file model.safetensors has no valid safetensors header (it is cut short or something else): "


@pytest.mark.parametrize(
    ("content", "length", "said"),
    [
        (b"", 2**63, f"{_NO_HEADER}its length is given as {2**63} bytes."),
        (b"[" * 90000 + b" " * 8, 90000, "The header of model.safetensors is nested more than 64 levels deep."),
        (header(a=entry(0, 4, data_offsets=["x", 4])), None, f"{_NO_HEADER}'a' has the data_offsets ['x', 4]."),
        (header(a=entry(0, 4, data_offsets=[4, 0])), None, f"{_NO_HEADER}'a' has the data_offsets [4, 0]."),
        (header(a=entry(0, 4, shape=[-4])), None, f"{_NO_HEADER}'a' has the dtype 'U8' and the shape [-4]."),
        (
            header(a=entry(0, 4), b=entry(2, 4)),
            None,
            f"{_NO_HEADER}'b' begins at byte 2, the tensor before it ends at 4.",
        ),
        (header(a=entry(1, 4)), None, f"{_NO_HEADER}'a' begins at byte 1, the tensor before it ends at 0."),
        (header(a=7), None, f"{_NO_HEADER}'a' has the data_offsets None."),
    ],
)
def test_safetensors(tmp_path: Path, content: bytes, length: int | None, said: str) -> None:
    assert message(check_weights, weights(tmp_path / "m", content, b"1234", length)) == said


def test_a_sound_header(tmp_path: Path) -> None:
    folder = weights(tmp_path / "m", header(a=entry(0, 3), b=entry(3, 4)), b"1234")
    check_weights(folder)
    assert count_tensors(folder) == 2


@pytest.mark.parametrize(
    ("shard", "said"),
    [
        ("../x.safetensors", "names the shard '../x.safetensors', which is outside the model's folder."),
        ("/etc/passwd", "names the shard '/etc/passwd', which is outside the model's folder."),
        ("a\0.safetensors", "names the shard 'a\\x00.safetensors', which is outside the model's folder."),
        ("config.json", "names the shard 'config.json', which is no .safetensors file."),
        (7, "has no weight_map from tensors to the names of shards."),
    ],
)
def test_an_index(tmp_path: Path, shard: object, said: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    assert message(check_weights, tmp_path) == f"model.safetensors.index.json {said}"


@QUICK
@given(st.binary(max_size=200), st.integers(0, 2**64 - 1) | st.integers(0, 100))
def test_any_weights(tmp_path: Path, content: bytes, length: int) -> None:
    folder = weights(tmp_path / "m", content, length=length)
    assert "model.safetensors" in message(check_weights, folder)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": 3}, "config.json of 'm': architectures is 3, not a list of names."),
        ({"architectures": [None]}, "config.json of 'm': architectures is [None], not a list of names."),
        ({"id2label": 7}, "config.json of 'm': id2label is not an object."),
        ({"model_type": []}, "config.json of 'm': model_type is not a text."),
        ({"vocab_size": "many"}, "config.json of 'm': vocab_size is 'many', not a size."),
        ({"num_channels": -3}, "config.json of 'm': num_channels is -3, not a size."),
    ],
)
def test_types_of_a_config(tmp_path: Path, config: object, said: str) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    assert message(read_config, tmp_path / "m") == said


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_hidden_layers": 10**7}, "num_hidden_layers is 10000000, but the checkpoint has 5 tensors."),
        ({"hidden_size": 10**40}, "hidden_size is 1e+40; no size may be beyond 100,000,000."),
        ({"text_config": {"n_layer": 6}}, "n_layer is 6, but the checkpoint has 5 tensors."),
        ({"depths": [2, 10**6]}, "depths is 1000000, but the checkpoint has 5 tensors."),
    ],
)
def test_sizes_of_a_config(config: dict[str, object], said: str) -> None:
    assert message(check_sizes, config, 5, "m") == f"config.json of 'm': {said}"


def test_files_of_a_model_folder(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    os.mkfifo(folder / "notes.txt")
    assert message(check_files, folder) == "'notes.txt' is a pipe, not a file."
    (folder / "notes.txt").unlink()
    (folder / "tokenizer.json").symlink_to("/etc/hostname")
    assert message(check_files, folder) == "'tokenizer.json' in 'm' is a link to '/etc/hostname', outside the folder."


def test_the_links_of_a_hub_cache(tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/1")
    check_files(snapshot)
