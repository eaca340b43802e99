from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.loading import load_target
from pipeline.config.target import Runtime
from pipeline.core.errors import StageError, UsageError
from pipeline.core.types import Evidence
from pipeline.devices import runner_of
from pipeline.devices.arm64 import runner
from pipeline.devices.arm64.environment import Record
from pipeline.devices.arm64.runner import ARM64, EmulatedRunner, native_tier, require
from pipeline.devices.arm64.tiers import TIERS
from pipeline.devices.host_runner import HOST
from pipeline.devices.runner import lacking, subject_of
from pipeline.devices.runner_session import RunnerSession
from pipeline.devices.worker import Facts

SDOT, SMMLA = 0x4E809400, 0x4E80A400  # sdot v0.4s, v0.16b, v0.16b; smmla likewise (Arm ARM, C7.2)
_EXECUTES = """
import ctypes, mmap, sys
sys.stdin.read()
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(({0}).to_bytes(4, "little") + (0xD65F03C0).to_bytes(4, "little"))
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
print("{{}}")
"""


@pytest.fixture
def executing(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A program in place of the worker that executes one instruction."""

    def make(tier: str, instruction: int) -> EmulatedRunner:
        path = tmp_path / "program.py"
        path.write_text(_EXECUTES.format(instruction), encoding="ascii")
        return EmulatedRunner(TIERS[tier], program=path)

    return make


def test_the_targets_tier_or_the_named_one() -> None:
    phone = load_target("phone").model_copy(update={"runner": "arm64"})
    assert runner_of(phone) == EmulatedRunner(TIERS["i8mm"], (TIERS["asimd"], TIERS["dotprod"]))
    assert list(runner_of(phone).tiers) == ["i8mm", "asimd", "dotprod"]  # type: ignore[attr-defined]
    assert runner_of(phone.model_copy(update={"runner": "arm64:asimd"})) == EmulatedRunner(TIERS["asimd"])
    with pytest.raises(UsageError, match="Unknown tier 'a53'"):
        runner_of(phone.model_copy(update={"runner": "arm64:a53"}))


def test_emulation_gives_neither_times_nor_memory() -> None:
    found = EmulatedRunner(TIERS["asimd"])
    assert found.evidence is Evidence.EMULATED
    assert lacking(found, "times") == "under emulation a time is the emulator's, not the CPU's"
    assert lacking(found, "memory") == "under emulation the process holds the emulator and its translated code too"


def test_an_arm_machine_of_the_tier_needs_no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert native_tier() is None or HOST.info().system.endswith("aarch64")
    monkeypatch.setattr(runner, "native_tier", lambda: TIERS["i8mm"])
    phone = load_target("phone")
    assert ARM64.at("i8mm", phone) is HOST
    assert ARM64.at("dotprod", phone) == EmulatedRunner(TIERS["dotprod"])
    together = ARM64.at("", phone)
    assert [each.evidence for each in together.tiers.values()] == [Evidence.HOST, Evidence.EMULATED, Evidence.EMULATED]  # type: ignore[attr-defined]
    assert EmulatedRunner(TIERS["i8mm"]).info() == HOST.info()


def test_not_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_DEVICES", str(tmp_path))
    with pytest.raises(
        StageError, match=r"The arm64 environment is not set up on this machine\.\n`edge devices setup a"
    ):
        EmulatedRunner(TIERS["asimd"]).run(Facts(), 1.0)


def test_another_release_of_onnx_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_DEVICES", str(tmp_path))
    (tmp_path / "arm64").mkdir()
    record = Record(python="3.11", onnxruntime="1.0", emulator="", packages=())
    (tmp_path / "arm64/environment.json").write_text(record.model_dump_json(), encoding="utf-8")
    with pytest.raises(StageError, match=r"The arm64 environment has ONNX Runtime 1\.0, and here it is \d"):
        require()


@pytest.mark.usefixtures("emulated")
def test_an_emulated_core_answers_as_this_machine(matmul: Path, inputs: Path) -> None:
    session = RunnerSession(EmulatedRunner(TIERS["asimd"]), subject_of(matmul, inputs, Runtime()))
    feed = {"x": np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)}
    (here,) = RunnerSession(HOST, subject_of(matmul, inputs, Runtime())).run(["y"], feed)
    (there,) = session.run(["y"], feed)
    assert there.shape == (3, 32)
    np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("emulated")
def test_an_instruction_that_the_tier_lacks(executing) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(
        StageError, match=r"asimd \(Cortex-A53\) met an instruction .* needs asimddp, the tier lacks it"
    ):
        executing("asimd", SDOT).run(Facts(), 10.0)
    assert executing("dotprod", SDOT).run(Facts(), 10.0) == {}


@pytest.mark.slow
@pytest.mark.usefixtures("emulated")
def test_instructions_of_other_tiers(executing) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StageError, match=r"this bundle needs i8mm, the tier lacks it; on the tier i8mm it runs\."):
        executing("dotprod", SMMLA).run(Facts(), 10.0)
    with pytest.raises(
        StageError, match=r"met an instruction that it does not have, and no other tier runs it either\."
    ):
        executing("asimd", 0).run(Facts(), 10.0)  # udf #0 is undefined on all


@pytest.mark.slow
@pytest.mark.usefixtures("emulated")
def test_a_program_that_crashes(tmp_path: Path) -> None:
    path = tmp_path / "crash.py"
    path.write_text("import ctypes\nctypes.string_at(0)\n", encoding="ascii")
    with pytest.raises(StageError, match=r"Measuring facts on the tier asimd failed: SIGSEGV \(qemu: uncaught target"):
        EmulatedRunner(TIERS["asimd"], program=path).run(Facts(), 10.0)


@pytest.mark.slow
@pytest.mark.usefixtures("emulated")
def test_a_program_that_never_ends(tmp_path: Path) -> None:
    path = tmp_path / "sleep.py"
    path.write_text("import time\ntime.sleep(600)\n", encoding="ascii")
    with pytest.raises(StageError, match=r"on the emulated tier asimd took longer than 2 s and was stopped\."):
        EmulatedRunner(TIERS["asimd"], program=path).run(Facts(), 2 / runner.SLOWER)


@pytest.mark.usefixtures("emulated")
def test_an_emulator_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = require()
    own = found.__class__(found.folder, found.record.model_copy(update={"emulator": ""}))
    monkeypatch.setattr(runner, "require", lambda: own)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(StageError, match=r"qemu-aarch64, which was on PATH when arm64 was set up, is gone\."):
        EmulatedRunner(TIERS["asimd"]).run(Facts(), 10.0)


@pytest.mark.slow
@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("tier", TIERS.values(), ids=TIERS)
def test_every_tier_is_what_it_says(tier) -> None:  # type: ignore[no-untyped-def]
    machine = EmulatedRunner(tier).info()
    assert machine.cpu.startswith(f"{tier.core}, emulated by QEMU ")
    assert set(machine.isa) <= set(tier.features) and set(tier.needs) <= set(machine.isa)
    json.dumps(machine.model_dump(mode="json"))
