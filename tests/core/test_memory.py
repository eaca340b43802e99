"""Recognizing that memory ran out, and refusing to start where it must."""

from __future__ import annotations

import errno
import gc
import resource

import pytest

from pipeline.core.errors import ExitCode, ResourceError, StageError
from pipeline.core.memory import gc_threshold, is_disk_full, is_out_of_memory, require_address_space


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "x"), True),
        (OSError(errno.ENOENT, "x"), False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (ImportError("lib.so: failed to map segment from shared object"), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("a text about what we cannot allocate memory for"), False),
    ],
)
def test_what_libraries_raise(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_an_error_raised_from_it_is_it_too() -> None:
    with pytest.raises(StageError) as caught:
        try:
            raise MemoryError
        except MemoryError as error:
            raise StageError("The exporter failed.") from error
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(("limit", "refused"), [(resource.RLIM_INFINITY, False), (2 * 10**9, False), (10**9, True)])
def test_a_limit_below_what_libraries_map_is_refused(
    monkeypatch: pytest.MonkeyPatch, limit: int, refused: bool
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    if not refused:
        require_address_space()
        return
    with pytest.raises(ResourceError) as caught:
        require_address_space()
    assert caught.value.message.startswith("Out of memory: this process may map 1000 MB (ulimit -v)")
    assert caught.value.exit_code == ExitCode.STAGE_FAILED


def test_garbage_is_looked_for_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with pytest.raises(MemoryError), gc_threshold():
        assert gc.get_threshold() == (50_000, *before[1:])
        raise MemoryError
    assert gc.get_threshold() == before


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (ValueError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (OSError(errno.ENOENT, "x"), False),
        (ValueError("Error while serializing: I/O error: No such file or directory (os error 2)"), False),
    ],
)
def test_what_is_raised_on_a_full_disk(error: Exception, expected: bool) -> None:
    assert is_disk_full(error) is expected
    with pytest.raises(RuntimeError) as raised:
        raise RuntimeError("saving failed") from error
    assert is_disk_full(raised.value) is expected
