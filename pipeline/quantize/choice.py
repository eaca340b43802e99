"""What becomes of each weight: the codes that the checkpoint has of it, or the format that the scheme gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.core.types import Scheme
from pipeline.formats import NUMBER_FORMATS
from pipeline.formats.format import Layer, NumberFormat
from pipeline.formats.scheme import SchemeFormats
from pipeline.numerics.coded import Coded
from pipeline.quantize.given import GivenCodes


@dataclass(frozen=True)
class Choice:
    """What becomes of a weight: its number format, the codes that the checkpoint has of it, and why it stays in float
    (empty if it does not)."""

    form: NumberFormat
    given: Coded | None
    reason: str

    @property
    def plain(self) -> bool:
        """Whether the rows of its product are those of a table: not so of codes in another order, or with minima."""
        return self.given is None or (self.given.order is None and self.given.minima is None)


class Choices:
    """The format of each weight: of the checkpoint's codes, or as the scheme says. `stored`: products that are computed
    in float, with the format that stores them."""

    def __init__(self, formats: SchemeFormats, given: GivenCodes, stored: Mapping[int, NumberFormat]) -> None:
        self._formats, self._given, self._stored = formats, given, stored

    def of(self, layer: Layer) -> Choice:
        given, node = self._given.of(layer), str(layer.node.name)
        if given is not None:
            form = _format_of(given, self._formats.scheme)
            return Choice(form, given, form.leaves(layer.op, layer.weight))
        form = self._stored.get(id(layer)) or self._formats.of(layer.op, node)
        return Choice(form, None, self._formats.leaves(layer.op, node, layer.weight))


def _format_of(coded: Coded, scheme: Scheme) -> NumberFormat:
    """Blocks of the codes' width and size, with the scheme's products; those of 2 bits on 8-bit inputs, since ONNX
    Runtime computes others 100 times slower."""
    _, _, form = coded.in_blocks()
    settings = {"block_size": form.size, "embedding_block_size": form.size, "symmetric": form.symmetric}
    settings |= {"accuracy_level": 4} if coded.bits == 2 else {}
    return NUMBER_FORMATS.get(f"int{coded.bits}-block")(scheme.model_copy(update=settings))
