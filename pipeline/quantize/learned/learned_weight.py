"""A weight whose codes and scales can be trained: rounding has the gradient of the identity (Bengio et al., arXiv
1308.3432), as in EfficientQAT (Chen et al., arXiv 2407.11062, sec. 3.2) and AutoRound (Cheng et al., arXiv
2309.05516, eq. 3)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.numerics.affine import Bytes, Float
from pipeline.numerics.blocks import BlockFormat, Grid, nonzero_scales, split_blocks


class LearnedWeight:
    """`latent`: float32 [rows, blocks, size], the weight in steps of its block's scale, which is rounded to codes;
    `stretch`: float32 [rows, blocks, 1], by which share the scale is larger than the one that training began with.
    Both in units of their own, so that one learning rate fits all weights. Zero points stay as they are: a step of one
    moves all codes of its block, and training them has not helped.
    """

    def __init__(self, rows: Float, form: BlockFormat, grid: Grid) -> None:
        self._form, self._columns = form, rows.shape[1]
        scale = grid.scale[..., None]
        self._scale, self._zero = torch.from_numpy(scale), torch.from_numpy(grid.shift[..., None])
        self.latent = torch.from_numpy(split_blocks(rows, form.size) / nonzero_scales(scale))
        self.stretch = torch.zeros_like(self._scale)
        self._fixed: Tensor | None = None

    def weight(self) -> Tensor:
        """float32 [rows, columns] as it is stored now, with gradients to what is trained."""
        steps = self._steps() if self._fixed is None else self._fixed
        values = steps * (self._scale * (1 + self.stretch))
        return values.flatten(1)[:, : self._columns]

    def fix_codes(self) -> None:
        """From now on only scales change."""
        with torch.no_grad():
            self._fixed = self._steps()
        self.latent = torch.empty(0)

    def decided(self) -> tuple[Bytes, Grid]:
        """Codes uint8 [rows, blocks, size], and the grid [rows, blocks] with scales that the format can hold."""
        with torch.no_grad():
            steps = self._steps() if self._fixed is None else self._fixed
            codes = (steps + self._zero).to(torch.uint8).numpy()
            scale = (self._scale * (1 + self.stretch))[..., 0].numpy()
        kept = scale.astype(np.float16).astype(np.float32) if self._form.scale_bits == 16 else scale
        return codes, Grid(kept, self._zero[..., 0].to(torch.uint8).numpy())

    def _steps(self) -> Tensor:
        """Codes less the zero point: whole numbers, whose gradient ends where the codes do."""
        rounded = self.latent + (self.latent.round() - self.latent).detach()
        return torch.clamp(rounded, -self._zero, self._form.largest - self._zero)
