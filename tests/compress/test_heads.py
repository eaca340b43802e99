"""Attention heads of real architectures: pruned models against the unpruned one with the same heads masked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
import transformers
from torch import Tensor, nn

from pipeline.compress.edits import replay
from pipeline.compress.edits.base import linear
from pipeline.compress.edits.heads import KeepHeads
from pipeline.compress.prune.units import UnitGroup
from pipeline.compress.prune.units_ffn import feed_forwards
from pipeline.compress.prune.units_heads import attention_heads
from pipeline.core.errors import StageError

SMALL = {"num_hidden_layers": 2, "intermediate_size": 48, "attn_implementation": "eager"}
ENCODER = {"vocab_size": 50, "hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 40, **SMALL}
DISTILBERT = {
    "vocab_size": 50,
    "dim": 32,
    "n_heads": 4,
    "n_layers": 2,
    "hidden_dim": 48,
    "attn_implementation": "eager",
}
GROUPED = {**ENCODER, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8, "pad_token_id": 0}
IMAGE = {"hidden_size": 32, "num_attention_heads": 4, "image_size": 16, "patch_size": 8, **SMALL}

FAMILIES: dict[str, tuple[str, dict[str, object], int]] = {
    "bert": ("Bert", ENCODER, 1),
    "roberta": ("Roberta", ENCODER, 1),
    "xlm-roberta": ("XLMRoberta", ENCODER, 1),
    "camembert": ("Camembert", ENCODER, 1),
    "electra": ("Electra", {**ENCODER, "embedding_size": 16}, 1),
    "distilbert": ("DistilBert", DISTILBERT, 1),
    "vit": ("ViT", IMAGE, 1),
    "deit": ("DeiT", IMAGE, 1),
    "llama": ("Llama", GROUPED, 2),
    "mistral": ("Mistral", GROUPED, 2),
    "qwen2": ("Qwen2", GROUPED, 2),
    "qwen3": ("Qwen3", GROUPED, 2),
}
"""Class prefix, config, query heads per key-value head."""


def build(family: str) -> nn.Module:
    prefix, values, _ = FAMILIES[family]
    torch.manual_seed(0)
    model = getattr(transformers, f"{prefix}Model")(getattr(transformers, f"{prefix}Config")(**values)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # biases too: a wrong slice of zeros hides
    return model


def run(model: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if hasattr(model.config, "image_size"):
        inputs = {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator)}
    else:
        inputs = {"input_ids": torch.randint(5, 50, (2, 9), generator=generator)}
    with torch.inference_mode():
        return model(**inputs).last_hidden_state


def masked(model: nn.Module, groups: Sequence[UnitGroup], keeps: Sequence[Sequence[int]]) -> nn.Module:
    """The independent reference: what reads the removed units is zero, all shapes are as they were."""
    copied = copy.deepcopy(model)
    for group, keep in zip(groups, keeps, strict=True):
        (consumer,) = group.consumers
        weight = linear(copied, consumer.module).weight.data
        for unit in set(range(group.count)) - set(keep):
            weight[:, unit * consumer.width : (unit + 1) * consumer.width] = 0
    return copied


@pytest.mark.parametrize("find", [attention_heads, feed_forwards])
@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_equals_masked_with_another_count_in_every_layer(family: str, find: Callable) -> None:
    model = build(family)
    groups = find(model)
    assert len(groups) == 2
    keeps = [(1, 3), (0, 1, 2)]
    edits = [group.edit(keep).model_dump(mode="json") for group, keep in zip(groups, keeps, strict=True)]
    pruned = replay(copy.deepcopy(model), edits)
    expected = run(masked(model, groups, keeps))
    torch.testing.assert_close(run(pruned), expected, atol=1e-5, rtol=1e-5)
    assert (run(model) - expected).abs().max() > 1e-2  # the mask does something
    assert [group.count for group in attention_heads(pruned)] == ([2, 3] if find is attention_heads else [4, 4])


@pytest.mark.parametrize("family", FAMILIES)
def test_groups_stay_whole(family: str) -> None:
    group = FAMILIES[family][2]
    assert [(heads.count, heads.group, heads.head_dim) for heads in attention_heads(build(family))] == [
        (4, group, 8),
        (4, group, 8),
    ]


@pytest.mark.parametrize("family", ["vit", "llama", "qwen3", "distilbert"])
def test_what_the_config_expresses_is_what_transformers_builds(family: str) -> None:
    model = build(family)
    found = [*feed_forwards(model), *([] if family == "distilbert" else attention_heads(model))]
    replay(model, [group.edit((0, 2)).model_dump(mode="json") for group in found])
    rebuilt = type(model)(model.config).eval()
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(run(rebuilt), run(model))


def test_bert_config_cannot_say_fewer_heads() -> None:
    model = build("bert")
    replay(model, [heads.edit((0,)).model_dump(mode="json") for heads in attention_heads(model)])
    assert model.config.num_attention_heads == 4
    attention = model.encoder.layer[0].attention.self
    assert (attention.num_attention_heads, attention.all_head_size, attention.attention_head_size) == (1, 8, 8)


def test_the_attention_module_is_told_its_counts() -> None:
    model = build("distilbert")
    replay(model, [heads.edit((0, 3)).model_dump(mode="json") for heads in attention_heads(model)])
    attention = model.transformer.layer[1].attention
    assert (attention.n_heads, attention.dim) == (2, 16)


def test_heads_are_slices_worked_out_by_hand() -> None:
    """Two heads of 2 features: keeping head 1 keeps rows 2 and 3 of q, k, v and columns 2 and 3 of the output."""
    net = nn.Module()
    net.attention = nn.Module()
    for name in ("q", "k", "v", "o"):
        layer = nn.Linear(4, 4)
        layer.weight.data = torch.arange(16.0).view(4, 4)
        layer.bias.data = torch.arange(4.0)
        net.attention.add_module(name, layer)
    names = {role: f"attention.{role[0]}" for role in ("query", "key", "value", "output")}
    KeepHeads(attention="attention", **names, head_dim=2, keep=(1,)).apply(net)
    assert net.attention.k.weight.tolist() == [[8.0, 9.0, 10.0, 11.0], [12.0, 13.0, 14.0, 15.0]]
    assert net.attention.q.bias.tolist() == [2.0, 3.0]
    assert net.attention.o.weight.tolist() == [[2.0, 3.0], [6.0, 7.0], [10.0, 11.0], [14.0, 15.0]]
    assert net.attention.o.bias.tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": (4,)}, "The edit of 'l.q' keeps 1 heads that do not fit its 32 features of 8 each."),
        ({"keep": ()}, "The edit of 'l.q' keeps 0 heads that do not fit its 32 features of 8 each."),
        ({"head_dim": 5}, "The edit of 'l.q' keeps 2 heads that do not fit its 32 features of 5 each."),
    ],
)
def test_edits_of_heads_that_do_not_fit(change: dict[str, object], message: str) -> None:
    net = nn.Module()
    net.l = nn.Module()
    net.l.q = nn.Linear(32, 32)
    names = dict.fromkeys(("query", "key", "value", "output"), "l.q")
    edit = KeepHeads(attention="l", **names, head_dim=8, keep=(0, 1)).model_copy(update=change)
    with pytest.raises(StageError) as caught:
        edit.apply(net)
    assert caught.value.message == message


def test_an_unknown_attention_class_is_named() -> None:
    values = {**GROUPED, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    model = transformers.Phi3Model(transformers.Phi3Config(**values))
    with pytest.raises(StageError) as caught:
        attention_heads(model)
    assert caught.value.message == (
        "prune: the attention heads of Phi3Model are built by Phi3Attention, which prune does not know."
    )


def test_a_model_without_heads() -> None:
    with pytest.raises(StageError) as caught:
        attention_heads(nn.Linear(4, 4))
    assert caught.value.message == "prune: Linear has no attention heads."


def test_heads_that_do_not_divide() -> None:
    model = build("llama")
    model.layers[1].self_attn.k_proj = nn.Linear(32, 28)
    with pytest.raises(StageError) as caught:
        attention_heads(model)
    assert caught.value.message == (
        "prune: the heads of 'layers.1.self_attn' do not divide: 64 query, 28 key and 32 value features in heads "
        "of 8, 64 features read."
    )
