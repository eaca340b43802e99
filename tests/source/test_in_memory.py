"""Models in memory: what they are called, and what tells them apart."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertTokenizerFast

from pipeline.core.errors import UsageError
from pipeline.source.in_memory import named
from pipeline.source.model import ModelSource, resolve_model

EXAMPLES = {"x": torch.zeros(2, 8)}


class Net(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(8, 4)
        self.scale = scale
        self.register_buffer("shift", torch.zeros(4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) * self.scale + self.shift


class Unsaved(nn.Module):
    """Like models of transformers whose settings contradict each other, which they say when they are saved."""

    def save_pretrained(self, _: Path) -> None:
        raise ValueError("no such folder here")


def source(model: Any, examples: dict[str, Any] | None = None) -> ModelSource:
    with named(model, example_inputs=examples or EXAMPLES) as name:
        return resolve_model(name, "image-classification")


def refusal(model: Any, **given: Any) -> str:
    with pytest.raises(UsageError) as raised, named(model, **given):
        pass
    return raised.value.message


def test_a_module_is_a_source_of_its_class_name() -> None:
    found = source(Net())
    assert (found.name, found.kind) == ("Net", "factory")
    assert found.inputs["x"].shape == ("batch", 8)
    with pytest.raises(UsageError, match="cannot be imported"):  # no longer held
        resolve_model("in_memory:Net")


def test_weights_settings_and_buffers_tell_models_apart() -> None:
    other = Net()
    other.head.bias.data += 1
    shifted = Net()
    shifted.shift += 1  # type: ignore[operator]
    digests = {source(net).digest for net in (Net(), Net(2.0), other, shifted)}
    assert len(digests) == 4
    assert source(Net()).digest == source(Net()).digest


def test_code_that_stands_in_no_file_tells_models_apart() -> None:
    """As in a notebook: two classes of one name, with the same weights."""

    def made(operation: str) -> nn.Module:
        place: dict[str, Any] = {"nn": nn, "__name__": "nowhere"}
        code = f"class Cell(nn.Module):\n  def forward(self, x):\n    return x {operation} 2\n"
        exec(code, place)  # noqa: S102  # code of this test
        cell: nn.Module = place["Cell"]()
        return cell

    assert source(made("+")).digest != source(made("*")).digest
    assert source(made("+")).digest == source(made("+")).digest


def test_what_code_reads_from_elsewhere_tells_models_apart() -> None:
    """A helper and a number of the notebook, a default, a class attribute, and what a function closes over."""

    def made(number: int = 1, default: int = 1, attribute: int = 1, helper: str = "x + 1") -> nn.Module:
        place: dict[str, Any] = {"nn": nn, "torch": torch, "NUMBER": number, "__name__": "nowhere"}
        code = (
            f"def helper(x):\n  return {helper}\n"
            "class Cell(nn.Module):\n"
            f"  attribute = {attribute}\n"
            f"  def forward(self, x, default={default}):\n"
            "    return helper(x) * NUMBER + default + self.attribute\n"
        )
        exec(code, place)  # noqa: S102  # code of this test
        cell: nn.Module = place["Cell"]()
        return cell

    different = [made(), made(number=2), made(default=2), made(attribute=2), made(helper="x + 2")]
    assert len({source(cell).digest for cell in different}) == len(different)
    assert source(made()).digest == source(made()).digest


def test_functions_and_objects_among_the_settings_tell_models_apart() -> None:
    class Scale:
        def __init__(self, factor: float) -> None:
            self.factor = factor

    def net(setting: Any) -> nn.Module:
        made = Net()
        made._scaled = setting
        return made

    def closed_over(factor: float) -> Any:
        return lambda x: x * factor

    settings = [partial(torch.mul, other=2.0), partial(torch.mul, other=3.0), Scale(2.0), Scale(3.0)]
    settings += [closed_over(2.0), closed_over(3.0), {"a", "b", "c"}, {"a", "b"}]
    digests = [source(net(setting)).digest for setting in settings]
    assert len(set(digests)) == len(digests)
    assert source(net(closed_over(2.0))).digest == digests[4]
    assert source(net(Scale(2.0))).digest == digests[2]


def test_hooks_tell_models_apart() -> None:
    def net(factor: float) -> nn.Module:
        made = Net()
        made.head.register_forward_hook(lambda _, __, output: output * factor)
        return made

    assert len({source(net(factor)).digest for factor in (2.0, 3.0)} | {source(Net()).digest}) == 3
    assert source(net(2.0)).digest == source(net(2.0)).digest


def test_the_module_is_left_as_it_was() -> None:
    net = Net().train()
    net.head.eval()
    with named(net, example_inputs=EXAMPLES):
        assert not net.training
    assert net.training
    assert not net.head.training


def test_the_module_is_left_as_it_was_where_it_is_refused() -> None:
    net = Net().train()
    net.register_buffer("unknown", torch.zeros(2, device="meta"))
    with pytest.raises(UsageError, match="holds no values that can be hashed"), named(net, example_inputs=EXAMPLES):
        pass
    assert net.training


def test_what_transformers_refuses_to_save_is_said() -> None:
    with pytest.raises(UsageError) as raised, named(Unsaved(), processor=Unsaved()):
        pass
    assert raised.value.message == "The model cannot be saved by its save_pretrained: ValueError: no such folder here"


def test_a_transformers_model_comes_with_its_processor(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    config = BertConfig(vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    with named(BertModel(config), tokenizer) as folder:
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in Path(folder).iterdir()}
        found = resolve_model(folder)
        assert (found.name, found.kind, found.task.name) == ("BertModel", "huggingface", "feature-extraction")
    assert not Path(folder).exists()


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        ("m", {"processor": 1}, "processor and example_inputs are for models in memory; 'm' is a name."),
        (3, {}, "A int is no model."),
        (Net(), {}, "A Net in memory needs either processor or example_inputs."),
        (Net(), {"processor": 1}, "A Net is none of transformers' classes: it has no save_pretrained."),
        (
            Net(),
            {"example_inputs": {"x": 1}},
            "example_inputs must be a dict of tensors by input name, each with a batch axis.",
        ),
    ],
)
def test_what_is_refused(model: Any, given: dict[str, Any], message: str) -> None:
    assert refusal(model, **given) == message
