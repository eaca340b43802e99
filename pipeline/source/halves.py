"""A model's encoder and its decoder as modules of their own, each of which is exported as a graph."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

ENCODER, DECODER = "encoder_model", "decoder_model"
"""Names of the graphs, as Optimum calls the files."""
STATES = "last_hidden_state"
"""The encoder's output."""


@dataclass
class Logits(ModelOutput):  # type: ignore[misc]  # transformers ships partial types
    """`logits`: float32 [batch, tokens, vocabulary]."""

    logits: Tensor | None = None


class _Half(PreTrainedModel):  # type: ignore[misc]  # as above
    """Weights are named after the modules of the whole model."""

    _supports_sdpa = True
    _supports_attention_backend = True


class Encoder(_Half):
    """The encoder's inputs -> its states, float32 [batch, length, hidden size]."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model.config)
        self.encoder = model.get_encoder()

    def forward(self, **inputs: Tensor) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.encoder(**inputs).last_hidden_state)


class Decoder(_Half):
    """The tokens so far and the encoder's states -> logits of the next token behind each."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model.config)
        self.model = model

    def forward(
        self, input_ids: Tensor, encoder_hidden_states: Tensor, encoder_attention_mask: Tensor | None = None
    ) -> Logits:
        outputs = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoder_hidden_states),
            attention_mask=encoder_attention_mask,
            decoder_input_ids=input_ids,
            use_cache=False,
        )
        return Logits(logits=outputs.logits)
