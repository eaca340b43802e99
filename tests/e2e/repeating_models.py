"""Tiny models with an encoder and a decoder that learn, within seconds, to repeat short texts of few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PAD, END = 0, 1
WORDS = [f"{first}{vowel}{last}" for first in "bdfgk" for vowel in "aeiou" for last in "lmnr"]
VOCABULARY = {"<pad>": PAD, "</s>": END, "<unk>": 2} | {word: 3 + place for place, word in enumerate(WORDS)}
USED = 24
"""Words of the texts; the rest is there to make a table as large as tables are."""
_SIZES: dict[str, dict[str, Any]] = {
    "T5": {"d_kv": 16, "d_ff": 128, "num_layers": 1, "num_heads": 4, "decoder_start_token_id": PAD},
    **{
        kind: {
            **{f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in parts.items()},
            **{"max_position_embeddings": 64, "decoder_start_token_id": END, "bos_token_id": 2},
            "dropout": 0.0,
        }
        for kind in ("Bart", "Marian")
        for parts in [{"layers": 1, "attention_heads": 4, "ffn_dim": 128}]
    },
}
_CLASSES = {"T5": "T5ForConditionalGeneration", "Bart": "BartForConditionalGeneration", "Marian": "MarianMTModel"}


def save_tokenizer(folder: Path) -> None:
    """A token a word."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))  # noqa: S106  # no password
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **names, model_input_names=["input_ids", "attention_mask"]
    )
    fast.save_pretrained(folder)


def texts(count: int, seed: int = 1) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 7, (count,), generator=generator).tolist()
    return [" ".join(WORDS[int(torch.randint(0, USED, (1,), generator=generator))] for _ in range(n)) for n in lengths]


def untrained(kind: str, **settings: Any) -> Any:
    """A seeded model of the type `T5`, `Bart` or `Marian`."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")
    common = {"vocab_size": len(VOCABULARY), "d_model": 64, "pad_token_id": PAD, "eos_token_id": END}
    return getattr(transformers, _CLASSES[kind])(config(**common | _SIZES[kind] | settings))


def save_repeating(folder: Path, kind: str = "T5", steps: int = 800, rate: float = 5e-3) -> Path:
    """A trained folder, with its tokenizer."""
    model, generator = untrained(kind).train(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        length = int(torch.randint(2, 7, (1,), generator=generator))
        ids = torch.randint(3, 3 + USED, (48, length), generator=generator)
        ids = torch.cat([ids, torch.full((48, 1), END)], 1)
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder
