"""What rounding the weights of the small Llama in EDGE_DATA to blocks loses, by method, at equal bytes: divergence from
float per token on its held-out documents, of the graphs that exports write, in ONNX Runtime.

    make bench ID=tinylm

Calibration has texts that the model was trained on. Where 4-bit weights are compared, products are in float and the
table stays in float too, so that nothing but the weights differs; 2-bit products are of 8-bit inputs, since ONNX
Runtime has no others that are fast.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks import tinylm
from benchmarks.data import folder
from benchmarks.row import Measured, Row
from benchmarks.training_time import run_plan
from pipeline.config.job import Job
from pipeline.core.stage import Stage
from pipeline.metrics.language import divergence, log_probabilities
from pipeline.plan.build import make_plan

_DOCUMENTS = 1024
_LEARNED_DOCUMENTS = 2150
"""266,000 tokens, which codes are learned from."""
_WINDOWS = 48
_BODY = {"weights": 4, "block_size": 32, "accuracy_level": 0, "nodes_to_exclude": ["lm_head*"], "embeddings": 32}
_TWO = {"weights": 2, "block_size": 64, "accuracy_level": 4, "nodes_to_exclude": ["lm_head*"], "embeddings": 32}
_NEAREST = {"symmetric": False, "rounding": "nearest", "block_scales": "minmax"}
"""What other tools' defaults do: the extremes of every block, and the nearest codes."""
_GPTQ = {"symmetric": False, "rounding": "gptq", "block_scales": "minmax"}
_DESCENT = {"symmetric": False, "rounding": "descent"}
_LEARNED = {"symmetric": False, "rounding": "learned", "learning": {"tuning_steps": 100}}
_LEARNED_TWO = {"symmetric": False, "rounding": "learned", "learning": {"epochs": 4, "tuning_steps": 300}}
"""As in the recipes w4a8-learned and w2a8-learned."""
_MIXED = {"symmetric": False, "rounding": "descent", "block_size": 128, "accuracy_level": 4, "embeddings": 4}
_BITS = 3.0
_STORED = {2: 2 + (16 + 2) / 128, 4: 4 + (16 + 4) / 128}
"""Bits of a value in blocks of 128, with scale and zero point."""
_LAYERS = 6
_SIZES = {
    "self_attn.qkv_proj": 256 * 512,
    "self_attn.o_proj": 256 * 256,
    "mlp.gate_proj": 256 * 704,
    "mlp.up_proj": 256 * 704,
    "mlp.down_proj": 704 * 256,
}
_HEAD = 4096 * 256


class _Quality(NamedTuple):
    """Nats per token from float, perplexity, and bytes of stored weights."""

    kl: float
    perplexity: float
    bytes: int


@cache
def _float_rows() -> tuple[NDArray[np.float16], ...]:
    model = tinylm.load()
    return tuple(
        log_probabilities(model(input_ids=window[None]).logits[0, :-1].detach().numpy()) for window in _windows()
    )


def _windows() -> Any:
    return tinylm.windows(tinylm.held_out())[:_WINDOWS]


def measured(**scheme: Any) -> _Quality:
    """Of the export with these fields of the scheme in place of w4a8's."""
    return _measured(json.dumps(scheme, sort_keys=True))


@cache
def _measured(scheme: str) -> _Quality:
    fields = json.loads(scheme)
    documents = _LEARNED_DOCUMENTS if "learning" in fields else _DOCUMENTS
    with tempfile.TemporaryDirectory() as scratch:
        texts = Path(scratch) / "texts.jsonl"
        lines = (json.dumps({"text": document}) for document in tinylm.documents()[:documents])
        texts.write_text("\n".join(lines), encoding="utf-8")
        job = Job(
            model=str(folder() / "weights" / "tinylm"),
            target="phone",
            recipe="w4a8",
            scheme=fields,
            calibration_data=str(texts),
            text_column="text",
            calibration_samples=documents,
            sequence_length=tinylm.LENGTH,
        )
        plan = make_plan(job)
        made = run_plan(replace(plan, stages=_up_to("write", plan.stages)))
    stored = made["quantize"].file("codes.safetensors").stat().st_size
    language = plan.source.language
    assert language is not None  # noqa: S101  # of a language model
    session = ort.InferenceSession(made["write"].path / "model.onnx", providers=["CPUExecutionProvider"])
    apart, lost, count = 0.0, 0.0, 0
    for window, exact in zip(_windows(), _float_rows(), strict=True):
        ids = window.numpy()[None]
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), **language.empty()}
        rows = log_probabilities(session.run(["logits"], feed)[0][0, :-1])
        apart += float(divergence(exact, rows).sum())
        lost -= float(rows[np.arange(len(rows)), ids[0, 1:]].astype(np.float64).sum())
        count += len(rows)
    return _Quality(apart / count, float(np.exp(lost / count)), stored)


def _up_to(name: str, stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages that the one of that name needs, and itself."""
    wanted = {name}
    for stage in reversed(stages):
        wanted |= set(stage.inputs.values()) if stage.name in wanted else set()
    return tuple(stage for stage in stages if stage.name in wanted)


def _float_perplexity() -> float:
    chosen = [
        rows[np.arange(len(rows)), window.numpy()[1:]].astype(np.float64)
        for rows, window in zip(_float_rows(), _windows(), strict=True)
    ]
    return float(np.exp(-np.concatenate(chosen).mean()))


def _ratio(base: dict[str, Any], method: dict[str, Any]) -> Measured:
    """Divergence with a method over that of rounding to the nearest, whose files are as large."""
    nearest, own = measured(**base, **_NEAREST), measured(**base, **method)
    if own.bytes > 1.001 * nearest.bytes:
        raise ValueError(f"{own.bytes} bytes against {nearest.bytes}: they are to be equal")
    return Measured(own.kl / nearest.kl, nearest.kl)


def _perplexity_of_two_bits(method: dict[str, Any]) -> Measured:
    exact = _float_perplexity()
    return Measured(measured(**_TWO, **method).perplexity / exact, exact)


def _mixed() -> Measured:
    """Bits by measured loss over the best simple rule of no fewer bytes; both round alike."""
    own = measured(**_MIXED, average_bits=_BITS)
    rules = {name: measured(**_MIXED, weights=2, overrides=_filled(order)) for name, order in _RULES.items()}
    best = min(rules.values(), key=lambda found: found.kl)
    return Measured(own.kl / best.kl, best.kl)


def _filled(order: Callable[[int, str], float]) -> dict[str, str]:
    """4 bits for the head, and then for one product after the other, as long as the mean is within the budget; 2 for
    the rest."""
    products = sorted(((layer, kind) for layer in range(_LAYERS) for kind in _SIZES), key=lambda each: order(*each))
    whole = _HEAD + _LAYERS * sum(_SIZES.values())
    left = _BITS * whole - _STORED[2] * whole - (_STORED[4] - _STORED[2]) * _HEAD
    chosen = {"lm_head/MatMul": "int4-block"}
    for layer, kind in products:
        extra = (_STORED[4] - _STORED[2]) * _SIZES[kind]
        if extra <= left:
            chosen[f"model.layers.{layer}.{kind}/MatMul"] = "int4-block"
            left -= extra
    return chosen


_RULES: dict[str, Callable[[int, str], float]] = {
    "first layers": lambda layer, _: layer,
    "last layers": lambda layer, _: -layer,
    "first and last layers": lambda layer, _: min(layer, _LAYERS - 1 - layer),
    "attention": lambda _, kind: "self_attn" not in kind,
    "feed-forward": lambda _, kind: "mlp" not in kind,
    "second factors": lambda _, kind: not kind.endswith(("down_proj", "o_proj")),
}
_RTN = "rounding to the nearest with zero points, nats a token (same bytes)"
ROWS = [
    Row("tinylm.w4g32.gptq_ratio", "x", _RTN, partial(_ratio, _BODY, _GPTQ)),
    Row("tinylm.w4g32.descent_ratio", "x", _RTN, partial(_ratio, _BODY, _DESCENT)),
    Row("tinylm.w4g32.best_ratio", "x", _RTN, partial(_ratio, _BODY, _LEARNED)),
    Row("tinylm.w2g64.descent_ratio", "x", _RTN, partial(_ratio, _TWO, _DESCENT)),
    Row("tinylm.w2g64.descent_ppl_ratio", "x", "float's perplexity", partial(_perplexity_of_two_bits, _DESCENT)),
    Row("tinylm.w2g64.best_ratio", "x", _RTN, partial(_ratio, _TWO, _LEARNED_TWO)),
    Row("tinylm.w2g64.ppl_ratio", "x", "float's perplexity", partial(_perplexity_of_two_bits, _LEARNED_TWO)),
    Row("tinylm.mix3.kl_ratio", "x", "the best of six simple rules, nats a token (3.0 bits a weight)", _mixed),
]
