"""Folders of text models with random weights and the test vocabulary, as `save_pretrained` leaves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
IDS = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}


def save_text_model(
    folder: Path, kind: str, save_tokenizer: Callable[[Path], int], config: str = "", **settings: Any
) -> Path:
    """The transformers class `kind` with the configuration class `config` (by default named after `kind`)."""
    import torch  # noqa: PLC0415  # seconds to import
    import transformers  # noqa: PLC0415

    folder.mkdir(exist_ok=True)
    size = save_tokenizer(folder)
    torch.manual_seed(0)
    made = getattr(transformers, config or kind.replace("Model", "Config"))(vocab_size=size, **settings)
    model = getattr(transformers, kind)(made).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder
