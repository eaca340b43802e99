"""The instruction counter, compiled and run: known machine code between marks."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config.target import Runtime
from pipeline.devices.arm64 import counting
from pipeline.devices.arm64.counting import CountingError, built, count, read_counts, require_plugins
from pipeline.devices.arm64.emulator import Emulator
from pipeline.devices.arm64.runner import EmulatedRunner, require
from pipeline.devices.arm64.tiers import TIERS
from pipeline.devices.runner import subject_of

# Encodings of the Arm Architecture Reference Manual; x0 points to 64 bytes
CODES = {
    "dot": {
        "sdot v0.4s, v0.16b, v0.16b": 0x4E809400,
        "udot v0.4s, v0.16b, v0.16b": 0x6E809400,
        "sdot v0.4s, v0.16b, v0.4b[0]": 0x4F80E000,
        "usdot v0.4s, v0.16b, v0.16b": 0x4E809C00,
        "sudot v0.4s, v0.16b, v0.4b[3]": 0x4F20F800,
    },
    "dot_half": {"udot v0.2s, v0.8b, v0.8b": 0x2E809400, "sdot v0.2s, v0.8b, v0.4b[0]": 0x0F80E000},
    "mmla": {
        "smmla v0.4s, v0.16b, v0.16b": 0x4E80A400,
        "ummla v0.4s, v0.16b, v0.16b": 0x6E80A400,
        "usmmla v0.4s, v0.16b, v0.16b": 0x4E80AC00,
    },
    "mlal": {
        "smlal v0.8h, v0.8b, v0.8b": 0x0E208000,
        "umlal2 v0.4s, v0.8h, v0.8h": 0x6E608000,
        "smull v0.8h, v0.8b, v0.8b": 0x0E20C000,
        "smlal v0.4s, v0.4h, v0.h[0]": 0x0F402000,
        "umull v0.4s, v0.4h, v0.h[0]": 0x2F40A000,
        "mla v0.4s, v0.4s, v0.4s": 0x4EA09400,
        "mla v0.4s, v0.4s, v0.s[0]": 0x6F800000,
    },
    "fmla": {
        "fmla v0.4s, v0.4s, v0.4s": 0x4E20CC00,
        "fmla v0.4s, v0.4s, v0.s[0]": 0x4F801000,
        "fmla v0.8h, v0.8h, v0.8h": 0x4E400C00,
        "fmadd s0, s0, s0, s0": 0x1F000000,
    },
    "bf16": {"bfmmla v0.4s, v0.8h, v0.8h": 0x6E40EC00, "bfdot v0.4s, v0.8h, v0.8h": 0x6E40FC00},
    "load": {
        "ldr q0, [x0]": 0x3DC00000,
        "ldr x1, [x0]": 0xF9400001,
        "ldrsw x1, [x0]": 0xB9800001,
        "ldp q0, q1, [x0]": 0xAD400400,
        "ld1 {v0.16b}, [x0]": 0x4C407000,
        "ldr x1, pc": 0x58000001,
        "ldadd w1, w2, [x0]": 0xB8210002,
    },
    "store": {
        "str q0, [x0, 16]": 0x3D800400,
        "str w1, [x0]": 0xB9000001,
        "stp x1, x2, [x0]": 0xA9000801,
        "st1 {v0.16b}, [x0]": 0x4C007000,
    },
    "": {"prfm pldl1keep, [x0]": 0xF9800000, "add v0.4s, v0.4s, v0.4s": 0x4EA08400, "nop": 0xD503201F},
}
_PROGRAM = """
import ctypes, json, mmap, os, sys
sys.stdin.read()
codes = {codes}
kept, places = [], ctypes.create_string_buffer(64)

def function(code, times):
    words = [0xD2800009 | times << 5, code, 0xF1000529, 0x54FFFFC1, 0xD65F03C0]  # mov x9; code; subs; b.ne; ret
    memory = mmap.mmap(-1, 4096, prot=7)
    memory.write(b"".join(word.to_bytes(4, "little") for word in words))
    kept.append(memory)
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))

def mark():
    try:
        os.sched_get_priority_max(0x5EED)
    except OSError:
        pass

functions = [function(code, times) for code in codes for times in (1000, 3000)]
for each in functions:  # once, so that all is loaded
    each(ctypes.addressof(places))
mark()
for each in functions:
    each(ctypes.addressof(places))
    mark()
print(json.dumps({{"marks": len(functions) + 1}}))
"""


@pytest.fixture
def counts_of(tmp_path: Path) -> Callable[[list[int]], list[dict[str, int]]]:
    """For each instruction, what 2,000 executions more of it add to the counts, on the i8mm tier."""

    def run(codes: list[int]) -> list[dict[str, int]]:
        program, out = tmp_path / "program.py", tmp_path / "out"
        program.write_text(_PROGRAM.format(codes=codes), encoding="ascii")
        with built() as library:
            EmulatedRunner(TIERS["i8mm"], program=program).run_with(
                counting.worker.Marked(), 60, ("-plugin", f"file={library},out={out}")
            )
        told = [read_counts(line).model_dump() for line in out.read_text().splitlines()]
        return [
            {name: more[name] - less[name] for name in more} for less, more in zip(told[::2], told[1::2], strict=True)
        ]

    return run


def skip_unless_counting() -> None:
    try:
        require_plugins(require().emulator)
        with built():
            return
    except CountingError as why:
        pytest.skip(f"instructions cannot be counted here: {why}")


@pytest.mark.slow
@pytest.mark.usefixtures("emulated")
def test_every_instruction_is_of_its_class(counts_of: Callable[[list[int]], list[dict[str, int]]]) -> None:
    skip_unless_counting()
    listed = [(name, words, code) for name, of in CODES.items() for words, code in of.items()]
    for (name, words, _), found in zip(listed, counts_of([code for _, _, code in listed]), strict=True):
        near = {key: round(value, -3) for key, value in found.items() if abs(value) >= 1000}
        assert 5000 <= near.pop("total") <= 7000  # 2,000 rounds of three; Python's own calls differ a little
        assert near == ({name: 2000} if name else {}), words


@pytest.mark.slow
@pytest.mark.usefixtures("emulated")
def test_counts_repeat_to_the_instruction(matmul: Path, inputs: Path) -> None:
    skip_unless_counting()
    subject = subject_of(matmul, inputs, Runtime())
    first, second = (count(EmulatedRunner(TIERS["asimd"]), subject) for _ in range(2))
    assert first == second
    assert first.fmla > 0 and first.load > first.store > 0
    assert first.dot == first.mmla == first.dot_macs == 0


def test_a_line_of_the_counter() -> None:
    line = "total 100 dot 3 dot_half 2 mmla 1 mlal 0 fmla 5 bf16 0 load 7 store 6"
    found = read_counts(line)
    assert (found.total, found.fmla, found.store) == (100, 5, 6)
    assert found.dot_macs == 3 * 16 + 2 * 8 + 32


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(CountingError, match=r"there is no C compiler on PATH \(cc, gcc, clang\)"), built():
        pass


def test_a_compiler_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'stdio.h: No such file' >&2\nexit 1\n", encoding="ascii")
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(CountingError, match=r"cc cannot build the counter: stdio\.h: No such file"), built():
        pass


def test_an_emulator_without_plug_ins(tmp_path: Path) -> None:
    program = tmp_path / "qemu-aarch64"
    program.write_text("#!/bin/sh\necho 'usage: qemu-aarch64 [options] program'\n", encoding="ascii")
    program.chmod(0o755)
    with pytest.raises(CountingError, match=r"QEMU 10\.0\.13 takes no plug-ins \(Debian 13 links it statically\)"):
        require_plugins(Emulator((str(program),), "10.0.13"))


def test_the_counter_compiles_without_a_warning(tmp_path: Path) -> None:
    compiler = next((name for name in counting.COMPILERS if counting.shutil.which(name)), None)
    if compiler is None:
        pytest.skip("there is no C compiler")
    flags = ["-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", "-DAPI=1"]
    subprocess.run([compiler, *flags, "-o", str(tmp_path / "c.so"), str(counting.SOURCE)], check=True)
