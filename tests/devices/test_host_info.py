from __future__ import annotations

import platform

from pipeline.devices.host_info import cpu_fields, cpu_name, host_info, isa_flags, versions

X86 = """processor\t: 0
model name\t: Some CPU @ 2.0GHz
flags\t\t: fpu avx avx2 avx512_vnni amx_int8 rdrand

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""
ARM = """processor\t: 0
Features\t: fp asimd asimddp i8mm sve
CPU part\t: 0xd0b
"""


def test_x86_first_core() -> None:
    fields = cpu_fields(X86)
    assert cpu_name(fields) == "Some CPU @ 2.0GHz"
    assert isa_flags(fields) == ("avx", "avx2", "avx512_vnni", "amx_int8")


def test_arm_has_a_part_number() -> None:
    fields = cpu_fields(ARM)
    assert cpu_name(fields) == "CPU part 0xd0b"
    assert isa_flags(fields) == ("asimd", "asimddp", "i8mm", "sve")


def test_nothing_known() -> None:
    assert cpu_name({}) == ""
    assert isa_flags({}) == ()


def test_this_machine() -> None:
    host = host_info()
    assert host.cpu
    assert host.cores >= 1
    assert host.memory_mb > 100
    assert host.system.startswith(platform.system())
    assert platform.node() not in host.model_dump_json() or len(platform.node()) < 4


def test_versions_name_the_runtime() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["onnxruntime"].startswith("1.")
