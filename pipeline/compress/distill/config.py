"""The `distill` pass: train the model to match a teacher. After prune or low_rank it is what recovers accuracy."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from pipeline.compress import LOSSES
from pipeline.compress.passes import Needs, PassConfig, TrainingNeeds
from pipeline.core.errors import UsageError
from pipeline.tasks.registry import OUTPUTS

_INSIDE = ("features", "attention")
"""What losses need that look inside the models."""


class Distill(PassConfig):
    """Train the model as compressed so far to match `teacher`: any model source of the same task, `trained` for the
    model as the distill pass before this one left it (tune on your labels, compress, recover), or by default the model
    before all passes.

    `data`: data sets to train on, labelled or not (`--training-data` overrides them; without either, the calibration
    set); `samples`: how many of each set, all if not given. `held_out`: the share of them kept for judging, at most
    512. `losses`: name -> weight; by default what suits the task. `temperature`: of soft labels.
    `layers`: which teacher blocks the student's match: spread `uniform`ly, the `last` ones, after pruning blocks the
    last that each of the `kept` ones stands for, or their indices (from 0), one per student block. `cache_teacher`:
    record the teacher's outputs on all samples first, once for all recipes that train on them; for losses on outputs,
    without augmentation. `freeze`: name patterns of parameters that keep their values.

    Length: `epochs` over the data, or `steps` of `batch_size` samples (over all processes), `accumulate` of them per
    update. AdamW with `weight_decay`, `learning_rate` after a linear warm-up over the share `warmup` of all steps,
    then a cosine to zero; gradients clipped to `max_grad_norm`. `precision`: `bf16` or `fp16` autocast. Dropout is
    off: the teacher is to be matched exactly. `batch_norm`: statistics stay `frozen`, or follow the data (`train`).
    `augment`: `flip_shift` mirrors images at random and moves them by up to an eighth.

    Every `evaluate_every` steps (a tenth of all, if not given) the held-out samples are judged; the best weights are
    kept, and training ends after `patience` judgements without a better one. Every `checkpoint_every` steps the
    state is saved: a killed run goes on there, to the same result. `judge_samples`:
    calibration samples for the metric before and after.
    """

    run: ClassVar[str] = "pipeline.compress.distill.run:run"
    version: ClassVar[int] = 2
    local: ClassVar[frozenset[str]] = frozenset({"data", "teacher"})
    libraries: ClassVar[tuple[str, ...]] = ("accelerate",)

    teacher: str | None = None
    data: tuple[str, ...] = ()
    samples: Annotated[int, Field(gt=0)] | None = None
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.02
    losses: dict[str, Annotated[float, Field(gt=0)]] = Field(default={})
    temperature: Annotated[float, Field(gt=0)] = 2.0
    layers: Literal["uniform", "last", "kept"] | tuple[Annotated[int, Field(ge=0)], ...] = "uniform"
    cache_teacher: bool = False
    freeze: tuple[str, ...] = ()
    epochs: Annotated[float, Field(gt=0)] = 1.0
    steps: Annotated[int, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(gt=1)] = 64
    accumulate: Annotated[int, Field(gt=0)] = 1
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    batch_norm: Literal["frozen", "train"] = "frozen"
    augment: Literal["none", "flip_shift"] = "none"
    evaluate_every: Annotated[int, Field(gt=0)] | None = None
    patience: Annotated[int, Field(gt=0)] | None = None
    checkpoint_every: Annotated[int, Field(gt=0)] = 200
    judge_samples: Annotated[int, Field(ge=16)] = 256
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def needs(self) -> Needs:
        training = TrainingNeeds(self.data, self.samples, self.teacher, self.cache_teacher)
        return Needs(hardware=True, training=training)

    @property
    def packages(self) -> tuple[str, ...]:
        return LOSSES.packages(*self.losses)

    def check(self, family: str, where: str) -> None:
        reason = _uncacheable(self, family) if self.cache_teacher else ""
        if reason:
            raise UsageError(
                f"{where} has cache_teacher = true, but {reason}.",
                "Remove cache_teacher, or use losses on outputs and no augmentation.",
            )

    @field_validator("losses")
    @classmethod
    def _registered(cls, losses: dict[str, float]) -> dict[str, float]:
        for name in losses:
            LOSSES.member(name)
        return losses


def _uncacheable(config: Distill, family: str) -> str:
    """Why a training needs more of its teacher than one output per sample; empty if it does not."""
    kind = OUTPUTS.get(family)
    if kind.per_token or kind.self_labelled:
        return "judges single tokens"
    if kind.whole or kind.places:
        return f"judges {kind.words}, which are made of several outputs"
    if config.augment != "none":
        return "augments images, which the teacher has to see as well"
    inside = [name for name in config.losses if LOSSES.get(name).needs in _INSIDE]
    if inside:
        return f"uses {inside[0]}, which looks inside the teacher"
    if not config.losses and any(LOSSES.get(name).needs in _INSIDE for name in kind.losses):
        return f"names no losses, and those for {kind.words} look inside the teacher"
    return ""
