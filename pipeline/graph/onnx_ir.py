"""onnx_ir, loaded when it is first used: checking a bundle reads no graph with it, and an installation that only checks
need not have it (with sympy, which it asks for, it is 90 MB)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["ir"]

if TYPE_CHECKING:
    import onnx_ir as ir
else:

    class _OnFirstUse:
        def __getattr__(self, name: str) -> Any:
            return getattr(import_module("onnx_ir"), name)

    ir = _OnFirstUse()
