"""A metric that a budget can limit."""

from pipeline.bundle.graph import read_graph
from pipeline.checks.budgets.metric import Metric
from pipeline.checks.measurements import Measurements
from pipeline.core.types import Figure, computed


def count(found: Measurements) -> Figure:
    return computed(len(read_graph(found.case.bundle).graph.node), "nodes")


NODES = Metric(unit="nodes", direction="at most", meaning="nodes of the graph", figure=count)
