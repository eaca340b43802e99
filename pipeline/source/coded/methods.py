"""The kinds of checkpoints of codes in safetensors, by the `quant_method` of their config.json."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline.source.coded.awq import awq_modules
from pipeline.source.coded.compressed_tensors import compressed_modules
from pipeline.source.coded.gptq import gptq_modules
from pipeline.source.coded.module import CodedModule
from pipeline.source.coded.tensors import Tensors

Modules = Callable[[Tensors, Mapping[str, Any]], Iterator[CodedModule]]
"""The modules of a folder whose config.json has these settings."""
METHODS: dict[str, tuple[str, Modules]] = {
    "gptq": ("GPTQ", gptq_modules),
    "awq": ("AWQ", awq_modules),
    "compressed-tensors": ("compressed-tensors", compressed_modules),
}
