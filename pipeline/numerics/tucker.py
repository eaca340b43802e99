"""Tucker-2: a convolution's weight as a smaller one between two pointwise ones.

Kim et al., "Compression of deep convolutional neural networks for fast and low power mobile applications"
(arXiv 1511.06530, sec. 3.1): only the two channel modes are decomposed, since kernels are small already.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from pipeline.numerics.low_rank import Double

_ITERATIONS = 100
_TOLERANCE = 1e-6


class Tucker2(NamedTuple):
    """A weight [m, n, h, w] as expand [m, o] x core [o, i, h, w] x reduce [i, n], float64. With o = m or i = n, that
    factor is the identity."""

    expand: Double
    core: Double
    reduce: Double


def whitened(weight: Double, factor: Double) -> Double:
    """`weight` [m, n, h, w] for whitened inputs: times `factor` [n, n] along its inputs.

    With factor @ factor^T the second moments of the input channels, errors of the result are those of the outputs, as
    far as neighbouring pixels are independent: SVD-LLM's whitening (arXiv 2403.07378, sec. 3.2) of a convolution.
    """
    return np.einsum("mnhw,ni->mihw", weight, factor)


def unwhitened(factors: Tucker2, factor: Double) -> Tucker2:
    """Factors of `whitened(weight, factor)` as factors of `weight`; `factor` is lower triangular."""
    core, reduce = factors.core, solve_triangular(factor, factors.reduce.T, lower=True, trans="T").T
    if core.shape[1] < len(factor):
        return factors._replace(reduce=reduce)
    return factors._replace(core=np.einsum("oihw,in->onhw", core, reduce), reduce=np.eye(len(factor)))


def truncation_losses(weight: Double) -> Double:
    """float64 [m + 1, n + 1]: at [o, i] the squared error of `weight` [m, n, h, w] truncated to o output and i input
    directions, those of the largest singular values of its two unfoldings.

    Both bases are orthonormal, so that the error is the energy of the core's cut-off part (De Lathauwer et al., "A
    multilinear singular value decomposition", 2000, sec. 4).
    """
    outputs, inputs = _basis(weight, 0), _basis(weight, 1)
    core = np.einsum("mnhw,mo,ni->oihw", weight, outputs, inputs, optimize=True)
    energy = np.square(core).sum((2, 3))
    kept = np.zeros((energy.shape[0] + 1, energy.shape[1] + 1))
    kept[1:, 1:] = energy.cumsum(0).cumsum(1)
    # a rank above the number of directions that the unfolding has adds nothing
    full = np.pad(kept, [(0, weight.shape[axis] + 1 - kept.shape[axis]) for axis in (0, 1)], mode="edge")
    losses: Double = np.maximum(full[-1, -1] - full, 0.0)
    return losses


def tucker2(weight: Double, out_rank: int, in_rank: int) -> Tucker2:
    """The best factors of these ranks that higher-order orthogonal iteration finds (tensorly's `partial_tucker`), which
    are at least as good as the truncation that it starts from."""
    import tensorly  # noqa: PLC0415  # only convolutions need it
    from tensorly.decomposition import partial_tucker  # noqa: PLC0415

    ranks = {0: out_rank, 1: in_rank}
    modes = [mode for mode, rank in ranks.items() if rank < weight.shape[mode]]
    factors = {mode: np.eye(weight.shape[mode]) for mode in ranks}
    core = weight
    if modes:
        with tensorly.backend_context("numpy"), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # said where one rank is above what the other leaves
            (core, found), _ = partial_tucker(
                weight, [ranks[mode] for mode in modes], modes, _ITERATIONS, tol=_TOLERANCE, random_state=0
            )
        factors |= dict(zip(modes, found, strict=True))
    return Tucker2(factors[0], core, factors[1].T)


def _basis(weight: Double, axis: int) -> Double:
    """Orthonormal columns: the left singular vectors of the unfolding along `axis`."""
    unfolded = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    return np.linalg.svd(unfolded, full_matrices=False)[0]
