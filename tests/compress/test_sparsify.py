"""The sparsify pass: by hand on two small layers, its config, its facts on a tiny BERT, passes in a row, mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from model_specs import hugging_face
from safetensors.torch import load_file
from stages import run_pass, token_samples
from torch import Tensor, nn

from pipeline.compress.compressed_model import load_compressed
from pipeline.compress.sparsify import methods
from pipeline.compress.sparsify.config import Sparsify
from pipeline.compress.sparsify.layers import sparse_layers
from pipeline.compress.sparsify.methods import by_inputs, by_magnitude, in_blocks
from pipeline.core.artifact import Artifact
from pipeline.core.errors import StageError, UsageError
from pipeline.core.types import silent


class Net(nn.Module):
    """second(first(x)), without biases."""

    def __init__(self, first: list[list[float]], second: list[list[float]]) -> None:
        super().__init__()
        self.first, self.second = (self._linear(weight) for weight in (first, second))

    @staticmethod
    def _linear(weight: list[list[float]]) -> nn.Linear:
        layer = nn.Linear(len(weight[0]), len(weight), bias=False)
        layer.weight = nn.Parameter(torch.tensor(weight))
        return layer

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def net() -> Net:
    return Net([[3.0, -1.0], [2.0, 2.5]], [[1.0, 4.0], [-5.0, 6.0]])


def seen(model: nn.Module, batches: list[dict[str, Tensor]]) -> SimpleNamespace:
    return SimpleNamespace(forward=lambda batch: model(**batch), batches=lambda: batches, progress=silent)


def sparse(model: nn.Module, inputs: list[list[float]] | None = None, **config: Any) -> list[list[list[float]]]:
    """The weights after `sparsify`; every row of `inputs` is a batch."""
    settings = Sparsify(**config)
    layers, _ = sparse_layers(model, settings)
    if inputs is None:
        by_magnitude(layers, settings)
    else:
        batches = [{"x": torch.tensor([row], dtype=torch.float32)} for row in inputs]
        by_inputs(
            layers,
            settings,
            SimpleNamespace(forward=lambda batch: model(**batch), batches=lambda: batches, progress=silent),
            False,
        )
    return [layer.weight.tolist() for layer in layers.values()]


def test_magnitude_of_a_layer_of_a_row_and_of_all_layers() -> None:
    config = {"method": "magnitude", "sparsity": 0.5}
    assert sparse(net(), **config) == [[[3, 0], [0, 2.5]], [[0, 0], [-5, 6]]]
    assert sparse(net(), **config, scope="row") == [[[3, 0], [0, 2.5]], [[0, 4], [0, 6]]]
    assert sparse(net(), **config, scope="global") == [[[3, 0], [0, 0]], [[0, 4], [-5, 6]]]
    assert sparse(net(), method="magnitude", pattern="1:2") == [[[3, 0], [0, 2.5]], [[0, 4], [0, 6]]]


def test_wanda_on_what_the_first_layer_gives_when_it_is_sparse() -> None:
    """Inputs (1, 0) and (0, 2): norms 1 and 2. Scores of the first layer: 3, 2 / 2, 5. Its rows keep 3 and 2.5, so that
    the second layer reads (3, 0) and (0, 5): norms 3 and 5, scores 3, 20 / 15, 30. The dense first layer would have
    given norms sqrt(9 + 4) and sqrt(4 + 25)."""
    assert sparse(net(), [[1, 0], [0, 2]], method="wanda", sparsity=0.5) == [[[3, 0], [0, 2.5]], [[0, 4], [0, 6]]]


def test_wanda_step_by_step_differs_from_all_at_once() -> None:
    """Input (1, 1): of the first layer 3 and 2.5 stay, so that the second reads (3, 2.5), with scores 3.3 and 2.5; the
    dense first layer gives (2, 4.5), and scores 2.2 and 4.5."""
    model = Net([[3.0, -1.0], [2.0, 2.5]], [[1.1, 1.0]])
    assert sparse(model, [[1, 1]], method="wanda", sparsity=0.5)[1] == [[pytest.approx(1.1), 0]]
    model = Net([[3.0, -1.0], [2.0, 2.5]], [[1.1, 1.0]])
    assert sparse(model, [[1, 1]], method="wanda", sparsity=0.5, sequential=False)[1] == [[0, 1]]


def test_sparsegpt_makes_up_for_what_goes() -> None:
    """Inputs (1, 1) and (0, 1): H = [[1, 1], [1, 2]], damped by 0.01 * 1.5. Removing w_0 = 1 from (1, 3) adds
    H_01 / H_11 = 1 / 2.015 to w_1."""
    model = nn.Sequential(Net([[1.0, 3.0]], [[1.0]]).first)
    batches = [{"input": torch.tensor([row])} for row in ([1.0, 1.0], [0.0, 1.0])]
    settings = Sparsify(sparsity=0.5)
    layers, _ = sparse_layers(model, settings)
    damping = by_inputs(
        layers,
        settings,
        SimpleNamespace(forward=lambda batch: model(**batch), batches=lambda: batches, progress=silent),
        False,
    )
    assert damping == {"0": 0.01}
    assert model[0].weight.tolist() == [[0, pytest.approx(3 + 1 / 2.015)]]


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_outputs_are_unchanged_where_only_zeros_go(method: str) -> None:
    """Linear, a grouped convolution and a depthwise one whose every second weight of a row is zero already."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(4, 8, 2, groups=2), nn.ReLU(), nn.Conv2d(8, 8, 2, groups=8), nn.Flatten(), nn.Linear(72, 6)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.view(len(parameter), -1)[:, ::2] = 0
    before = [parameter.detach().clone() for parameter in model.parameters()]
    batches = [{"input": torch.randn(5, 4, 5, 5)}, {"input": torch.randn(3, 4, 5, 5)}]
    settings = Sparsify(method=method, sparsity=0.5)
    layers, _ = sparse_layers(model, settings)
    assert list(layers) == ["0", "2", "4"]
    if method == "magnitude":
        by_magnitude(layers, settings)
    else:
        by_inputs(
            layers,
            settings,
            SimpleNamespace(forward=lambda batch: model(**batch), batches=lambda: batches, progress=silent),
            False,
        )
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_names_of_one_block_are_taken_together() -> None:
    names = ["stem", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "head.3"]
    assert in_blocks(names) == [["stem"], ["layer1.0.conv1", "layer1.0.conv2"], ["layer1.1.conv1"], ["head.3"]]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return {"calibration": token_samples(tmp_path_factory.mktemp("samples"))}


def sparsified(folder: Path, inputs: dict[str, Artifact], out: Path, **table: Any) -> Any:
    """The facts, the weights of the layers that were taken, and the inputs of the next pass."""
    facts, after = run_pass({"pass": "sparsify", **table}, hugging_face(folder), inputs, out)
    stored = load_file(out / "weights.safetensors")
    return facts, {row["layer"]: stored[f"{row['layer']}.weight"] for row in facts["layers"]}, after


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("amount", [{"sparsity": 0.6}, {"pattern": "2:4"}])
def test_every_method_leaves_the_zeros_asked_for(
    tiny_encoder: Path, samples: dict[str, Artifact], tmp_path: Path, method: str, amount: dict[str, Any]
) -> None:
    facts, weights, _ = sparsified(tiny_encoder, samples, tmp_path / "a", method=method, **amount)
    assert len(weights) == 13  # six in each of two layers, and the pooler
    for weight in weights.values():
        if "pattern" in amount:
            assert ((weight.view(-1, 4) == 0).sum(1) == 2).all()
        else:
            assert (weight == 0).double().mean().item() == pytest.approx(0.6, abs=0.02)
    assert facts["sparsity"] == pytest.approx(amount.get("sparsity", 0.5), abs=0.02)
    assert facts["metric_before"]["drop"] == pytest.approx(0, abs=1e-4)
    assert facts["metric_after"]["drop"] > 0
    assert facts["parameters_before"] == facts["parameters_after"]
    again, _, _ = sparsified(tiny_encoder, samples, tmp_path / "b", method=method, **amount)
    assert again == facts
    files = [(tmp_path / place / "weights.safetensors").read_bytes() for place in "ab"]
    assert files[0] == files[1]


def test_facts_list_every_layer_and_every_weight_that_stays_dense(
    tiny_encoder: Path, samples: dict[str, Artifact], tmp_path: Path
) -> None:
    facts, _, after = sparsified(
        tiny_encoder, samples, tmp_path / "a", sparsity=0.5, layers=["encoder.*", "pooler.*"], ignore=["*.key", "pool*"]
    )
    assert facts["layers"][0] == {
        **{"layer": "encoder.layer.0.attention.self.query", "kind": "Linear", "values": 1024, "zeros": 512},
        **{"sparsity": 0.5, "damping": 0.01},
    }
    assert len(facts["layers"]) == 10
    assert (facts["method"], facts["scope"], facts["values"]) == (
        "sparsegpt",
        "layer",
        sum(r["values"] for r in facts["layers"]),
    )
    embedding = "an embedding: its rows are looked up, not multiplied"
    assert [(row["name"], row["reason"]) for row in facts["skipped"]] == [
        ("embeddings.word_embeddings.weight", embedding),
        ("embeddings.position_embeddings.weight", embedding),
        ("embeddings.token_type_embeddings.weight", embedding),
        ("encoder.layer.0.attention.self.key.weight", "ignore names it"),
        ("encoder.layer.1.attention.self.key.weight", "ignore names it"),
        ("pooler.dense.weight", "ignore names it"),
    ]
    (edit,) = json.loads((after["compressed"].path / "edits.json").read_text())
    assert edit == {"edit": "hold_zeros", "weights": [f"{row['layer']}.weight" for row in facts["layers"]]}


def test_passes_in_a_row_keep_the_zeros_of_the_earlier_ones(
    tiny_encoder: Path, samples: dict[str, Artifact], tmp_path: Path
) -> None:
    """Magnitude leaves unequal shares of zeros in SparseGPT's blocks of columns, which it could fill again."""
    first, before, inputs = sparsified(tiny_encoder, samples, tmp_path / "a", method="magnitude", sparsity=0.5)
    second, after, inputs = sparsified(tiny_encoder, inputs, tmp_path / "b", sparsity=0.7, ignore=["pooler*"])
    assert second["metric_before"] == first["metric_after"]
    assert second["sparsity"] == pytest.approx(0.7, abs=0.01)
    for name, weight in after.items():
        assert not weight[before[name] == 0].any()
    _, inputs = run_pass({"pass": "prune", "ratio": 0.5}, hugging_face(tiny_encoder), inputs, tmp_path / "c")
    model = load_compressed(hugging_face(tiny_encoder), inputs).model
    assert model.encoder.layer[0].output.dense.weight.shape == (32, 64)
    assert (model.encoder.layer[0].output.dense.weight == 0).double().mean().item() > 0.5  # denser neurons stay


def test_weights_that_are_shared_or_of_other_kinds_stay_dense() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(6, 4), nn.Linear(4, 6)
            self.head.weight = self.table.weight
            self.attention, self.conv = nn.MultiheadAttention(4, 2), nn.Conv1d(4, 4, 1)
            self.place, self.norm, self.free = nn.Parameter(torch.ones(1, 4)), nn.LayerNorm(4), nn.Linear(4, 4)

    taken, left = sparse_layers(Odd(), Sparsify(sparsity=0.5))
    assert list(taken) == ["attention.out_proj", "free"]
    others = "sparsify takes the weights of Linear and Conv2d, not those of"
    assert {row.name: row.reason for row in left} == {
        "place": f"{others} Odd",
        "table.weight": "an embedding: its rows are looked up, not multiplied",
        "head.weight": "it is the same tensor as table.weight",
        "attention.in_proj_weight": f"{others} MultiheadAttention",
        "conv.weight": f"{others} Conv1d",
    }


def test_layers_that_no_sample_reaches_are_as_they_were() -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 4), "unused": nn.Linear(4, 4)})
    before = model["unused"].weight.detach().clone()
    settings = Sparsify(sparsity=0.5)
    batch = {"x": torch.ones(3, 4)}
    calibration = SimpleNamespace(forward=lambda _: model["used"](batch["x"]), batches=lambda: [batch], progress=silent)
    damping = by_inputs(sparse_layers(model, settings)[0], settings, calibration, False)
    assert list(damping) == ["used"]
    assert torch.equal(model["unused"].weight, before)


def one_layer() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 4), nn.Linear(4, 10))


@pytest.mark.parametrize(
    ("model", "config", "message", "remedy"),
    [
        (
            nn.Sequential(nn.Embedding(4, 4), nn.ReLU()),
            {"sparsity": 0.5},
            "sparsify: Sequential has no Linear or Conv2d weights.",
            "Remove the sparsify pass from the recipe.",
        ),
        (
            one_layer(),
            {"pattern": "2:4"},
            "sparsify: the rows of '0' have 6 weights, which do not divide into groups of 4 for 2:4 (and 1 more).",
            'Leave them dense with ignore = ["0", "1"], or use sparsity instead of pattern.',
        ),
        (
            one_layer(),
            {"sparsity": 0.5, "ignore": ["0", "head*"]},
            "sparsify: 'head*' in ignore matches no Linear or Conv2d layer.",
            "Names near it: 2, 1, 0; * stands for anything.",
        ),
        (
            one_layer(),
            {"sparsity": 0.5, "layers": ["encoder.*"]},
            "sparsify: 'encoder.*' in layers matches no Linear or Conv2d layer.",
            "Names near it: 2, 1, 0; * stands for anything.",
        ),
        (
            one_layer(),
            {"sparsity": 0.5, "layers": ["[01]"], "ignore": ["*"]},
            "sparsify: layers and ignore leave none of the 3 Linear and Conv2d layers.",
            "Widen layers or narrow ignore; names look like 0, 1, 2.",
        ),
    ],
)
def test_layers_that_cannot_be_taken(model: nn.Module, config: dict[str, Any], message: str, remedy: str) -> None:
    with pytest.raises(StageError) as caught:
        sparse_layers(model, Sparsify(**config))
    assert (caught.value.message, caught.value.remedy) == (message, remedy)


def test_a_global_threshold_that_would_empty_a_layer() -> None:
    with pytest.raises(StageError) as caught:
        sparse(Net([[0.1, 0.2]], [[5.0], [6.0]]), method="magnitude", sparsity=0.5, scope="global")
    assert caught.value.message == "sparsify: a sparsity of 0.5 over all layers would empty 'first'."
    assert caught.value.remedy == 'Lower it, leave that layer out with ignore = ["first"], or use scope = "layer".'


def test_inputs_that_are_not_finite() -> None:
    with pytest.raises(StageError) as caught:
        sparse(net(), [[float("nan"), 1]], method="wanda", sparsity=0.5)
    assert caught.value.message == "sparsify: the inputs of 'first' are not finite on calibration samples."


def test_a_hessian_that_cannot_be_factored(monkeypatch: pytest.MonkeyPatch) -> None:
    indefinite = {"first": torch.tensor([[[1.0, 20.0], [20.0, 1.0]]], dtype=torch.float64)}
    monkeypatch.setattr(methods, "second_moments", lambda *_, **__: indefinite)
    with pytest.raises(StageError) as caught:
        sparse(net(), [[1, 1]], sparsity=0.5)
    assert caught.value.message == (
        "sparsify: the inputs of 'first' have no invertible Hessian, however much it is damped."
    )
    assert 'ignore = ["first"], or use method = "wanda"' in caught.value.remedy


def test_a_sparsity_that_removes_nothing(tiny_encoder: Path, samples: dict[str, Artifact], tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        sparsified(tiny_encoder, samples, tmp_path / "a", method="magnitude", sparsity=0.0001)
    assert caught.value.message == "sparsify: a sparsity of 0.0001 would remove nothing."
    assert not list((tmp_path / "a").iterdir())


BETWEEN = "sparsity: must be a number above 0 and below 1"
N_OF_M = "pattern: must be 'N:M' with N below M, as '2:4': at most 2 of every 4 neighbours stay"


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"sparsity": 0}, f"{BETWEEN} (given: 0)"),
        ({"sparsity": 1}, f"{BETWEEN} (given: 1)"),
        ({"sparsity": 1.5}, f"{BETWEEN} (given: 1.5)"),
        ({"sparsity": -0.5}, f"{BETWEEN} (given: -0.5)"),
        ({"sparsity": True}, f"{BETWEEN} (given: True)"),
        ({"sparsity": "half"}, f"{BETWEEN} (given: 'half')"),
        ({"pattern": "4:2"}, f"{N_OF_M} (given: '4:2')"),
        ({"pattern": "4:4"}, f"{N_OF_M} (given: '4:4')"),
        ({"pattern": "0:4"}, f"{N_OF_M} (given: '0:4')"),
        ({"pattern": "2/4"}, f"{N_OF_M} (given: '2/4')"),
        ({"pattern": "-2:4"}, f"{N_OF_M} (given: '-2:4')"),
        ({"pattern": "2:4:8"}, f"{N_OF_M} (given: '2:4:8')"),
        ({}, "needs either sparsity or pattern, and not both"),
        ({"sparsity": 0.5, "pattern": "2:4"}, "needs either sparsity or pattern, and not both"),
        ({"pattern": "2:4", "scope": "row"}, "scope: a pattern has its own; remove one of the two"),
        ({"sparsity": 0.5, "scope": "row"}, "scope: sparsegpt takes layer, not row"),
        (
            {"sparsity": 0.5, "scope": "global", "method": "wanda"},
            "scope: wanda takes row or layer, not global",
        ),
        ({"sparsity": 0.5, "ignored": []}, "ignored: unknown key. Did you mean 'ignore'?"),
    ],
)
def test_mistakes_in_the_config(config: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        Sparsify.from_data(config, "pass 1")
    assert caught.value.message == f"pass 1 has 1 mistake:\n  - {line}"
