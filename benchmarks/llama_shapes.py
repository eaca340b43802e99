"""Folders of Llama checkpoints with random weights, of any size: they are written shard by shard.

python -m benchmarks.llama_shapes 1b /tmp/llama-1b
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, PreTrainedTokenizerFast

from pipeline.core.digest import pretty_json

_TEXTS = Path(__file__).parents[1] / "calibration" / "text-en" / "calibration.txt"
_POOL = 20_000_003
_SPECIAL = ["<unk>", "<s>", "</s>"]
_LLAMA3 = {
    **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    **{"original_max_position_embeddings": 8192, "rope_theta": 500000.0},
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, and in how many files its weights lie."""

    hidden: int
    inner: int
    layers: int
    heads: int
    groups: int
    words: int
    shards: int
    tied: bool
    rotary: dict[str, Any]

    def config(self) -> LlamaConfig:
        return LlamaConfig(
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.groups,
            vocab_size=self.words,
            max_position_embeddings=8192,
            rope_parameters=self.rotary,
            tie_word_embeddings=self.tied,
            architectures=["LlamaForCausalLM"],
            dtype="bfloat16",
            bos_token_id=1,
            eos_token_id=2,
        )

    def weights(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes, in the order of the layers."""
        narrow, products = self.hidden * self.groups // self.heads, self.hidden
        yield "model.embed_tokens.weight", (self.words, self.hidden)
        for layer in range(self.layers):
            name = f"model.layers.{layer}"
            yield f"{name}.self_attn.q_proj.weight", (products, self.hidden)
            yield f"{name}.self_attn.k_proj.weight", (narrow, self.hidden)
            yield f"{name}.self_attn.v_proj.weight", (narrow, self.hidden)
            yield f"{name}.self_attn.o_proj.weight", (self.hidden, products)
            yield f"{name}.mlp.gate_proj.weight", (self.inner, self.hidden)
            yield f"{name}.mlp.up_proj.weight", (self.inner, self.hidden)
            yield f"{name}.mlp.down_proj.weight", (self.hidden, self.inner)
            yield f"{name}.input_layernorm.weight", (self.hidden,)
            yield f"{name}.post_attention_layernorm.weight", (self.hidden,)
        yield "model.norm.weight", (self.hidden,)
        if not self.tied:
            yield "lm_head.weight", (self.words, self.hidden)


_PLAIN: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
SHAPES = {
    "150m": Shape(768, 3072, 12, 12, 4, 32_768, 2, tied=True, rotary=_PLAIN),
    "1b": Shape(2048, 8192, 16, 32, 8, 32_768, 5, tied=True, rotary=_PLAIN),
    "4b": Shape(4096, 14_336, 16, 32, 8, 128_256, 8, tied=False, rotary=_LLAMA3),
    "8b-block": Shape(4096, 14_336, 1, 32, 8, 128_256, 4, tied=False, rotary=_LLAMA3),
    "8b": Shape(4096, 14_336, 32, 32, 8, 128_256, 16, tied=False, rotary=_LLAMA3),
}


"""`8b` has the sizes of Llama 3 8B, `4b` half of its layers, `8b-block` one."""


def write_llama(folder: Path, shape: Shape, seed: int = 0) -> Path:
    """The checkpoint in bfloat16, with a tokenizer of as many tokens; memory holds one shard."""
    folder.mkdir(parents=True, exist_ok=True)
    shape.config().save_pretrained(folder)
    _tokenizer(shape.words).save_pretrained(folder)
    generator = np.random.default_rng(seed)
    pool = torch.from_numpy(0.02 * generator.standard_normal(_POOL, np.float32)).bfloat16()
    places: dict[str, str] = {}
    for number, names in enumerate(_shards(shape), start=1):
        file = f"model-{number:05}-of-{shape.shards:05}.safetensors"
        save_file(
            {name: _drawn(size, generator, pool) for name, size in names.items()}, folder / file, {"format": "pt"}
        )
        places |= dict.fromkeys(names, file)
    size = 2 * sum(torch.Size(size).numel() for _, size in shape.weights())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(pretty_json(index), encoding="utf-8")
    return folder


def _shards(shape: Shape) -> list[dict[str, tuple[int, ...]]]:
    """The weights of each file, which are of about the same size."""
    weights = list(shape.weights())
    total, before = sum(torch.Size(size).numel() for _, size in weights), 0
    shards: list[dict[str, tuple[int, ...]]] = [{} for _ in range(shape.shards)]
    for name, size in weights:
        shards[shape.shards * before // total][name] = size
        before += torch.Size(size).numel()
    return [shard for shard in shards if shard]


def _drawn(size: tuple[int, ...], generator: np.random.Generator, pool: Tensor) -> Tensor:
    """As training begins with them; cut from a pool of random numbers at a random place, which is faster than drawing
    billions."""
    if len(size) == 1:
        return torch.ones(size, dtype=torch.bfloat16)
    count, begin = torch.Size(size).numel(), int(generator.integers(_POOL))
    return torch.cat([pool[begin:], pool.repeat(-(-count // _POOL))])[:count].reshape(size)


def _tokenizer(words: int) -> PreTrainedTokenizerFast:
    """Byte pairs of the shipped texts, filled up with tokens that no text has."""
    tokenizer = Tokenizer(models.BPE(unk_token=_SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(words, 4096), special_tokens=_SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train([str(_TEXTS)], trainer)
    tokenizer.add_tokens([f"<unused-{place}>" for place in range(words - tokenizer.get_vocab_size())])
    unknown, begin, end = _SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=unknown, bos_token=begin, eos_token=end)


if __name__ == "__main__":
    print(write_llama(Path(sys.argv[2]), SHAPES[sys.argv[1]]))
