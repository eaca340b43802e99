"""A task: the mean state of a text's tokens as a direction."""

from pipeline.tasks.task import Task

MEAN_STATE = Task(
    name="mean-state",
    auto_class="AutoModel",
    data="text",
    calibration="text-en",
    output="last_hidden_state",
    family="direction",
    architecture_suffixes=(),
)
