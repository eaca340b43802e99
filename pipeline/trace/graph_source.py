"""What the graphs of a model are traced from: itself, with a cache, or its encoder and its decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PreTrainedModel

from pipeline.core.model_spec import LanguageSpec
from pipeline.graph.files import MODEL
from pipeline.source.cached import CachedDecoder, LogitsAfter, check_continues, random_past
from pipeline.source.halves import DECODER, ENCODER, STATES, Decoder, Encoder
from pipeline.source.streamed import Streamed
from pipeline.tasks.next_tokens import DECODER_INPUTS
from pipeline.tasks.output_kind import MASK

Tensors = dict[str, torch.Tensor]
_MANY, _FEW_TOKENS, _ROOM = 500_000_000, 4, 64
"""Parameters of a model from which on texts to compare on have no more than so many tokens: its weights are read from
the disk for each, and a token takes as many additions and multiplications as there are."""
_LENGTH, _SO_FAR = "sequence", "decoder_sequence"


@dataclass(frozen=True)
class GraphSource:
    """One graph to be: its name, the module, inputs to trace with (the first of `cases`) and to compare on, the prefix
    that names lose, `feeds` as of its `GraphSpec`, and the names of its dynamic axes by input where their places do not
    tell them. `far`: a module that gives the first outputs alone, and inputs to compare those on, where memory may not
    hold all; `room`: the tokens for which buffers of keys and values may have room (0 where it has none), to try on the
    inputs `roomy`; `streamed`: the model's weights, where they are read one at a time."""

    name: str
    module: nn.Module
    cases: Sequence[Tensors]
    prefix: str = ""
    feeds: Mapping[str, str] = field(default_factory=dict)
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    far: tuple[nn.Module, Sequence[Tensors]] | None = None
    room: int = 0
    roomy: Sequence[Tensors] = ()
    streamed: Streamed | None = None

    def running(self) -> AbstractContextManager[None]:
        """While the context lasts, the module can be called."""
        return nullcontext() if self.streamed is None else self.streamed.loaded_as_called()


def continuing(
    model: PreTrainedModel, language: LanguageSpec, longest: int, streamed: Streamed | None = None
) -> GraphSource:
    """A language model with its cache: prompts, a prompt in parts and single tokens, up to `longest` tokens and to the
    end of the context. Padding is left out: what stands there is of no use. StageError if the model does not continue
    with such a cache."""
    with nullcontext() if streamed is None else streamed.loaded_as_called():
        check_continues(model, language)
    axes: dict[str, tuple[str, ...]] = {"input_ids": ("batch", _LENGTH), "attention_mask": ("batch", "total")}
    axes |= dict.fromkeys(language.inputs, ("batch", "heads", "past"))
    size = int(model.config.get_text_config(decoder=True).vocab_size)
    many = streamed is not None and streamed.parameters > _MANY
    longest = min(longest, _FEW_TOKENS) if many else longest
    longest, before = min(longest, language.longest), max(language.longest - 5, 0)
    shapes = [(2, min(16, longest), 0), (1, min(5, longest), min(11, before)), (3, 1, min(7, before)), (1, longest, 0)]
    shapes += [(1, 1, language.longest - 1)]
    decoder = CachedDecoder(model, language).eval()
    far = _continued(language, size, *shapes.pop(), 0, shared=True) if many else None
    cases = [_continued(language, size, *shape, seed) for seed, shape in enumerate(shapes[:2] if many else shapes)]
    return GraphSource(
        MODEL,
        decoder,
        cases,
        "model.",
        axes=axes,
        far=None if far is None else (LogitsAfter(decoder).eval(), [far]),
        room=min(language.longest, _ROOM) if many else language.longest,
        roomy=cases[1:2] if many else cases,
        streamed=streamed,
    )


def _continued(
    language: LanguageSpec, size: int, batch: int, tokens: int, past: int, seed: int, shared: bool = False
) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, size, (batch, tokens), generator=generator)
    mask = torch.ones(batch, past + tokens, dtype=torch.int64)
    return {"input_ids": ids, "attention_mask": mask, **random_past(language, batch, past, seed, shared)}


def halves(model: PreTrainedModel, cases: Sequence[Tensors], longest: int) -> list[GraphSource]:
    """The encoder and the decoder of a model. `cases`: inputs of the encoder; `longest`: the most tokens of the
    decoder."""
    encoder, decoder = Encoder(model).eval(), Decoder(model).eval()
    given = [_decoder_case(encoder, case, longest, seed) for seed, case in enumerate(cases)]
    masked = "encoder_attention_mask" in given[0]
    feeds = {"input_ids": DECODER_INPUTS, "encoder_hidden_states": STATES}
    axes = {"input_ids": ("batch", _SO_FAR), "encoder_hidden_states": ("batch", _LENGTH) if masked else ("batch",)}
    if masked:
        feeds["encoder_attention_mask"], axes["encoder_attention_mask"] = MASK, ("batch", _LENGTH)
    return [
        GraphSource(ENCODER, encoder, cases),
        GraphSource(DECODER, decoder, given, "model.", feeds, axes),
    ]


def _decoder_case(encoder: Encoder, case: Tensors, longest: int, seed: int) -> Tensors:
    """Random tokens, of another number than the encoder has where that is known."""
    with torch.inference_mode():
        states = encoder(**case).last_hidden_state.clone()
    length = max(2, min(longest, 2 * states.shape[1] // 3 if MASK in case else 5 + 3 * seed))
    generator = torch.Generator().manual_seed(seed)
    size = int(encoder.config.get_text_config(decoder=True).vocab_size)
    ids = torch.randint(0, size, (len(states), length), generator=generator)
    found = {"input_ids": ids, "encoder_hidden_states": states}
    return found | ({"encoder_attention_mask": case[MASK]} if MASK in case else {})
