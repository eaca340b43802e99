"""Which number format a scheme gives to which weight, and what follows from that for the rest of the pipeline."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from pipeline.core.errors import UsageError
from pipeline.core.report_types import TensorFormat
from pipeline.core.types import Scheme
from pipeline.formats import NUMBER_FORMATS
from pipeline.formats.format import BY_CURVATURE, OPERATORS, Entry, NumberFormat, TensorClass
from pipeline.numerics.affine import Float

_INPUTS = {
    "none": "stay in float",
    "run time": "8-bit integers, with ranges found at run time for every input",
    "calibrated": "8-bit integers, with ranges fixed by calibration",
}
"""Where a format takes the ranges of its inputs from -> what becomes of them."""
_CACHES = {16: "float16", 8: "INT8, a scale for each channel of each head"}
OVERRIDDEN = "(override "
"""What the reason of a weight holds that an override leaves in float."""
_SHOWN = 3
_PARTS = re.compile(r"[.*/?]+")


class SchemeFormats:
    """The formats of one scheme: those of its tensor classes, and those of its overrides.

    Args:
        scheme: The record with the settings.
        tensors: What an export stored in which format, where that is known: an override that took no product then has
            no part in what is said of products.
        chosen: Node -> format, where neither a tensor class nor an override decides.
    """

    def __init__(
        self, scheme: Scheme, tensors: Sequence[TensorFormat] = (), chosen: Mapping[str, str] | None = None
    ) -> None:
        self.scheme = scheme
        self.classes: dict[TensorClass, NumberFormat] = {
            op: NUMBER_FORMATS.get(name)(scheme) for op, name in _names(scheme).items()
        }
        self._head = NUMBER_FORMATS.get(block_format_name(scheme.head))(scheme) if scheme.head else None
        blocks = [NUMBER_FORMATS.get(block_format_name(bits))(scheme) for bits in (2, 4, 8)]
        self._offered = [form for form in blocks if form.objection is None]
        self._chosen = {node: NUMBER_FORMATS.get(name)(scheme) for node, name in (chosen or {}).items()}
        self._overrides = [(pattern, NUMBER_FORMATS.get(name)(scheme)) for pattern, name in scheme.overrides]
        multiplied = {tensor.override for tensor in tensors if tensor.op != "table"}
        recurrent = any(tensor.op == "lstm" and not tensor.override for tensor in tensors)
        self._lstms = [self.classes["lstm"]] if recurrent else []
        self._product_overrides = [
            (pattern, form) for pattern, form in self._overrides if not tensors or pattern in multiplied
        ]
        self._products = [
            self.classes["linear"],
            *self._lstms,
            *([self._head] if self._head else []),
            *(self._offered if scheme.average_bits is not None else []),
            *(form for _, form in self._product_overrides),
        ]
        self._given = [tensor for tensor in tensors if tensor.given]
        stored = {tensor.override for tensor in tensors}
        self.idle_overrides = [
            pattern for pattern, form in self._overrides if tensors and form.code_bits < 32 and pattern not in stored
        ]
        """The patterns that no weight of the export follows, though their formats store some."""

    @property
    def head(self) -> NumberFormat | None:
        """The format of last products, where they have one of their own."""
        return self._head

    @property
    def average_bits(self) -> float:
        """Bits that products may take on average; of a scheme that `allocates`."""
        assert self.scheme.average_bits is not None  # noqa: S101
        return self.scheme.average_bits

    @property
    def scales_channels(self) -> bool:
        """Whether channels are scaled for the rounding of weights."""
        return self.scheme.activation_aware

    @property
    def changed_by(self) -> str:
        """What of the scheme changes float weights before they are rounded; empty if nothing does."""
        if self.scheme.activation_aware:
            return "activation_aware"
        return "" if self.scheme.smoothing is None else f"smoothing (alpha {self.scheme.smoothing:g})"

    @property
    def offered(self) -> list[str]:
        """The formats among which a measurement chooses under `average_bits`, what takes fewest bits first: those of
        blocks that have nothing against the scheme's settings."""
        return [form.name for form in self._offered]

    def is_decided(self, node: str) -> bool:
        """Whether the scheme speaks of this very product."""
        return node in self._chosen or bool(self.override(node))

    @property
    def patterns(self) -> tuple[str, ...]:
        """The name patterns of the overrides."""
        return tuple(pattern for pattern, _ in self._overrides)

    def override(self, node: str) -> str:
        """The pattern that decides for a node: the last one that matches its name; empty if none does."""
        return next((pattern for pattern in reversed(self.patterns) if fnmatchcase(node, pattern)), "")

    def of(self, op: TensorClass, node: str) -> NumberFormat:
        """The format of a weight that `node` reads."""
        pattern = self.override(node)
        if pattern:
            return dict(self._overrides)[pattern]
        return self._chosen[node] if op == "linear" and node in self._chosen else self.classes[op]

    def of_module(self, op: TensorClass, module: str) -> NumberFormat:
        """The format that the weight of a PyTorch module gets, whose node the traced graph names after it."""
        return self.of(op, f"{module}/{OPERATORS[op][0]}")

    def leaves(self, op: TensorClass, node: str, weight: Float) -> str:
        """Why a weight stays in float; empty if it need not."""
        pattern, reason = self.override(node), self.of(op, node).leaves(op, weight)
        return f"{reason} {OVERRIDDEN}{pattern!r})" if reason and pattern else reason

    @property
    def rounds(self) -> bool:
        """Whether any weight is stored in fewer bits than it has."""
        return any(form.code_bits < 32 for form in (*self.classes.values(), *dict(self._overrides).values()))

    @property
    def needs_ranges(self) -> bool:
        return any(form.ranges == "calibrated" for form in self._products)

    @property
    def needs_curvature(self) -> bool:
        return any(form.uses_curvature for form in self._products)

    @property
    def learns(self) -> bool:
        """Whether codes and scales of products are learned."""
        return any(form.learns for form in self._products)

    @property
    def objections(self) -> list[tuple[str, str]]:
        """What formats of products have against the scheme's settings, and what to do."""
        return [said for form in self._products if (said := form.objection) is not None]

    @property
    def finds_ranges_at_run_time(self) -> bool:
        return any(form.ranges == "run time" for form in self._products)

    @property
    def integer_products(self) -> bool:
        """Whether products with weights, or some of them, are computed on 8-bit inputs."""
        return any(form.integer_products for form in self._products)

    @property
    def smooths(self) -> bool:
        """Whether outlier channels are scaled down before anything is rounded."""
        return self.scheme.smoothing is not None

    @property
    def allocates(self) -> bool:
        """Whether products get the bits that their measured sensitivity asks for."""
        return self.scheme.average_bits is not None

    @property
    def keeps_sensitive(self) -> bool:
        """Whether the layers that cost the output most are measured and left in float."""
        return self.scheme.min_sqnr_db is not None

    def has_wider_scales(self, entry: Entry) -> bool:
        """Whether float16 cannot hold scales of a weight that the scheme wants in 16 bits."""
        return entry.parameters.get("scale_bits", 0) > self.scheme.scale_bits

    @property
    def rounded_inputs(self) -> str:
        """What happens to the inputs of products, in words."""
        usual = _INPUTS[self.classes["linear"].ranges]
        named = [*(("LSTMs", form) for form in self._lstms), *self._product_overrides]
        others = [(name, words) for name, form in named if (words := _INPUTS[form.ranges]) != usual]
        return "; ".join([usual, *(f"{name}: {words}" for name, words in others)])

    def _given_words(self, words: Mapping[str, str]) -> dict[str, str]:
        """What is said of products and tables of which the checkpoint has the codes, before what the scheme says of the
        rest."""
        found: dict[str, str] = {}
        for subject, op in (("Weights", "linear"), ("Embeddings", "table")):
            kinds = Counter(tensor.format for tensor in self._given if tensor.op == op)
            listed = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
            found |= {subject: f"codes of the checkpoint ({listed}); others: {words[subject]}"} if kinds else {}
        return found

    def words(self) -> dict[str, str]:
        """What is rounded and how, by subject; settings without effect on these formats are left out."""
        scheme = self.scheme
        words = {
            "Weights": self.classes["linear"].words("linear"),
            "Activations": self.rounded_inputs,
            **({"Head": self._head.words("linear")} if self._head else {}),
            "Embeddings": self.classes["table"].words("table"),
        }
        if scheme.average_bits is not None:
            bits = ", ".join(str(form.code_bits) for form in self._offered)
            words["Weights"] = (
                f"{bits} bits by measured loss, {scheme.average_bits:g} on average, in blocks of {scheme.block_size}"
            )
        words |= self._given_words(words)
        for form in self._products:
            words |= form.details()
        if scheme.cache != 32:
            words["Keys and values"] = _CACHES[scheme.cache]
        words["Smoothing"] = "none" if scheme.smoothing is None else f"SmoothQuant, alpha {scheme.smoothing:g}"
        if scheme.activation_aware:
            words["Smoothing"] = "AWQ, where the operators before take factors over"
        words["Left out on request"] = ", ".join(scheme.nodes_to_exclude) or "nothing"
        if scheme.overrides:
            words["Overrides"] = "; ".join(f"{pattern}: {name}" for pattern, name in scheme.overrides)
        return words

    def finer_settings(self, low_bit: Collection[TensorClass]) -> list[str]:
        """What of the scheme's own settings would keep more accuracy. `low_bit`: the classes of which the bundle stores
        weights in 4 bits."""
        scheme, table, linear = self.scheme, self.classes["table"], self.classes["linear"]
        settings = []
        if scheme.smoothing is not None:
            settings.append(f"another smoothing than {scheme.smoothing:g}")
        if self.needs_ranges and scheme.observer == "minmax":
            settings.append('observer = "percentile"')
        if table.finer("table") and "table" in low_bit:
            settings.append(table.finer("table"))
        if self.allocates:
            settings.append("a larger average_bits")
        elif linear.code_bits < 16 and not self.keeps_sensitive:
            settings.append("min_sqnr_db, which leaves sensitive layers in float,")
        if scheme.cache == 8:
            settings.append("cache = 16")
        return settings

    def cpu_notes(self, vnni: bool) -> list[str]:
        """What a reader must know before trusting a score across CPUs."""
        return list(dict.fromkeys(note for form in self._products if (note := form.cpu_note(vnni))))


def block_format_name(bits: int) -> str:
    """The name of the format of blocks of that many bits."""
    return f"int{bits}-block"


def _names(scheme: Scheme) -> dict[TensorClass, str]:
    """The formats that the bits of a scheme stand for. Convolutions run in integers only with calibrated ranges."""
    integer = scheme.activations != "float"
    if scheme.everywhere is not None:
        npu, stored = "int8-npu", "int8-stored"
        return {"linear": npu, "conv": npu, "table": npu, "lstm": stored, "other": stored}
    eight = ("int8-channel" if scheme.per_channel else "int8-tensor") if integer else "int8-block"
    four = "int4-widened" if integer else "int4-block"
    products = {32: "fp32", 16: "fp16", 8: eight, 4: four, 2: "int2-block"}[scheme.weights]
    tables = {32: "fp32", 16: "fp16", 8: "int8-channel", 4: "int4-block", 2: "int2-block"}[scheme.embeddings]
    convolutions = products if scheme.weights >= 16 else "int8-stored"
    if scheme.activations == "static" and scheme.weights < 16:
        convolutions = eight  # there is no convolution of 4 bits
    others = products if scheme.weights >= 16 else "int8-stored"
    recurrent = "int8-lstm" if integer and scheme.weights < 16 else others
    return {"linear": products, "conv": convolutions, "table": tables, "lstm": recurrent, "other": others}


def check_scheme(scheme: Scheme) -> None:
    """UsageError if the fields contradict each other, or an override names no format."""
    if scheme.everywhere is not None and (
        scheme.activations != "static" or (scheme.weights, scheme.embeddings) != (8, 8)
    ):
        raise UsageError(
            f"The scheme {scheme.name!r} rounds everywhere, with weights of {scheme.weights} bits, embeddings of "
            f"{scheme.embeddings} and {scheme.activations} activations.",
            'NPUs want all of it fixed: weights = 8, embeddings = 8 and activations = "static", or no everywhere.',
        )
    formats = SchemeFormats(scheme)
    if scheme.activations != "float" and formats.classes["linear"].ranges == "none":
        raise UsageError(
            f"The scheme {scheme.name!r} rounds activations to 8 bits ({scheme.activations}) but stores weights in "
            f"{scheme.weights}.",
            'Use weights = 8 or 4, or activations = "float".',
        )
    if scheme.rounding in BY_CURVATURE and not formats.needs_curvature:
        raise UsageError(
            f"The scheme {scheme.name!r} asks for GPTQ but stores weights in {scheme.weights} bits.",
            'Use weights = 4 or 2, or rounding = "nearest": from 8 bits on it costs next to nothing.',
        )
    if formats.allocates and (scheme.activations != "float" or formats.keeps_sensitive):
        raise UsageError(
            f"The scheme {scheme.name!r} has average_bits = {scheme.average_bits:g} beside "
            + ("min_sqnr_db." if formats.keeps_sensitive else f'activations = "{scheme.activations}".'),
            "It chooses among blocks of 2, 4 and 8 bits, with float activations (accuracy_level 4 rounds them), and "
            "leaves nothing in float.",
        )
    if formats.smooths and scheme.activation_aware:
        raise UsageError(
            f"The scheme {scheme.name!r} has smoothing and activation_aware, which scale the same channels.",
            "Leave one of the two out: smoothing is for inputs rounded to 8 bits, activation_aware for weights.",
        )
    _check_learning(scheme, formats)
    for what, remedy in formats.objections:
        raise UsageError(f"The scheme {scheme.name!r} {what}.", remedy)
    if not 50 < scheme.percentile <= 100:
        raise UsageError(
            f"The scheme {scheme.name!r} has the percentile {scheme.percentile:g}.",
            "It is the share of values that a range holds, in percent: above 50, at most 100.",
        )


def _check_learning(scheme: Scheme, formats: SchemeFormats) -> None:
    if scheme.rounding == "learned" and not formats.learns:
        raise UsageError(
            f"The scheme {scheme.name!r} asks for learned rounding but stores no products in blocks of 4 or 2 bits.",
            'Use weights = 4 or 2 with activations = "float", or rounding = "nearest".',
        )
    if scheme.rounding == "learned" and scheme.smoothing is not None:
        raise UsageError(
            f"The scheme {scheme.name!r} learns the codes of weights that smoothing = {scheme.smoothing:g} changes.",
            "Leave smoothing out: it helps products on rounded inputs, and learned ones are of float inputs.",
        )
    if scheme.rounding == "learned" and scheme.activation_aware:
        raise UsageError(
            f"The scheme {scheme.name!r} learns the codes of weights that activation_aware changes.",
            "Leave activation_aware out.",
        )
    if scheme.learning is not None and scheme.rounding != "learned":
        raise UsageError(
            f"The scheme {scheme.name!r} has [scheme.learning], but rounding = {scheme.rounding!r}.",
            'Add rounding = "learned", or remove the table.',
        )


def check_overrides(patterns: Iterable[str], nodes: Sequence[str]) -> None:
    """UsageError for a pattern that matches none of `nodes`, which read weights."""
    for pattern in patterns:
        if not any(fnmatchcase(node, pattern) for node in nodes):
            shown = ", ".join(_near(pattern, nodes) or nodes[:_SHOWN]) or "none, as no node reads a weight"
            raise UsageError(
                f"The scheme's override {pattern!r} matches no node that reads a weight.",
                f"Names look like: {shown}. `edge inspect <bundle>` lists them; * matches anything.",
            )


def _near(pattern: str, nodes: Sequence[str]) -> list[str]:
    """Some names that are like the pattern, as a whole or in one of their parts."""
    if whole := get_close_matches(pattern.replace("*", ""), nodes, n=_SHOWN, cutoff=0.4):
        return whole
    having: dict[str, str] = {}
    for node in nodes:
        for part in _PARTS.split(node):
            having.setdefault(part, node)
    parts = [part for part in _PARTS.split(pattern) if part]
    close = [having[found] for part in parts for found in get_close_matches(part, having, n=1, cutoff=0.7)]
    return list(dict.fromkeys(close))[:_SHOWN]
