"""What an installation can do: `pip install edge-pipeline` checks bundles; to export them, it needs the extra `export`,
whose libraries are loaded only where they are used."""

from __future__ import annotations

from importlib.util import find_spec

from pipeline.core.errors import UsageError, causes

EXPORT = ("torch", "transformers", "tokenizers", "optimum", "onnx_ir", "onnxscript", "scipy", "tensorly", "accelerate")
"""The modules of the libraries that the extra `export` installs."""
_REMEDY = "Install what exports need: pip install 'edge-pipeline[export]'"


def require_export() -> None:
    """UsageError unless all that an export needs is installed."""
    missing = [name for name in EXPORT if find_spec(name) is None]
    if missing:
        raise _not_installed(missing)


def not_installed(error: BaseException) -> UsageError | None:
    """What to say of an error that comes of a library of `EXPORT` which is not there; None of any other."""
    names = [cause.name for cause in causes(error) if isinstance(cause, ModuleNotFoundError) and cause.name]
    missing = [name for name in names if name.split(".")[0].replace("-", "_") in EXPORT]
    return _not_installed(missing[-1:]) if missing else None


def _not_installed(names: list[str]) -> UsageError:
    are = "is" if len(names) == 1 else "are"
    return UsageError(f"This installation checks bundles: {', '.join(names)} {are} not installed.", _REMEDY)
