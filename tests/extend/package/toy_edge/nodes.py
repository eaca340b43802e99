"""A metric that a budget can limit."""

from pipeline.bundle.graph import read_graphs
from pipeline.checks.budgets.metric import Metric
from pipeline.checks.measurements import Measurements
from pipeline.core.types import Figure, computed


def count(found: Measurements) -> Figure:
    return computed(sum(len(model.graph.node) for model in read_graphs(found.case.bundle).values()), "nodes")


NODES = Metric(unit="nodes", direction="at most", meaning="nodes of the graph", figure=count)
