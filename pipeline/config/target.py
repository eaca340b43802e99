"""A target: a device, its runtime settings and its budgets (`targets/*.toml`)."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, field_validator, model_validator

from pipeline.config.isa import TierName, contradiction
from pipeline.config.socs import unknown
from pipeline.core.budgets import BUDGETS
from pipeline.core.paths import Name
from pipeline.core.types import Evidence, StrictModel

Layout: TypeAlias = Literal["single", "mapped", "both", "transformers.js", "optimum", "sentence-transformers"]
Positive = Annotated[float, Field(gt=0)]
Source = Annotated[str, Field(min_length=8, description="where the figure is from, or `assumption: why`")]


THIS_MACHINE = "host"
"""The runner that is this machine."""
MOST_THREADS, MOST_BATCHED, LONGEST, MOST_SAMPLES = 1024, 65_536, 1_048_576, 100_000
"""Threads, samples of a batch, tokens of a sequence and samples of a tier that can be asked for."""
LONGEST_MEASUREMENT = 3600.0
"""Seconds."""
DISABLED_OPTIMIZERS = "optimization.disable_specified_optimizers"
"""The session config entry that apps in any language can set, where Python alone has a keyword."""


class Cluster(StrictModel):
    """Cores of one kind."""

    core: str
    count: Annotated[int, Field(gt=0)]
    clock_mhz: Annotated[int, Field(gt=0)]


class Device(StrictModel):
    """The hardware. `sources` names the origin of every figure, by its key."""

    soc: str
    clusters: tuple[Cluster, ...] = Field(min_length=1)
    isa: tuple[str, ...] = Field(description="Linux hwcap names: asimd, asimddp (dot product), i8mm, ...")
    memory_mb: Annotated[int, Field(gt=0)]
    bandwidth_gb_s: Positive
    sources: dict[str, Source]

    @model_validator(mode="after")
    def _every_figure_has_a_source(self) -> Device:
        missing = {"soc", "clusters", "isa", "memory_mb", "bandwidth_gb_s"} - set(self.sources)
        if missing:
            raise ValueError(f"no source for {', '.join(sorted(missing))}: add it to [device.sources]")
        return self

    @field_validator("isa")
    @classmethod
    def _of_one_cpu(cls, isa: tuple[str, ...]) -> tuple[str, ...]:
        if why := contradiction(isa):
            raise ValueError(f"no CPU has these features: {why}")
        return isa


class Runtime(StrictModel):
    """How ONNX Runtime is set up on the device. `session_config` are its session configuration entries."""

    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: Annotated[int, Field(gt=0, le=MOST_THREADS)] = 1
    session_config: dict[str, str] = Field(default={})
    disabled_optimizers: tuple[str, ...] = ()
    sources: dict[str, Source] = Field(default={})

    @property
    def session_entries(self) -> dict[str, str]:
        """All session config entries, with the disabled optimizers: what a bundle must carry."""
        given = self.session_config.get(DISABLED_OPTIMIZERS, "")
        disabled = dict.fromkeys([*filter(None, given.split(";")), *self.disabled_optimizers])
        entry = {DISABLED_OPTIMIZERS: ";".join(disabled)} if disabled else {}
        return {**self.session_config, **entry}


class Shape(StrictModel):
    """The input shape that latency and memory are measured at. `context_length`: the most tokens that a language model
    keeps, prompt and answer together."""

    batch_size: Annotated[int, Field(gt=0, le=MOST_BATCHED)] = 1
    sequence_length: Annotated[int, Field(gt=0, le=LONGEST)] = 128
    context_length: Annotated[int, Field(gt=1, le=LONGEST)] = 2048


class Power(StrictModel):
    """What power depends on beside the model. `sources` names the origin of both figures, by their keys.

    Attributes:
        rate_hz: Inferences per second; None for back to back.
        idle_w: What the device draws without the model, in watts; 0 where the budget is of what the model adds.
    """

    rate_hz: Positive | None = None
    idle_w: Annotated[float, Field(ge=0)] = 0.0
    sources: dict[str, Source]

    @model_validator(mode="after")
    def _every_figure_has_a_source(self) -> Power:
        missing = {name for name in ("rate_hz", "idle_w") if getattr(self, name)} - set(self.sources)
        if missing:
            raise ValueError(f"no source for {', '.join(sorted(missing))}: add it to [power.sources]")
        return self


class Npu(StrictModel):
    """The NPUs that a bundle is for: it has its graph compiled for each SoC beside the portable one, which then has
    fixed shapes. `sources`: where it is from that the device has them, by `socs`."""

    socs: Annotated[tuple[str, ...], Field(min_length=1, max_length=16)]
    sources: dict[str, Source]

    @field_validator("socs")
    @classmethod
    def _known(cls, socs: tuple[str, ...]) -> tuple[str, ...]:
        if why := next(filter(None, map(unknown, socs)), ""):
            raise ValueError(why)
        return tuple(dict.fromkeys(socs))

    @model_validator(mode="after")
    def _has_a_source(self) -> Npu:
        if "socs" not in self.sources:
            raise ValueError("no source for socs: add it to [npu.sources]")
        return self


class Costs(StrictModel):
    """What one inference costs on a device, by the kinds of `pipeline/forecast/work.py`: picoseconds of a
    multiply-accumulate (`gathered`: of a value) and of a value that is written, microseconds of a call."""

    pointwise: Positive
    window: Positive
    depthwise: Positive
    gathered: Positive
    floats: Positive
    byte_values: Positive
    float_values: Positive
    byte_calls: Positive
    float_calls: Positive


class Calibration(StrictModel):
    """What `edge devices calibrate` measured on the device: with so many threads, on which machine, when, and under
    which ONNX Runtime (`source`)."""

    threads: Annotated[int, Field(gt=0, le=MOST_THREADS)]
    costs: Costs
    source: Source


class BundleOptions(StrictModel):
    """What the bundle's files look like.

    Attributes:
        layout: `single` has the weights inside each graph's .onnx file, which loads from a path and from bytes (Android
            assets, browsers); `mapped` has them in a file beside it, which ONNX Runtime maps into memory instead of
            reading it; `both` has the second in the folder `mapped/`. The name of a client is `single` under the file
            names and with the config files that this client looks for (`bundle/client_layouts.py`).
    """

    layout: Layout = "single"


class Budget(StrictModel):
    """One limit. Only figures whose evidence is in `evidence` can pass or fail it. `judge`: whether a figure's `value`
    decides, or all of its 95 % `interval` must lie on one side of the limit."""

    limit: Annotated[float, Field(ge=0)]
    required: bool
    judge: Literal["value", "interval"] = "value"
    evidence: tuple[Evidence, ...] = Field(min_length=1)
    source: Source

    @field_validator("limit", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError("a limit must be a number")
        return value


def _known(budgets: dict[str, Budget]) -> dict[str, Budget]:
    for name in budgets:
        BUDGETS.member(name)
    return budgets


Budgets = Annotated[dict[str, Budget], Field(min_length=1), AfterValidator(_known)]


class OfTask(StrictModel):
    """What a target asks of the models of one task, in place of what it asks of others: all of its budgets, and the
    recipe and the shape if they are given."""

    recipe: str | None = None
    shape: Shape | None = None
    budgets: Budgets


class Target(StrictModel):
    """A device profile with budgets, and the recipe that is used when none is named.

    Attributes:
        tasks: What it asks of the models of some tasks, by their names.
        npu: NPUs that it is compiled for ahead of time; None for none.
        power: How often it runs, and what the device draws without it; None for back to back, and nothing.
        calibration: What operators cost there, measured: latency is estimated from it, with the same threads.
        runner: Where latency, memory and the profile are measured (see devices/).
        cpu_tiers: Classes of Arm cores that the bundle also runs on: the runner arm64 checks its answers on each. The
            device's own is always one.
        tier_samples: How many evaluation samples (texts, images) run on each, since emulation is slow.
        measure_seconds: How long each measurement of latency may go on; None for what its command takes by itself.
    """

    name: Name
    title: str
    kind: Literal["phone", "car", "robot", "other"] = "other"
    recipe: str
    device: Device
    runtime: Runtime = Runtime()
    bundle: BundleOptions = BundleOptions()
    shape: Shape = Shape()
    npu: Npu | None = None
    power: Power | None = None
    calibration: Calibration | None = None
    runner: str = THIS_MACHINE
    cpu_tiers: tuple[TierName, ...] = ()
    tier_samples: Annotated[int, Field(gt=0, le=MOST_SAMPLES)] = 32
    measure_seconds: Annotated[float, Field(gt=0, le=LONGEST_MEASUREMENT)] | None = None
    tasks: dict[str, OfTask] = Field(default={})
    budgets: Budgets

    @model_validator(mode="after")
    def _npu_fits(self) -> Target:
        if self.npu is not None and self.shape.batch_size != 1:
            raise ValueError("an NPU's graph has a batch of 1: set batch_size to 1, or remove [npu]")
        if self.npu is not None and self.bundle.layout != "single":
            raise ValueError('an NPU\'s graphs lie beside a single file: set layout to "single", or remove [npu]')
        return self

    def for_task(self, task: str) -> Target:
        """The target as it is for models of a task."""
        own = self.tasks.get(task)
        if own is None:
            return self
        changed = {"budgets": own.budgets, "recipe": own.recipe or self.recipe, "shape": own.shape or self.shape}
        return self.model_copy(update=changed)

    def changed(self, **tables: dict[str, object]) -> Target:
        """With values of some of its tables replaced, as flags say: None leaves what there is. UsageError if they do
        not fit."""
        data = self.model_dump()
        for table, values in tables.items():
            data[table] |= {name: value for name, value in values.items() if value is not None}
        return Target.from_data(data, f"target {self.name} with the flags' changes")
