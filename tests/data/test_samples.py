from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from pipeline.core.errors import IntegrityError
from pipeline.data.samples import Row, open_samples, write_samples

Array = NDArray[np.generic]
DTYPES = st.sampled_from([np.int64, np.float32, np.uint8, np.bool_])


def text_rows() -> list[Row]:
    """Three samples of different lengths."""
    return [
        {
            "ids": np.arange(length)[None],
            "mask": np.ones((1, length), np.int64),
            "score": np.array([length], np.float32),
        }
        for length in (3, 1, 4)
    ]


def assert_same(actual: Row, expected: Row) -> None:
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype
        np.testing.assert_array_equal(actual[name], array)


def test_files_worked_by_hand(tmp_path: Path) -> None:
    rows = [{"x": np.array([[1, 2]], np.uint8)}, {"x": np.array([[3]], np.uint8)}]
    assert write_samples(tmp_path, rows) == 2
    assert (tmp_path / "0.bin").read_bytes() == b"\x01\x02\x03"
    index = json.loads((tmp_path / "index.json").read_text())
    assert index == {"samples": 2, "inputs": {"x": {"file": "0.bin", "dtype": "|u1", "shapes": [[1, 2], [1, 1]]}}}


def test_samples_come_back(tmp_path: Path) -> None:
    rows = text_rows()
    assert write_samples(tmp_path, iter(rows)) == 3
    samples = open_samples(tmp_path)
    assert len(samples) == 3
    for position in (2, 0, 1):
        assert_same(samples[position], rows[position])


@given(data=st.data(), dtype=DTYPES)
def test_any_arrays_come_back(data: st.DataObject, dtype: type, tmp_path_factory: pytest.TempPathFactory) -> None:
    arrays = st.lists(npst.arrays(dtype, npst.array_shapes(max_dims=3, max_side=4)), min_size=1, max_size=4)
    rows = [{"x": array} for array in data.draw(arrays)]
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder, rows)
    for actual, expected in zip(open_samples(folder), rows, strict=True):
        assert_same(actual, expected)


def test_arrays_of_any_memory_layout_are_written_row_by_row(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3))
    write_samples(tmp_path, [{"x": array}])
    np.testing.assert_array_equal(open_samples(tmp_path)[0]["x"], array)


@pytest.mark.parametrize(("limit", "length"), [(None, 3), (2, 2), (0, 0), (9, 3)])
def test_limit_keeps_the_first(tmp_path: Path, limit: int | None, length: int) -> None:
    write_samples(tmp_path, text_rows())
    samples = open_samples(tmp_path, limit)
    assert len(samples) == len(list(samples)) == len(list(samples.select(["ids"]))) == length


@pytest.mark.parametrize("position", [-1, 2, 3])
def test_positions_outside_are_refused(tmp_path: Path, position: int) -> None:
    write_samples(tmp_path, text_rows())
    with pytest.raises(IndexError):
        open_samples(tmp_path, limit=2)[position]


def test_select_gives_what_is_asked_for(tmp_path: Path) -> None:
    rows = text_rows()
    write_samples(tmp_path, rows)
    for actual, expected in zip(open_samples(tmp_path).select(["mask", "ids"]), rows, strict=True):
        assert list(actual) == ["mask", "ids"]
        assert_same(actual, {name: expected[name] for name in ("mask", "ids")})


def test_select_refuses_an_unknown_input(tmp_path: Path) -> None:
    write_samples(tmp_path, text_rows())
    with pytest.raises(IntegrityError) as caught:
        next(open_samples(tmp_path).select(["ids", "token_type_ids"]))
    assert caught.value.message == "The graph asks for the input 'token_type_ids'; the samples have ids, mask, score."


def test_samples_do_not_alias_the_file(tmp_path: Path) -> None:
    write_samples(tmp_path, text_rows())
    samples = open_samples(tmp_path)
    samples[0]["ids"][:] = 9
    assert samples[0]["ids"].tolist() == [[0, 1, 2]]


def test_no_samples(tmp_path: Path) -> None:
    assert write_samples(tmp_path, []) == 0
    assert list(open_samples(tmp_path)) == []


def test_rows_are_written_before_the_next_is_made(tmp_path: Path) -> None:
    """So that memory does not grow with their number: a row that was given is no longer held."""
    alive = 0

    class Tracked(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= self.base is None

    def rows() -> Iterator[Row]:
        nonlocal alive
        for _ in range(50):
            array = Tracked((1, 8), np.int64)
            alive += 1
            assert alive <= 2
            yield {"x": array}

    assert write_samples(tmp_path, rows()) == 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: {**row, "ids": row["ids"].astype(np.int32)}, "A sample has dtype int32, the first one had <i8."),
        (
            lambda row: {name: row[name] for name in ("ids", "mask")},
            "A sample has the inputs ids, mask, the first one had ids, mask, score.",
        ),
        (
            lambda row: {**row, "extra": row["ids"]},
            "A sample has the inputs ids, mask, score, extra, the first one had ids, mask, score.",
        ),
    ],
)
def test_rows_must_be_alike(tmp_path: Path, change: Callable[[Row], Row], message: str) -> None:
    """Otherwise later samples would be read from the wrong place."""
    first, second, _ = text_rows()
    with pytest.raises(IntegrityError) as caught:
        write_samples(tmp_path, [first, change(second)])
    assert caught.value.message == message


def test_steps_of_sequences_know_where_each_begins(tmp_path: Path) -> None:
    rows = [{"x": np.array([n])} for n in range(5)]
    write_samples(tmp_path, rows, {"h": "hn"}, (2, 3))
    samples = open_samples(tmp_path)
    assert [samples.begins(place) for place in range(5)] == [True, False, True, False, False]
    assert (samples.states, samples.sequences) == ({"h": "hn"}, [2, 3])
    assert samples.part([1, 2]).states == {}, "single steps run with the states that they have"
