"""Train the networks of `benchmarks.networks`, and a vision transformer, on the given CIFAR-10 images.

    python -m benchmarks.trained mobilenet_v2

The last 2,000 training images are left out, for choices. What was trained is kept in the store, and made only once:
some ten CPU minutes each.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from transformers import ViTConfig, ViTForImageClassification

from benchmarks import networks
from benchmarks.data import folder
from pipeline.core.store import default_store
from pipeline.source.factory import build

TRAIN = "cifar10_jpeg/train_20000.npz"
LEFT_OUT = 2000
"""Training images, the last ones."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BATCH = 64
_SHIFT = 4
_TEACHER = "resnet20"


@dataclass(frozen=True)
class Training:
    """AdamW with a weight decay of 0.05, one cycle up to the learning rate `rate`, images enlarged to `side`."""

    make: Callable[[], nn.Module]
    rate: float
    side: int
    epochs: int


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(pixel_values=x).logits
        return logits


def _vit() -> nn.Module:
    config = ViTConfig(
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=3,
        intermediate_size=768,
        image_size=32,
        patch_size=8,
        num_labels=networks.CLASSES,
    )
    return _Logits(ViTForImageClassification(config))


TRAININGS = {
    "mobilenet_v2": Training(networks.mobilenet_v2_untrained, 2e-3, side=64, epochs=6),
    "mobilenet_v3": Training(networks.mobilenet_v3_untrained, 2e-3, side=64, epochs=10),
    "vit": Training(_vit, 1e-3, side=32, epochs=14),
}


def trained(name: str) -> Path:
    """The weights of a network, or the folder of the vision transformer; trained if they are not there yet."""
    place = default_store() / "trained" / "vit" if name == "vit" else networks.weights_file(name)
    if not place.exists():
        network = _train(TRAININGS[name])
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(network, _Logits):
            _save_folder(network.model, place)
        else:
            save_file({key: value.contiguous() for key, value in network.state_dict().items()}, place)
    return place


def source(name: str) -> str:
    """What `edge export --model` takes for a trained network."""
    place = trained(name)
    return str(place) if place.is_dir() else f"{networks.__file__}:{name}"


def _save_folder(model: nn.Module, place: Path) -> None:
    assert isinstance(model, ViTForImageClassification)  # noqa: S101  # of `_vit`
    model.save_pretrained(place)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": 32, "width": 32},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }
    (place / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")


def _train(how: Training) -> nn.Module:
    torch.manual_seed(0)
    with np.load(folder() / TRAIN) as data:
        images, labels = _normalized(data["x"]), torch.from_numpy(data["y"].astype(np.int64))
    seen = len(images) - LEFT_OUT
    targets = _targets(images, labels)
    network = how.make()
    optimizer = torch.optim.AdamW(network.parameters(), lr=how.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, how.rate, total_steps=how.epochs * (seen // _BATCH), pct_start=0.2
    )
    for epoch in range(how.epochs):
        network.train()
        for rows in torch.randperm(seen)[: seen // _BATCH * _BATCH].split(_BATCH):  # type: ignore[no-untyped-call]
            batch, mirrored = _augmented(images[rows])
            logits = network(_resized(batch, how.side))
            loss = functional.cross_entropy(logits, targets[mirrored.long(), rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        right = _accuracy(network, _resized(images[seen:], how.side), labels[seen:])
        print(f"epoch {epoch + 1} of {how.epochs}: {right:.1f} %, {time.process_time():.0f} s", flush=True)
    return network.eval()


def _targets(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[2, images, classes] for the images and their mirror images: half the label, half what the teacher says."""
    teacher = build(f"{folder() / 'models.py'}:{_TEACHER}").model
    with torch.inference_mode():
        logits = [torch.cat([teacher(part) for part in torch.split(view, 500)]) for view in (images, images.flip(-1))]
    label = functional.one_hot(labels, networks.CLASSES)
    return torch.stack([0.5 * label + 0.5 * (one / 2).softmax(-1) for one in logits]).clone()


def _normalized(x: np.ndarray) -> torch.Tensor:
    values = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (MEAN, STD))
    return (values - mean) / std


def _augmented(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Shifted by up to four pixels, and half of them mirrored; which ones were."""
    mirrored = torch.rand(len(batch)) < 0.5
    padded = functional.pad(torch.where(mirrored.view(-1, 1, 1, 1), batch.flip(-1), batch), [_SHIFT] * 4, "reflect")
    side = batch.shape[-1]
    places = torch.randint(0, 2 * _SHIFT + 1, (len(batch), 2)).tolist()
    cut = [one[:, y : y + side, x : x + side] for one, (y, x) in zip(padded, places, strict=True)]
    return torch.stack(cut), mirrored


def _resized(batch: torch.Tensor, side: int) -> torch.Tensor:
    if batch.shape[-1] != side:
        batch = functional.interpolate(batch, size=(side, side), mode="bilinear")
    return batch.contiguous(memory_format=torch.channels_last)


def _accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    network.eval()
    with torch.inference_mode():
        answers = torch.cat([network(part).argmax(-1) for part in torch.split(images, 250)])
    return float((answers == labels).float().mean() * 100)


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        print(trained(wanted))
