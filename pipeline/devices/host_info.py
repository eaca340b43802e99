"""What measurements run on. No host, user or path name is recorded."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.core.report_types import HostInfo
from pipeline.core.types import Json
from pipeline.core.untrusted import shown
from pipeline.devices.worker import Facts, available_cores, facts

_MODEL_KEYS = ("model name", "Model", "Hardware", "CPU part")
_ISA_KEYS = ("flags", "Features")
ISA = (
    *(
        "ssse3",
        "sse4_1",
        "avx",
        "avx2",
        "fma",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512_vnni",
        "avx512_bf16",
    ),
    *("avx_vnni", "avx_vnni_int8", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "svei8mm", "sme"),
)
"""Flags of /proc/cpuinfo that decide which INT8 kernels run and whether their sums can saturate."""

LIBRARIES = (
    "torch",
    "transformers",
    "optimum",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "numpy",
    "scipy",
    "safetensors",
    "pydantic",
)


def host_info() -> HostInfo:
    """This machine."""
    return machine_info(facts(Facts()))


def machine_info(told: dict[str, Json]) -> HostInfo:
    """What the worker's `facts` tell; where the system does not, `isa` is empty (see `reason`) and `memory_mb` is 0."""
    fields = cpu_fields(told["cpuinfo"])
    return HostInfo(
        cpu=shown(cpu_name(fields) or told["processor"]),
        isa=isa_flags(fields),
        cores=told["cores"],
        memory_mb=told["memory_mb"],
        system=shown(told["system"]),
        reason=shown(told["reason"]),
        onnxruntime=shown(told["onnxruntime"]),
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result may depend on; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in ("edge-pipeline", *LIBRARIES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def cpu_fields(cpuinfo: str) -> dict[str, str]:
    """The fields of the first core in the text of /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    return fields


def cpu_name(fields: dict[str, str]) -> str:
    """The model's name; on ARM, where there often is none, the part number."""
    key = next((key for key in _MODEL_KEYS if fields.get(key)), "")
    return f"{key} {fields[key]}" if key == "CPU part" else fields.get(key, "")


def isa_flags(fields: dict[str, str]) -> tuple[str, ...]:
    flags = {flag for key in _ISA_KEYS for flag in fields.get(key, "").split()}
    return tuple(name for name in ISA if name in flags)


def training_hardware() -> dict[str, object]:
    """What of this machine can change the bytes that training gives: the CPU's instructions, threads, processes and
    whether there is a GPU."""
    return {
        "isa": list(host_info().isa),
        "threads": int(os.environ.get("OMP_NUM_THREADS", available_cores())),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "gpus": sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*")),
    }
