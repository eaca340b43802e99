"""SoCs with an NPU that QNN compiles for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.core.errors import UsageError, suggest
from pipeline.core.types import StrictModel
from pipeline.core.untrusted import read_toml

_FILE = Path(__file__).with_name("socs.toml")


class Soc(StrictModel):
    """See `socs.toml`."""

    name: str
    title: str
    model: Annotated[int, Field(gt=0)]
    htp: Annotated[int, Field(gt=0)]

    @property
    def options(self) -> dict[str, str]:
        """Of QNN's execution provider, beside its library. Floats are computed as float16."""
        return {"soc_model": str(self.model), "htp_arch": str(self.htp), "enable_htp_fp16_precision": "1"}


@cache
def socs() -> dict[str, Soc]:
    """All, by name."""
    return {name: Soc.from_data({"name": name, **table}, _FILE.name) for name, table in read_toml(_FILE).items()}


def soc_called(name: str) -> Soc:
    """The SoC of that name; UsageError if QNN is not known to compile for it."""
    if why := unknown(name):
        raise UsageError(why)
    return socs()[name]


def unknown(name: str) -> str:
    """What to say of a name that no SoC has; empty for one that one has."""
    return "" if name in socs() else f"There is no SoC {name!r} that QNN compiles for. {suggest(name, socs())}"
