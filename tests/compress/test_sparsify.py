"""The sparsify pass: by hand on two small layers, its config, its facts on a tiny BERT, passes in a row, mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.compress.moments import Calibration
from pipeline.compress.sparse_layers import in_blocks, sparse_layers
from pipeline.compress.sparsifier import by_inputs, by_magnitude
from pipeline.compress.sparsify import Sparsify
from pipeline.compress.sparsify_weights import run
from pipeline.core.artifact import Artifact
from pipeline.core.stage import StageContext
from pipeline.core.types import Scheme, silent
from pipeline.source.samples import write_samples


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


def sparse(model: nn.Module, inputs: list[list[float]] | None = None, **config: Any) -> list[list[list[float]]]:
    """The weights after `sparsify`; every row of `inputs` is a batch."""
    settings = Sparsify(**config)
    layers, _ = sparse_layers(model, settings)
    if inputs is None:
        by_magnitude(layers, settings)
    else:
        batches = [{"x": torch.tensor([row], dtype=torch.float32)} for row in inputs]
        by_inputs(layers, settings, Calibration(lambda batch: model(**batch), lambda: batches), False, silent)
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
    damping = by_inputs(layers, settings, Calibration(lambda batch: model(**batch), lambda: batches), False, silent)
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
        by_inputs(layers, settings, Calibration(lambda batch: model(**batch), lambda: batches), False, silent)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_names_of_one_block_are_taken_together() -> None:
    names = ["stem", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "head.3"]
    assert in_blocks(names) == [["stem"], ["layer1.0.conv1", "layer1.0.conv2"], ["layer1.1.conv1"], ["head.3"]]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("samples")
    generator = np.random.default_rng(0)
    rows = (
        {"input_ids": generator.integers(5, 180, (1, 3 + n % 9)), "attention_mask": np.ones((1, 3 + n % 9), np.int64)}
        for n in range(24)
    )
    write_samples(folder, rows)
    return Artifact(folder, "samples", "k", "d", {})


def sparsify(
    folder: Path,
    samples: Artifact,
    out: Path,
    earlier: Path | None = None,
    scheme: Scheme | None = None,
    **config: Any,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The facts, and the weights of the layers that were taken."""
    source = {
        **{"kind": "huggingface", "path": str(folder), "auto_class": "AutoModel", "trust_remote_code": False},
        **{"entry": "", "pickle": False, "inputs": {}, "preprocessing": None},
        **{"family": "embedding", "sentence_transformer": True},
    }
    values = {
        "pass": Sparsify(**config).model_dump(mode="json"),
        "source": source,
        "scheme": (scheme or Scheme(name="fp32")).model_dump(mode="json"),
        "limits": {},
    }
    out.mkdir(exist_ok=True)
    inputs = {"calibration": samples}
    if earlier:
        inputs["compressed"] = Artifact(earlier, "compress.0.sparsify", "k", "d", {})
    facts = run(StageContext(values, inputs, out, silent))
    stored = load_file(out / "weights.safetensors")
    return facts, {row["layer"]: stored[f"{row['layer']}.weight"] for row in facts["layers"]}


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("amount", [{"sparsity": 0.6}, {"pattern": "2:4"}])
def test_every_method_leaves_the_zeros_asked_for(
    tiny_encoder: Path, samples: Artifact, tmp_path: Path, method: str, amount: dict[str, Any]
) -> None:
    facts, weights = sparsify(tiny_encoder, samples, tmp_path / "a", method=method, **amount)
    assert len(weights) == 13
    for weight in weights.values():
        if "pattern" in amount:
            assert ((weight.view(-1, 4) == 0).sum(1) == 2).all()
        else:
            assert (weight == 0).double().mean().item() == pytest.approx(0.6, abs=0.02)
    assert facts["sparsity"] == pytest.approx(amount.get("sparsity", 0.5), abs=0.02)
    assert facts["metric_before"]["drop"] == pytest.approx(0, abs=1e-4)
    assert facts["metric_after"]["drop"] > 0
    assert facts["parameters_before"] == facts["parameters_after"]
    again, _ = sparsify(tiny_encoder, samples, tmp_path / "b", method=method, **amount)
    assert again == facts
    files = [(tmp_path / place / "weights.safetensors").read_bytes() for place in "ab"]
    assert files[0] == files[1]
