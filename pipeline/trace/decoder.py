"""The graph of a language model: one for a prompt and for every token after it, with ONNX Runtime's own attention over
the cache (`com.microsoft.GroupQueryAttention`), which is emitted while the model is traced."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.masking_utils import AttentionMaskInterface

from pipeline.core.errors import StageError
from pipeline.core.model_spec import LanguageSpec
from pipeline.source.cached import CachedDecoder, cache_argument, positions
from pipeline.source.language import OTHERS
from pipeline.source.streamed import Streamed
from pipeline.trace.failure import cannot_export
from pipeline.trace.module import uncollected
from pipeline.trace.pack_attention import merge_reshapes
from pipeline.trace.without_values import without_values

_NAME = "edge_cached"
_ROTARY = "rotary_emb"
RMS_OPSET = 23
"""The first with RMSNormalization."""


@dataclass
class _Step:
    """One call of the model while it is traced: what its attention layers read, and what they left. `before`: how many
    tokens the cache holds, which may have room for more (a buffer that past and present share)."""

    past: list[tuple[Tensor, Tensor]]
    before: int
    lengths: Tensor
    total: Tensor
    tables: Any
    longest: int
    present: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


_steps: list[_Step] = []
"""The call that is being traced; attention functions of transformers are given no other way to it."""


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001  # the operator makes its own from lengths
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """As transformers calls attention: query [batch, heads, tokens, size] -> [batch, tokens, heads, size]."""
    step, layer = _steps[-1], int(module.layer_idx)  # type: ignore[arg-type]
    batch, heads, tokens, size = query.shape
    groups = key.shape[1]
    attributes: dict[str, Any] = {
        "num_heads": heads,
        "kv_num_heads": groups,
        "scale": float(size**-0.5 if scaling is None else scaling),
    }
    if sliding_window:
        attributes["local_window_size"] = int(sliding_window)
    if softcap:
        attributes["softcap"] = float(softcap)
    inputs = [_flat(query), _flat(key), _flat(value), *step.past[layer], step.lengths, step.total]
    if step.tables is not None:
        attributes |= {"do_rotary": 1, "rotary_interleaved": 0}
        inputs += step.tables(module)
    states = (batch, groups, step.longest, size)
    output, keys, values = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        inputs,
        attributes,
        dtypes=(query.dtype,) * 3,
        shapes=((batch, tokens, heads * size), states, states),
        version=1,
    )
    step.present[layer] = (keys, values)
    return output.reshape(batch, tokens, heads, size), None


def _flat(states: Tensor) -> Tensor:
    """[batch, heads, tokens, size] -> [batch, tokens, heads * size]."""
    batch, heads, tokens, size = states.shape
    return states.transpose(1, 2).reshape(batch, tokens, heads * size)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, _no_mask)


class _Handed(Cache):  # type: ignore[misc]  # transformers ships partial types
    """A cache that hands new states through: the operator appends them."""

    def __init__(self, step: _Step) -> None:
        self._step = step
        super().__init__(layers=[])

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002  # as transformers calls it
        return self._step.before

    def get_mask_sizes(self, *_: Any, **__: Any) -> tuple[int, int]:
        return self._step.longest, 0


class _Traced(nn.Module):
    """The model as `CachedDecoder` with the operator in place of its attention."""

    def __init__(self, module: CachedDecoder, rotary: bool, context: int) -> None:
        super().__init__()
        self.model = module.model
        self.rotary = rotary
        if rotary:
            self._kinds = _register_tables(self, module.model, context)

    def _tables(self, module: nn.Module) -> list[Tensor]:
        kinds = self._kinds
        kind = kinds[int(module.layer_idx)] if isinstance(kinds, list) else ""  # type: ignore[arg-type]
        return [getattr(self, f"cos{kind}"), getattr(self, f"sin{kind}")]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, past: list[Tensor]) -> tuple[Tensor, ...]:
        tokens = input_ids.shape[1]
        step = _Step(
            past=list(zip(past[::2], past[1::2], strict=True)),
            before=attention_mask.shape[1] - tokens,
            lengths=(attention_mask.sum(1) - 1).to(torch.int32),
            total=torch.full((1,), attention_mask.shape[1], dtype=torch.int32),
            tables=self._tables if self.rotary else None,
            longest=attention_mask.shape[1],
        )
        _steps.append(step)
        try:
            outputs = self.model(
                input_ids=input_ids,
                attention_mask=None,
                position_ids=torch.zeros_like(input_ids) if self.rotary else positions(attention_mask, tokens),
                use_cache=True,
                **{cache_argument(self.model): _Handed(step)},
            )
        finally:
            _steps.pop()
        made = [tensor for layer in range(len(step.past)) for tensor in step.present[layer]]
        return (outputs.logits, *made)


def _register_tables(owner: nn.Module, model: PreTrainedModel, context: int) -> list[str] | None:
    """Cosines and sines of rotary positions up to `context`, float32 [positions, size / 2], as buffers of `owner`; by
    the kinds of layers, where a model has several."""
    rotary = _rotary(model)
    places = torch.arange(context)[None]
    kinds: list[str] = list(getattr(model.config.get_text_config(), "layer_types", None) or ())
    several = hasattr(rotary, "layer_types")
    for kind in sorted(set(kinds)) if several else [""]:
        cos, sin = rotary(torch.zeros(1, 1, 1), places, *([kind] if several else []))
        half = cos.shape[-1] // 2
        owner.register_buffer(f"cos{kind}", cos[0, :, :half].contiguous())
        owner.register_buffer(f"sin{kind}", sin[0, :, :half].contiguous())
    return kinds if several else None


def _rotary(model: nn.Module) -> nn.Module:
    return next(child for name, child in model.named_modules() if name.endswith(_ROTARY))


@contextmanager
def _without_rotation(model: nn.Module) -> Iterator[None]:
    """Queries and keys as they are: the operator turns them, by tables that the model need not compute."""
    module, rotary = sys.modules[type(model).__module__], _rotary(model)
    own = module.apply_rotary_pos_emb
    module.apply_rotary_pos_emb = lambda query, key, *_, **__: (query, key)  # type: ignore[attr-defined]
    rotary.forward = lambda states, *_, **__: (states, states)
    try:
        yield
    finally:
        module.apply_rotary_pos_emb = own  # type: ignore[attr-defined]
        del rotary.forward


@contextmanager
def _one_operator_norms(model: nn.Module) -> Iterator[None]:
    """Norms by the root of the mean square as ONNX's RMSNormalization, where they compute just that."""
    norms = [module for module in model.modules() if type(module).__name__.endswith("RMSNorm")]
    changed = [(module, scale) for module in norms if (scale := _scale_of(module)) is not None]
    for module, scale in changed:
        module.forward = _normalized(module, scale)
    try:
        yield
    finally:
        for module, _ in changed:
            del module.forward


def _normalized(module: nn.Module, shifted: bool) -> Any:
    def forward(states: Tensor) -> Tensor:
        assert isinstance(module.weight, Tensor)  # noqa: S101  # `_scale_of` found one
        weight = 1.0 + module.weight if shifted else module.weight
        attributes: dict[str, Any] = {"axis": -1, "epsilon": _epsilon(module), "stash_type": 1}
        return torch.onnx.ops.symbolic(
            "RMSNormalization", (states, weight), attributes, dtype=states.dtype, shape=states.shape, version=RMS_OPSET
        )

    return forward


def _epsilon(module: nn.Module) -> float:
    return float(getattr(module, "variance_epsilon", getattr(module, "eps", 0.0)))


def _scale_of(module: nn.Module) -> bool | None:
    """Whether the norm's factor is 1 + its weight (Gemma) or the weight itself; None if it computes something else."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or len(inspect.signature(module.forward).parameters) != 1:
        return None
    states = torch.linspace(-3.0, 2.0, 2 * weight.numel()).reshape(2, -1)
    plain = states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + _epsilon(module))
    with torch.inference_mode():
        given = module(states)
    for shifted, factor in ((False, weight), (True, 1.0 + weight)):
        if torch.allclose(given, plain * factor, rtol=1e-5, atol=1e-6):
            return shifted
    return None


def decoder_forms(
    module: CachedDecoder, language: LanguageSpec, opset: int, streamed: Streamed | None = None
) -> Iterator[tuple[ir.Model, str, str]]:
    """The graph, best form first; what is said of one that must do, and why a better one could not be traced."""
    why = ""
    if _turns(module.model):
        try:
            best = trace_decoder(module, language, opset, True, streamed)
        except StageError as error:
            why = error.message
        else:
            yield best, "", ""
    yield trace_decoder(module, language, opset, False, streamed), "positions that are turned outside of attention", why


def _turns(model: nn.Module) -> bool:
    """Whether rotary positions are turned by the function, of tables from the module, that models of transformers share
    by name."""
    shared = hasattr(sys.modules[type(model).__module__], "apply_rotary_pos_emb")
    return shared and any(name.endswith(_ROTARY) for name, _ in model.named_modules())


def trace_decoder(
    module: CachedDecoder, language: LanguageSpec, opset: int, rotary: bool, streamed: Streamed | None = None
) -> ir.Model:
    """The graph with a dynamic batch, and dynamic numbers of tokens and of tokens before. `rotary`: whether the
    operator turns queries and keys, or the graph before it does. `streamed`: the model's matrices where memory
    does not have them: the graph reads them when it is written. StageError if the model cannot be traced."""
    model = module.model
    before = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    try:
        if model.config._attn_implementation != _NAME:
            raise _attends_itself(model)
        with torch.no_grad(), uncollected():
            traced = _Traced(module, rotary, language.longest).eval()
            turned = _without_rotation(model) if rotary else nullcontext()
            with turned, _one_operator_norms(model) if opset >= RMS_OPSET else nullcontext():
                return _exported(traced, language, opset, streamed)
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise cannot_export(type(model).__name__, opset, error) from error
    finally:
        model.set_attn_implementation(before)


def _attends_itself(model: PreTrainedModel) -> StageError:
    return StageError(
        f"{type(model).__name__} computes attention by itself; text-generation takes models that hand it to a function "
        "of choice (transformers' AttentionInterface).",
        OTHERS,
    )


def _exported(traced: _Traced, language: LanguageSpec, opset: int, streamed: Streamed | None) -> ir.Model:
    with without_values(streamed) if streamed is not None else nullcontext() as read:
        made = _program(traced, language, opset)
        if read is not None:
            read(made.model)
    made.optimize()
    merge_reshapes(made.model)
    return made.model


def _program(traced: _Traced, language: LanguageSpec, opset: int) -> torch.onnx.ONNXProgram:
    batch, tokens, past = 2, 3, 5
    kept = [torch.zeros(batch, language.heads, past, language.size) for _ in language.inputs]
    ids = torch.zeros(batch, tokens, dtype=torch.int64)
    mask = torch.ones(batch, past + tokens, dtype=torch.int64)
    dims = {name: torch.export.Dim(name) for name in ("batch", "sequence", "past", "total")}
    shapes = {
        "input_ids": {0: dims["batch"], 1: dims["sequence"]},
        "attention_mask": {0: dims["batch"], 1: dims["total"]},
        "past": [{0: dims["batch"], 2: dims["past"]}] * len(kept),
    }
    program = torch.export.export(traced, (ids, mask, kept), dynamic_shapes=shapes, strict=False)
    made = torch.onnx.export(
        program,
        args=(),
        input_names=["input_ids", "attention_mask", *language.inputs],
        output_names=["logits", *language.outputs],
        opset_version=opset,
        dynamo=True,
        verbose=False,
        optimize=False,
    )
    assert made is not None  # noqa: S101  # it is with dynamo
    return made
