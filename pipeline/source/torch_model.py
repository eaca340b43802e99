"""Loading a vetted folder into a float32 PyTorch model, with a sentence encoder's pooling inside it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES, MODEL_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D
from transformers.utils import ModelOutput

from pipeline.core.errors import StageError
from pipeline.core.model_spec import ModelSpec
from pipeline.core.untrusted import refused, users_code, words
from pipeline.source.coded.checkpoint import coded_checkpoint
from pipeline.source.factory import build
from pipeline.source.model_config import QUANTIZATION, read_config
from pipeline.source.sentence_modules import sentence_modules


def load_source(spec: ModelSpec) -> nn.Module:
    """The float32 model, in evaluation mode, of a source as stages get it (`kind`, `path`, `auto_class`, ...); the
    caller may change it."""
    if spec.kind == "factory":
        with users_code(lambda error: f"The model of {spec.entry!r} cannot be copied as float32: {words(error)}."):
            return copy.deepcopy(build(spec.entry).model).float()
    if spec.coded:
        return _decoded_model(spec)
    return load_float_model(spec.path, spec.auto_class, spec.trust_remote_code, spec.pickle)


def _decoded_model(spec: ModelSpec) -> PreTrainedModel:
    """The float32 model that a checkpoint of codes stands for. StageError as `load_float_model`."""
    checkpoint = coded_checkpoint(spec.path, read_config(spec.path), spec.entry)
    assert checkpoint is not None  # noqa: S101  # the source was vetted as one
    loader = getattr(transformers, _encoder_class(spec.path, spec.auto_class))
    with loading(spec.path.name, spec.auto_class):
        config = AutoConfig.from_pretrained(spec.path)
        if hasattr(config, QUANTIZATION):
            delattr(config, QUANTIZATION)
        with torch.device("meta"):
            kind = type(loader.from_config(config))
        decoded = _decoded(checkpoint.codes, checkpoint.floats)
        model, info = kind.from_pretrained(None, config=config, state_dict=decoded, **_LOADED, output_loading_info=True)
    _require_products(spec.path.name, model, checkpoint.title)
    _refuse_biases(spec.path.name, model, [key for key in info["unexpected_keys"] if decoded[key].any()])
    return _whole(spec.path.name, spec.auto_class, model, info)


def _decoded(codes: Mapping[str, Callable[[], Any]], floats: Mapping[str, Callable[[], Any]]) -> dict[str, Tensor]:
    """All weights in float32, by name."""
    decoded = {name: torch.from_numpy(read().values()) for name, read in codes.items()}
    return decoded | {name: torch.from_numpy(read()) for name, read in floats.items()}


def _require_products(name: str, model: PreTrainedModel, title: str) -> None:
    """Codes are of weights [outputs, inputs], and GPT-2's products store theirs the other way round."""
    turned = [path for path, module in model.named_modules() if isinstance(module, Conv1D)]
    if turned:
        raise StageError(
            f"The checkpoint {name!r} ({title}) is of a {type(model).__name__}, whose weights ({turned[0]}, "
            "...) lie the other way round than codes do.",
            "Give the float checkpoint that it was made from.",
        )


def _refuse_biases(name: str, model: PreTrainedModel, unexpected: Sequence[str]) -> None:
    """Older libraries write biases of zeros beside all codes; others count."""
    biases = sorted(key for key in unexpected if key.endswith(".bias"))
    if biases:
        raise StageError(
            f"The checkpoint {name!r} has {biases[0]!r}, which a {type(model).__name__} does not have.",
            "Config and weights must be of one model.",
        )


def load_float_model(path: Path, auto_class: str, trust_remote_code: bool, pickle: bool = False) -> PreTrainedModel:
    """The model in evaluation mode, float32, with attention written out (`eager`), which exports to the cleanest
    graph. Weights come from safetensors, or with `pickle` from tensors in a pickle (`weights_only`). StageError if
    transformers cannot build it or weights are missing."""
    auto_class = _encoder_class(path, auto_class)
    loader = getattr(transformers, auto_class)
    with loading(path.name, auto_class):
        model, info = loader.from_pretrained(
            path,
            **_LOADED,
            use_safetensors=not pickle,
            weights_only=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    return _whole(path.name, auto_class, model, info)


_LOADED: dict[str, Any] = {
    "dtype": torch.float32,
    "attn_implementation": "eager",
    "ignore_mismatched_sizes": True,  # else transformers' error names neither the weight nor the sizes
}


def loading(name: str, auto_class: str) -> AbstractContextManager[None]:
    """Around transformers, which checks little of what a checkpoint says."""
    return refused(
        f"transformers {transformers.__version__} cannot load {name!r} as {auto_class}",
        "Check config.json (model_type, architectures, sizes), or name another --task.",
        StageError,
    )


def _whole(name: str, auto_class: str, model: PreTrainedModel, info: dict[str, Any]) -> PreTrainedModel:
    """The model in evaluation mode. StageError if weights are missing or of other shapes."""
    _refuse_mismatched(name, info)
    _refuse_random_weights(name, auto_class, info)
    return model.eval()


def _encoder_class(path: Path, auto_class: str) -> str:
    """Of T5 and its kin, whose plain model needs a decoder's inputs too, texts are embedded by the encoder alone."""
    kind = str(read_config(path).get("model_type"))
    encoder = MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.get(kind, "")
    apart = encoder.endswith("EncoderModel") and encoder != MODEL_MAPPING_NAMES.get(kind)
    return "AutoModelForTextEncoding" if auto_class == "AutoModel" and apart else auto_class


def _refuse_mismatched(name: str, info: dict[str, Any]) -> None:
    """A weight of another shape than config.json asks for would be random."""
    for key, stored, asked in sorted(info["mismatched_keys"], key=str):
        raise StageError(
            f"The checkpoint {name!r} has {key!r} as {list(stored)}; its config.json asks for {list(asked)}.",
            "Config and weights must be of one model.",
        )


def _refuse_random_weights(name: str, auto_class: str, info: dict[str, Any]) -> None:
    """A head that the checkpoint lacks would be random: a bundle of it would look fine and mean nothing."""
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing:
        raise StageError(
            f"The checkpoint {name!r} has no weights for {missing[0]!r}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + f" of {auto_class}; they would be random.",
            "Name the task that the checkpoint was trained for with --task, or check the sizes in config.json.",
        )


def wrap(model: nn.Module, spec: ModelSpec, states: bool = False) -> nn.Module:
    """The model as it will be exported: a sentence encoder with its pooling inside. `states`: it gives what it pools
    too. Of a language model, what reads whole texts."""
    if spec.language is not None:
        return WholeTexts(model)
    if not spec.sentence_transformer:
        return model
    pooling, normalize = sentence_modules(spec.path)
    return SentenceEncoder(model, pooling, normalize, states).eval()


class WholeTexts(nn.Module):
    """A language model on texts from their beginning: it is not given the empty cache that stands beside them in
    samples.

    Inputs int64 [batch, tokens]; logits float32 [batch, tokens, vocabulary].
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Tensor) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)


def require_finite(weights: Iterable[tuple[str, Tensor]]) -> None:
    """StageError if weights are no numbers, which no graph can equal."""
    spoiled = [name for name, weight in weights if not weight.is_meta and not torch.isfinite(weight).all()]
    if spoiled:
        others = f" and {len(spoiled) - 1} more" if len(spoiled) > 1 else ""
        raise StageError(
            f"The model's weights {spoiled[0]!r}{others} hold values that are not finite (NaN or infinity).",
            "Copy the checkpoint again, or take one from before its training diverged.",
        )


@dataclass
class SentenceOutput(ModelOutput):  # type: ignore[misc]  # as SentenceEncoder
    """`sentence_embedding`: float32 [batch, hidden size]; `last_hidden_state`: float32 [batch, sequence, hidden size]
    of models that give it."""

    sentence_embedding: Tensor | None = None
    last_hidden_state: Tensor | None = None


class SentenceEncoder(PreTrainedModel):  # type: ignore[misc]  # transformers ships partial types
    """A text encoder with its pooling and normalization (sentence-transformers' modules.json), so that the exported
    graph gives the embedding itself.

    Inputs int64 [batch, sequence]; output float32 [batch, hidden size].
    """

    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, model: PreTrainedModel, pooling: str, normalize: bool, states: bool = False) -> None:
        super().__init__(model.config)
        self.model = model
        self.pooling = pooling
        self.normalize = normalize
        self.states = states

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **inputs: Tensor) -> SentenceOutput:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        embedding = pool(hidden, attention_mask, self.pooling)
        if self.normalize:
            embedding = nn.functional.normalize(embedding, dim=-1)
        return SentenceOutput(sentence_embedding=embedding, last_hidden_state=hidden if self.states else None)


def pool(hidden: Tensor, attention_mask: Tensor, mode: str) -> Tensor:
    """One vector per sequence: hidden [batch, sequence, hidden size], mask [batch, sequence] -> [batch, hidden size].

    Modes as in Reimers & Gurevych, "Sentence-BERT" (arXiv 1908.10084, sec. 3); `mean_sqrt_len` divides the sum by
    the square root of the length, `lasttoken` takes the last one that is not padding, and `weightedmean` weighs tokens
    by their place (Muennighoff, "SGPT", arXiv 2202.08904, sec. 4.1).
    """
    if mode == "cls":
        return hidden[:, 0]
    if mode in ("lasttoken", "weightedmean"):
        places = attention_mask * torch.arange(1, attention_mask.shape[1] + 1)
        last = (places == places.amax(1, keepdim=True)).to(hidden.dtype)
        weights = last if mode == "lasttoken" else places / places.sum(1, keepdim=True)
        return (weights.to(hidden.dtype).unsqueeze(1) @ hidden).squeeze(1)
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
    if mode == "max":
        return hidden.masked_fill(mask == 0, torch.finfo(hidden.dtype).min).amax(1)
    length = mask.sum(1).clamp(min=1e-9)
    total = (mask.transpose(1, 2) @ hidden).squeeze(1)  # one product, not a masked copy and its sum
    return total / (length if mode == "mean" else length.sqrt())
