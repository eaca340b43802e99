"""A unit of prune: the neurons of the last feed-forward block alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from pipeline.compress.prune.units import UnitKind
from pipeline.compress.prune.units_ffn import FeedForward, feed_forwards


def last_feed_forward(model: nn.Module) -> Sequence[FeedForward]:
    return feed_forwards(model)[-1:]


LAST_FFN = UnitKind("neurons", "last feed-forward block", 8, last_feed_forward)
