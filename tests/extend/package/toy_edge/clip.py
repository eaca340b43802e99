"""A pass: weights of Linear layers beyond some standard deviations are cut off. It looks at no samples."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from pipeline.compress.passes import Needs, PassConfig
from pipeline.core.stage import StageContext, StageMetadata


class Clip(PassConfig):
    """Cuts off the weights of Linear layers. `deviations`: how many standard deviations from 0 they may be."""

    run: ClassVar[str] = "toy_edge.clip:run"
    version: ClassVar[int] = 1

    deviations: Annotated[float, Field(gt=0)] = 3.0

    @property
    def needs(self) -> Needs:
        return Needs(calibration=False)


def run(context: StageContext) -> StageMetadata:
    """Stage function. Writes `edits.json` and `weights.safetensors`."""
    import torch  # here, so that a plan does not wait for it

    from pipeline.compress.pass_run import PassRun

    work = PassRun(context)
    config, model, clipped = Clip.model_validate(work.config), work.model, 0
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                limit = config.deviations * module.weight.std()
                clipped += int((module.weight.abs() > limit).sum())
                module.weight.clamp_(-limit, limit)
    work.save(model, trained=True)
    return work.report("clip", model, None, clipped=clipped)
