"""A pass: weights of Linear layers beyond some standard deviations are cut off. It looks at no samples."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from pipeline.compress.passes import Needs, PassConfig, pass_report
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

    from pipeline.compress.compressed_model import load_compressed, save_compressed
    from pipeline.compress.prune.units import parameters

    config = Clip.model_validate(context.config["pass"])
    earlier = load_compressed(context.model, context.inputs)
    clipped = 0
    with torch.no_grad():
        for module in earlier.model.modules():
            if isinstance(module, torch.nn.Linear):
                limit = config.deviations * module.weight.std()
                clipped += int((module.weight.abs() > limit).sum())
                module.weight.clamp_(-limit, limit)
    save_compressed(context.out, earlier.model, earlier.edits, trained=True)
    count = parameters(earlier.model)
    return pass_report("clip", parameters_before=count, parameters_after=count, clipped=clipped)
