"""The typed report: everything a verdict rests on. `report.json` is this record, and the other formats are made
from it."""

from __future__ import annotations

from html import escape
from typing import Literal

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from pipeline.core.digest import canonical_json
from pipeline.core.types import Evidence, Figure, Json, Scheme, StrictModel, Verdict

REPORT_VERSION = 2
COMPARISON_VERSION = 2


class BudgetResult(StrictModel):
    """One budget held against what was measured. `margin` is how far within the limit (negative: beyond it)."""

    metric: str
    unit: str
    direction: Literal["at most", "at least"]
    meaning: str = ""
    limit: float
    required: bool
    accepts: tuple[Evidence, ...]
    verdict: Verdict
    figure: Figure | None = None
    margin: float | None = None
    reason: str = ""
    dominated_by: tuple[str, ...] = ()
    remedy: str = ""


class DatasetAccuracy(StrictModel):
    """How the bundle compares with the float model on one evaluation set. `scores` by metric name (see metrics/);
    `drop` is in points (0-100): metric(float) - metric(bundle) with labels, what `primary` lacks without, with the ends
    of its 95 % confidence interval where it has one. Scores that end in `_batched` were measured in batches of 16,
    others one sample at a time; `batch`: in which the drop is larger, which is the one that counts."""

    dataset: str
    samples: int
    labelled: bool
    primary: str
    scores: dict[str, float]
    drop: float
    low: float | None = None
    high: float | None = None
    batch: int = 1

    def worst(self, score: str) -> float:
        """The lower of a score and the same in batches."""
        return min(value for name, value in self.scores.items() if name in (score, f"{score}_batched"))


class Conditions(StrictModel):
    """What went on beside a timing. `loads`: of the models, each followed by rounds of inferences; `quiet_loads` of
    them were hardly disturbed, and figures are made of those alone unless the machine was `loaded`. `interrupted`:
    share of rounds in which a model was taken off its CPU; `switches`: involuntary context switches. `others`, `steal`:
    shares of the machine's CPU time that other programs and other virtual machines took (null: not told here)."""

    processes: int
    loads: int
    quiet_loads: int
    rounds: int
    interrupted: float
    switches: int
    others: float | None = None
    steal: float | None = None
    loaded: bool


class GraphLatency(StrictModel):
    """Milliseconds of single inferences of one graph of a model that has several, measured by itself."""

    name: str
    shape: dict[str, tuple[int, ...]]
    p50: Figure
    p95: Figure
    speedup: Figure | None = None


class LatencyResult(StrictModel):
    """Milliseconds of single inferences, which took turns with the float model's in the same processes.
    `cpu_speedup`: the speed-up by CPU time, which does not count what other programs took. A model of several graphs
    runs each once, one after the other; `graphs`: each by itself."""

    shape: dict[str, tuple[int, ...]]
    threads: int
    warmup: int
    samples_ms: tuple[float, ...]
    float_samples_ms: tuple[float, ...] = ()
    p50: Figure
    p90: Figure
    p95: Figure
    p99: Figure
    speedup: Figure | None = None
    cpu_speedup: float | None = None
    conditions: Conditions | None = None
    graphs: tuple[GraphLatency, ...] = ()


class FitResult(StrictModel):
    """Whether the bundle loads and runs where it may take `limit_mb` over the process before. `how` that was found: a
    control group of Linux, which ends what takes more; or where none can be made (`reason`) the peak of its anonymous
    memory, since what is file-backed can be given back. `needs_mb`: the least of the larger limits tried that it keeps
    within, where it does not fit; null if it keeps within none."""

    limit_mb: float
    fits: bool
    how: str
    reason: str = ""
    needs_mb: float | None = None


class MemoryResult(StrictModel):
    """MB (10^6 bytes) over the process before the session was made. Where the system does not tell the peaks they are
    null, and `reason` says why; so is `load_ms` where the runner's times say nothing. `how`: what kind of peaks they
    are. The parts of each, anonymous and file-backed, are of the most that was seen, looking every millisecond."""

    load_ms: Figure | None
    load_peak_mb: Figure | None
    run_peak_mb: Figure | None
    load_anonymous_mb: Figure | None = None
    load_file_mb: Figure | None = None
    run_anonymous_mb: Figure | None = None
    run_file_mb: Figure | None = None
    how: str = ""
    reason: str = ""
    fit: FitResult | None = None


class ReadTime(StrictModel):
    """The time until a language model has read a prompt of so many tokens and given the first one of its answer."""

    tokens: int
    p50: Figure
    p95: Figure


class DecodingResult(StrictModel):
    """How fast a language model is. `prompts`: by their length; `rates`: tokens per second by the number of tokens of
    the text with the new one; `cache_bytes_per_token`: of keys and values."""

    prompts: tuple[ReadTime, ...]
    rates: dict[int, Figure]
    cache_bytes_per_token: int


class WrittenTexts(StrictModel):
    """What a language model writes behind the beginnings of evaluation texts, beside the float model. `texts`, each of
    `tokens`; `same`: share of a text before it first differs from float's; `first_difference`: the token where that is,
    median of the texts that differ; `repeated`, `repeated_float`: shares of sequences of four tokens that the text has
    had before; `interval`: half of the 95 % confidence interval of their difference over the choice of texts, None for
    one text, which has no spread."""

    texts: int
    tokens: int
    same: float
    first_difference: int | None
    repeated: float
    repeated_float: float
    interval: float | None


class ExactMatch(StrictModel):
    """Problems of an evaluation set that a language model solves by writing, beside the float model. `given`: problems
    of the set; `problems`: how many were asked, spread evenly over it; `too_long`: left out, since the context has no
    room for them; `right`, `right_float`: how many each solves; `lost`: solved by the float model alone; `low`, `high`:
    95 % confidence interval of the drop over the choice of problems, points; `chat`: whether questions were asked as
    the chat template says; `reason`: why none were asked."""

    dataset: str
    given: int
    problems: int
    too_long: int
    right: int
    right_float: int
    lost: int
    low: float
    high: float
    chat: bool
    reason: str = Field(default="", exclude_if=lambda reason: not reason)

    @property
    def drop(self) -> float:
        """Points of a hundred problems that fewer are solved than in float."""
        return 100.0 * (self.right_float - self.right) / self.problems if self.problems else 0.0


class OperatorTime(StrictModel):
    """Time of all nodes of one operator type in the graph that ONNX Runtime executed, per inference."""

    op_type: str
    count: int
    ms: float
    share: float


class TensorGroup(StrictModel):
    """Bytes of the bundle's stored tensors, summed over one module of the model."""

    name: str
    dtype: str
    megabytes: float
    share: float


class SkippedTensor(StrictModel):
    """A weight that the scheme left in float, and why."""

    name: str
    op_type: str
    megabytes: float
    reason: str


class TensorFormat(StrictModel):
    """How one weight is stored. `node`: the first that reads it, as `op`: the factor of a product, a table, or a
    convolution's kernel; `override`: the pattern of the scheme's overrides that chose the format, empty if none did;
    `given`: whether its codes are those of a checkpoint that is quantized already."""

    name: str
    node: str
    op: Literal["linear", "table", "conv", "lstm", "other"]
    format: str
    override: str = ""
    megabytes: float
    given: bool = Field(default=False, exclude_if=lambda given: not given)


class OutputError(StrictModel):
    """How far one output of the quantized graph is from the float graph's. `sqnr_db` is within +-300, which stand for
    identical and for not finite; `max_error_in_std` is `max_error` over the float output's standard deviation.
    `agreement`: of integers and booleans, the share of equal values; `sqnr_db` is then of all values to those that
    differ. `reshaped`: samples on which it has another shape than float's, of which all counts as lost."""

    name: str
    finite: bool
    sqnr_db: float
    max_error: float
    max_error_in_std: float
    agreement: float | None = None
    reshaped: int = 0


class Drift(StrictModel):
    """How the error of a streaming model grows over `sequences` of up to `longest` steps, each graph fed with its own
    states: the SQNR of the judged rows in the first and in the last quarter of the steps."""

    sequences: int
    longest: int
    first_db: float
    last_db: float


class QuantizationCheck(StrictModel):
    """The quantized graph against the float graph it was made from, on up to 64 samples, or on whole sequences. `data`:
    which ones; `scores`: the fidelity of the kind of output (see tasks/), empty if there are too few samples for it;
    `drift`: of streaming models."""

    data: Literal["calibration", "evaluation"]
    samples: int
    outputs: tuple[OutputError, ...]
    scores: dict[str, float] = Field(default={})
    drift: Drift | None = None


class RangeCheck(StrictModel):
    """What calibration did not see of the evaluation data, in the float graph on the first `samples` of it. All are
    shares: of the samples, those with any value outside a calibrated range, and those with inputs in a channel that was
    zero in calibration (`never_seen_channels`: how many there are); of the values, those outside, over all `tensors`
    with a calibrated range, and in the worst of them."""

    samples: int
    tensors: int
    samples_outside: float = 0.0
    values_outside: float = 0.0
    worst_tensor: str = ""
    worst_outside: float = 0.0
    never_seen_channels: int = 0
    samples_never_seen: float = 0.0


class Coverage(StrictModel):
    """What runs in INT8/INT4, counted in the graph that ONNX Runtime executes after its own optimization.

    `weights`: share of weight values stored in 8 bits or fewer (what `min_weight_coverage` means: a float value is
    not made to count four times). `weight_bytes`: the same share of stored bytes. `macs`: share of multiply-accumulates
    with a weight operand whose weight is stored so. `integer_macs`: share of all multiply-accumulates, attention's
    own products too, that integer kernels compute. `quantized_products`: how many there are in one inference whose
    weight is stored so or that integer kernels compute.
    """

    weights: Figure
    weight_bytes: Figure | None = None
    macs: Figure
    integer_macs: Figure
    quantized_products: float = 0.0
    left_in_float: tuple[SkippedTensor, ...] = ()


class SaturatingLayer(StrictModel):
    """An 8-bit product of which a share of the neighbouring weights can overflow."""

    name: str
    op_type: str
    share: float


class Overflow(StrictModel):
    """Neighbouring INT8 weights of all 8-bit products, and how many can overflow 16 bits where x86 has no VNNI; the
    layers in question, worst first."""

    pairs: int
    overflowing: int
    layers: tuple[SaturatingLayer, ...] = ()


class Trial(StrictModel):
    """One point of the accuracy-versus-size plot. `origin`: float, this run, an earlier run, or a search step."""

    label: str
    origin: Literal["float", "this run", "earlier run", "search"]
    megabytes: float
    accuracy: float = Field(description="100 - drop on the worst data set, in points")


class StageRecord(StrictModel):
    name: str
    key: str
    cached: bool
    seconds: float


class HostInfo(StrictModel):
    """A machine, and its ONNX Runtime. `reason`: why `isa` is empty, where the system does not tell it."""

    cpu: str
    isa: tuple[str, ...]
    cores: int
    memory_mb: int
    system: str
    reason: str = ""
    onnxruntime: str = ""


class Difference(StrictModel):
    """A plain scheme against the recipe on one axis, positive where it is worse: `value`, its 95 % interval if it has
    one, and whether that is more than `margin` and its noise. `unit`: % of the recipe's, points, or share."""

    axis: str
    unit: str
    value: float
    low: float | None = None
    high: float | None = None
    margin: float
    outcome: Literal["better", "same", "worse"]


class Candidate(StrictModel):
    """One bundle of a comparison. `megabytes`: the model's files. `fidelity`: the lowest of the sets' scores named
    `fidelity_name`. `on_pareto_front`: no other candidate is better in one respect and as good in all others.
    `against`: its differences from the recipe; `incomparable_reason`: why it cannot be compared with it."""

    label: str
    kind: Literal["recipe", "plain", "float"]
    scheme: str
    megabytes: float
    latency: Figure | None = None
    speedup: Figure | None = None
    drop: float | None = None
    fidelity: float | None = None
    accuracy: tuple[DatasetAccuracy, ...] = ()
    on_pareto_front: bool = False
    dominates: bool = False
    against: tuple[Difference, ...] = ()
    incomparable_reason: str = ""


class Refusal(StrictModel):
    """A plain scheme that is not among the candidates, and why."""

    label: str
    reason: str


class Comparison(StrictModel):
    """A recipe's bundle beside plain quantization of the same model, all measured in one run.

    `same_bytes`, `same_latency`: labels of the plain schemes nearest to the recipe that are no bigger or no slower,
    empty if there is none. `dominated_by`: those that are as good in every respect and better in one.
    """

    version: int = COMPARISON_VERSION
    model: str
    model_digest: str
    task: str
    target: str
    recipe: str
    passes: tuple[str, ...]
    bundle_digest: str
    fidelity_name: str
    candidates: tuple[Candidate, ...]
    refused: tuple[Refusal, ...] = ()
    same_bytes: str = ""
    same_latency: str = ""
    dominated_by: tuple[str, ...] = ()
    runs: int
    threads: int
    host: HostInfo
    versions: dict[str, str]


class PassScore(StrictModel):
    """A model on calibration samples, as a pass judges it: beside the model before all passes, and with rounded weights
    where the pass looks at the scheme."""

    megabytes: float
    drop: float
    scores: dict[str, float]


class Skipped(StrictModel):
    """A layer or weight that a pass could have changed and left as it was. `size`: its units or values, where the pass
    counts them."""

    name: str
    reason: str
    size: int | None = Field(default=None, exclude_if=lambda size: size is None)


class PassReport(StrictModel):
    """What a compression pass did. Further fields are the pass's own, such as `neurons_before`; what was not given is
    not in the JSON.

    `layers`: a row per layer that was changed, with the columns of the pass; `skipped`: the others that it could have
    changed; `tried`: what a search judged; `curve` and `held_out`: a training's losses and scores, with the `step` of
    each; `config`: what the changed model's config now says.
    """

    model_config = ConfigDict(extra="allow", validate_by_name=True, serialize_by_alias=True)

    name: str = Field(alias="pass")
    parameters_before: int
    parameters_after: int
    macs_before: int | None = None
    macs_after: int | None = None
    metric_before: PassScore | None = None
    metric_after: PassScore | None = None
    layers: tuple[dict[str, Json], ...] = ()
    skipped: tuple[Skipped, ...] = ()
    tried: tuple[dict[str, Json], ...] = ()
    curve: tuple[dict[str, int | float], ...] = ()
    held_out: tuple[dict[str, int | float], ...] = ()
    config: dict[str, Json] = Field(default={})
    notes: tuple[str, ...] = ()

    @property
    def own(self) -> dict[str, Json]:
        """What only this pass says."""
        return self.model_extra or {}

    @model_serializer(mode="wrap")
    def _given(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Json]:
        known = {name if field.alias is None else field.alias: name for name, field in type(self).model_fields.items()}
        return {key: value for key, value in serialize(self).items() if known.get(key, key) in self.model_fields_set}


class TierAccuracy(StrictModel):
    """One evaluation set on a CPU tier: `samples` of its `whole` ran there. `drop` in points against the float model,
    as in `DatasetAccuracy`, and `host_drop` of the same samples on this machine; `same`: whether both gave the same
    answers; `sqnr_db`: this machine's answers over what the tier's differ from them by, within +-300."""

    dataset: str
    samples: int
    whole: int
    primary: str
    drop: float
    host_drop: float
    same: bool
    sqnr_db: float


class InstructionCounts(StrictModel):
    """A64 instructions of one inference, and those of some classes: dot products of 128 and of 64 bits (`dot`,
    `dot_half`), integer matrix products (`mmla`), integer multiplications that are no dot products (`mlal`), float
    multiply-accumulates (`fmla`), those of bfloat16, loads and stores. Instructions are not latency."""

    total: int
    dot: int
    dot_half: int
    mmla: int
    mlal: int
    fmla: int
    bf16: int
    load: int
    store: int

    @property
    def dot_macs(self) -> int:
        """Multiply-accumulates that dot-product and matrix instructions did (16, 8 and 32 each)."""
        return 16 * self.dot + 8 * self.dot_half + 32 * self.mmla


class TierCheck(StrictModel):
    """A bundle's answers on one class of CPUs. `golden`: its golden inputs, of which `matched` give their outputs;
    `difference`: the largest, as a share of the largest value (null: not finite), of which `tolerance` is allowed.
    `failure`: why nothing ran. `counts`: instructions of one inference at the target's shape, and `float_counts` of the
    float model's; `uncounted`: why there are none."""

    tier: str
    cpu: str
    isa: tuple[str, ...]
    evidence: Evidence
    golden: int = 0
    matched: int = 0
    difference: float | None = 0.0
    tolerance: float = 0.0
    accuracy: tuple[TierAccuracy, ...] = ()
    failure: str = ""
    counts: InstructionCounts | None = None
    float_counts: InstructionCounts | None = None
    uncounted: str = ""


class ProviderCoverage(StrictModel):
    """What one execution provider takes of a graph.

    Attributes:
        parts: Pieces that it runs, with the CPU's between them.
        weights: The share of weight values whose operators it takes.
        products: The share of multiply-accumulates; None where shapes are not known.
        crossing_mb: What is copied between it and the CPU for an inference.
        left: Operators that stay on the CPU, with how many.
        needs: What the graph lacks of what it needs.
        source: What lists its operators.
        compiled: What really compiled the graph, where that was tried: then that counts, and not the list.
    """

    provider: str
    title: str
    nodes: int
    taken: int
    parts: int
    weights: float
    products: float | None
    crossing_mb: float
    left: dict[str, int]
    needs: str
    source: str
    compiled: str = ""


class NpuGraph(StrictModel):
    """The graph compiled for the NPU of a SoC. `operators`: of the portable graph, roundings not counted; `parts`:
    pieces that the NPU runs; `left`: operators that stay on the CPU between them, with how many."""

    soc: str
    title: str
    operators: int
    parts: int
    left: dict[str, int]

    @property
    def covered(self) -> float:
        """The share of the operators that the NPU runs."""
        return max(0.0, 1 - sum(self.left.values()) / self.operators) if self.operators else 0.0


class Measured(StrictModel):
    """What was measured of a bundle: the part of a report that figures are made of."""

    accuracy: tuple[DatasetAccuracy, ...] = ()
    latency: LatencyResult | None = None
    previous_speed: Figure | None = None
    memory: MemoryResult | None = None
    decoding: DecodingResult | None = None
    operators: tuple[OperatorTime, ...] = ()
    float_operators: tuple[OperatorTime, ...] = ()
    tensors: tuple[TensorGroup, ...] = ()
    coverage: Coverage | None = None
    overflow: Overflow | None = None
    quantization: QuantizationCheck | None = None
    ranges: RangeCheck | None = None
    texts: WrittenTexts | None = None
    exact_match: tuple[ExactMatch, ...] = Field(default=(), exclude_if=lambda found: not found)
    tiers: tuple[TierCheck, ...] = ()
    npu: tuple[NpuGraph, ...] = ()
    providers: tuple[ProviderCoverage, ...] = ()


class Report(Measured):
    """The verdict and its evidence. `notes` are said in plain words to every reader (random calibration, a CPU
    that may saturate, a rebuilt store entry, ...)."""

    version: int = REPORT_VERSION
    model: str
    model_digest: str
    task: str
    target: str
    target_title: str
    recipe: str
    scheme: Scheme
    verdict: Verdict
    exit_code: int
    budgets: tuple[BudgetResult, ...]
    figures: dict[str, Figure]
    formats: tuple[TensorFormat, ...] = ()
    trials: tuple[Trial, ...] = ()
    calibration: dict[str, Json] = Field(default={})
    passes: tuple[PassReport, ...] = ()
    stages: tuple[StageRecord, ...] = ()
    host: HostInfo
    versions: dict[str, str]
    bundle_digest: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = Field(default=(), description="said beside the verdict, which they do not change")
    comparison: Comparison | None = None

    def __repr__(self) -> str:
        held = sum(result.verdict is Verdict.PASS for result in self.budgets)
        about = f"{self.model} on {self.target}, recipe {self.recipe}"
        return f"Report({self.verdict}: {about}; {held} of {len(self.budgets)} budgets held)"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """What a notebook shows: the line of `repr`, and a row per budget."""
        rows = [
            (
                result.metric,
                f"{result.figure.value:.4g}" if result.figure else "-",
                f"{result.direction} {result.limit:g} {result.unit}",
                str(result.verdict),
            )
            for result in self.budgets
        ]
        cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
        head = "".join(f"<th>{name}</th>" for name in ("budget", "figure", "limit", "verdict"))
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"<p>{escape(repr(self))}</p><table><tr>{head}</tr>{body}</table>"

    def in_file_order(self) -> Report:
        """With all mappings sorted as in report.json, so that a report read back is shown alike."""
        return Report.model_validate_json(canonical_json(self.model_dump(mode="json")))

    def other_figures(self) -> dict[str, Figure]:
        """What was measured and has no budget, by the name that a budget would have."""
        named: dict[str, Figure] = {}
        if self.latency:
            named |= {f"latency_{key}_ms": getattr(self.latency, key) for key in ("p50", "p90", "p95", "p99")}
        if self.latency and self.latency.speedup:
            named["min_speedup"] = self.latency.speedup
        named |= {name: figure for name, figure in self.memory or () if isinstance(figure, Figure)}
        if self.decoding:
            named |= {f"ttft_p50_ms of {read.tokens} tokens": read.p50 for read in self.decoding.prompts}
            named |= {f"tokens_per_s at {tokens} tokens": rate for tokens, rate in self.decoding.rates.items()}
        shown = {result.metric for result in self.budgets if result.figure}
        return {name: figure for name, figure in (named | self.figures).items() if name not in shown}
