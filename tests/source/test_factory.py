"""PyTorch factories: found, run, told apart by what they make."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.recipe import DeclaredInput, Recipe
from pipeline.core.errors import UsageError
from pipeline.core.model_spec import InputSpec
from pipeline.source.factory import build, is_factory
from pipeline.source.model import ModelSource, model_name, resolve_model

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(8, 4)
        self.scale = scale

    def forward(self, x):
        return self.head(x) * self.scale

def net():
    return Net()

def broken():
    raise ValueError("no weights here")

def number():
    return 3
"""
RECIPE = Recipe(
    name="r", title="r", scheme="fp32", task="image-classification", inputs={"x": DeclaredInput(shape=("batch", 8))}
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(NET)
    build.cache_clear()
    return path


def source(file: Path, name: str = "net", recipe: Recipe | None = RECIPE, task: str | None = None) -> ModelSource:
    build.cache_clear()
    return resolve_model(f"{file}:{name}", task, recipe=recipe)


def refusal(*arguments: object, **options: object) -> str:
    with pytest.raises(UsageError) as caught:
        source(*arguments, **options)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("nets.py:net", True),
        ("a/b/nets.py:net", True),
        ("package.module:net", True),
        ("owner/name", False),
        ("all-MiniLM-L6-v2", False),
        ("C:", False),
        ("nets.py", False),
    ],
)
def test_what_a_factory_looks_like(model, expected) -> None:
    assert is_factory(model) is expected


def test_a_factory_is_a_source(file) -> None:
    found = source(file)
    assert (found.name, found.kind, found.task.name) == ("net", "factory", "image-classification")
    assert found.inputs == {"x": InputSpec(shape=("batch", 8))}
    assert model_name(f"{file}:net") == "net"


def test_a_module_on_the_path_is_a_source() -> None:
    recipe = RECIPE.model_copy(update={"inputs": {"input": DeclaredInput(shape=("batch", 3))}})
    assert resolve_model("torch.nn:Identity", recipe=recipe).name == "Identity"


def test_the_digest_is_of_weights_and_code_alone(file, tmp_path) -> None:
    first = source(file).digest
    elsewhere = tmp_path / "other" / "nets.py"
    elsewhere.parent.mkdir()
    elsewhere.write_text(NET)
    assert source(elsewhere).digest == first
    file.write_text(NET.replace("manual_seed(0)", "manual_seed(1)"))
    assert source(file).digest != first
    file.write_text(NET.replace("* self.scale", "* self.scale * 1"))
    assert source(file).digest != first


def test_inputs_from_the_module(file) -> None:
    file.write_text(NET + "\ndef example_inputs():\n    return {'x': torch.zeros(2, 8)}\n")
    bare = RECIPE.model_copy(update={"inputs": {}})
    assert source(file, recipe=bare).inputs == {"x": InputSpec(shape=("batch", 8))}


def test_integers_are_bounded_by_the_examples(file) -> None:
    file.write_text(NET + "\ndef example_inputs():\n    return {'x': torch.tensor([[3, 9]])}\n")
    bare = RECIPE.model_copy(update={"inputs": {}})
    assert source(file, recipe=bare).inputs == {"x": InputSpec(shape=("batch", 2), dtype="int64", values=10)}


def test_a_factory_without_inputs_is_told_how_to_give_them(file) -> None:
    message = refusal(file, recipe=RECIPE.model_copy(update={"inputs": {}}))
    assert message.startswith(f"Nothing says what the model of '{file}:net' takes.")
    assert "[inputs.x]" in message
    assert "example_inputs()" in message


def test_a_factory_without_a_task(file) -> None:
    found = source(file, recipe=RECIPE.model_copy(update={"task": None}))
    assert found.task.name == "generic"
    assert found.notes[0].startswith(f"No task was named, and none is recognized by what '{file}:net' gives: its ")


def test_a_factory_that_raises(file) -> None:
    assert f"The factory '{file}:broken' raised ValueError: no weights here (nets.py, line 19)." in refusal(
        file, "broken"
    )


def test_a_factory_that_returns_no_model(file) -> None:
    assert f"The factory '{file}:number' returned a int." in refusal(file, "number")


def test_a_function_that_is_not_there(file) -> None:
    message = refusal(file, "nett")
    assert "nets.py has no function 'nett'." in message
    assert "Did you mean 'net'" in message


def test_a_file_that_is_not_there(tmp_path) -> None:
    assert "There is no file" in refusal(tmp_path / "none.py")


def test_a_file_that_cannot_be_imported(file) -> None:
    file.write_text("import a_module_that_nobody_has\n")
    assert "The file 'nets.py' cannot be imported: ModuleNotFoundError" in refusal(file)


def test_examples_that_are_no_tensors(file) -> None:
    file.write_text(NET + "\ndef example_inputs():\n    return [1, 2]\n")
    message = refusal(file, recipe=RECIPE.model_copy(update={"inputs": {}}))
    assert message == "example_inputs() of nets.py must be a dict of tensors by input name, each with a batch axis."


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("raise SystemExit(0)", "The file 'nets.py' cannot be imported: SystemExit: 0 (nets.py, line 24)."),
        ("def stop():\n    raise SystemExit(0)", "raised SystemExit: 0 (nets.py, line 25)."),
    ],
)
def test_a_factory_that_ends_the_process(file, added, message) -> None:
    file.write_text(f"{NET}\n{added}\n")
    assert message in refusal(file, "stop")


def test_a_built_in_module_without_the_function() -> None:
    with pytest.raises(UsageError, match=r"^sys has no function 'nothing_like_it'\."):
        resolve_model("sys:nothing_like_it", "image-classification", recipe=RECIPE)


def test_a_model_without_values(file) -> None:
    file.write_text(NET + '\ndef empty():\n    with torch.device("meta"):\n        return nn.Linear(8, 4)\n')
    assert "The model's state 'bias' holds no values that can be hashed (Tensor)." in refusal(file, "empty")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("wrapped", ["nn.DataParallel(Net())", "torch.compile(Net())"])
def test_a_model_inside_a_wrapper_is_unwrapped(file, wrapped) -> None:
    file.write_text(NET + f"\ndef wrapped():\n    return {wrapped}\n")
    assert type(build(f"{file}:wrapped").model).__name__ == "Net"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused(file) -> None:
    file.write_text(NET + "\ndef scripted():\n    return torch.jit.script(nn.Sequential(nn.Linear(8, 4)))\n")
    with pytest.raises(UsageError) as caught:
        build(f"{file}:scripted")
    assert "returned TorchScript (RecursiveScriptModule), which cannot be traced anew." in caught.value.message
    assert caught.value.remedy == "Return the torch.nn.Module that it was made from."


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_is_quantized_already(file) -> None:
    file.write_text(NET + "\ndef rounded():\n    return torch.ao.quantization.quantize_dynamic(Net(), {nn.Linear})\n")
    with pytest.raises(UsageError) as caught:
        build(f"{file}:rounded")
    assert caught.value.message.endswith("returned a model that is quantized already (Linear).")
    assert caught.value.remedy == "Return the float model that it was made from."


def test_a_recipe_must_give_the_shapes_of_a_factory(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\ndef make(): return nn.Linear(8, 2)\n")
    recipe = RECIPE.model_copy(update={"inputs": {"input": DeclaredInput(values=5)}})
    with pytest.raises(UsageError) as caught:
        resolve_model(f"{tmp_path}/net.py:make", recipe=recipe)
    assert caught.value.message == "The recipe does not say which shape the input 'input' has."
