"""The stages of a recipe's compression passes: each gets what its config says that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from pipeline.compress import CALIBRATION, PASSES, PREVIOUS_CALIBRATION, PREVIOUS_PASS, SOURCE_CALIBRATION, find_pass
from pipeline.compress.passes import Needs, PassConfig, TrainingNeeds, VocabularyNeeds
from pipeline.core.errors import UsageError
from pipeline.core.stage import Stage
from pipeline.core.types import Scheme
from pipeline.data.datasets import Dataset, load_training
from pipeline.data.encode import TOKENIZER
from pipeline.devices.host_info import training_hardware
from pipeline.formats.scheme import SchemeFormats
from pipeline.plan.samples import TEXT, Reading
from pipeline.plan.training import Training
from pipeline.quantize.schemes import describe
from pipeline.runtime.behaviour import PROBE
from pipeline.tasks.registry import OUTPUTS, accuracy_budgets

PASS_LIBRARIES = ("torch", "transformers", "numpy")


class _Pass(NamedTuple):
    """One pass of the recipe. `where`: how messages call it; `packages`: the installed ones that it is made with."""

    number: int
    name: str
    where: str
    config: PassConfig
    packages: tuple[str, ...]


class Passes:
    """Plans the passes of one export, in order.

    `stages` gives them once, and leaves what comes after the last of them: `compressed`, the stage whose model is
    exported; `tokenizer`, the stage that made its tokenizer anew; `packages`, the installed packages whose code is
    needed to load the model. UsageError for a mistake in a pass, or a model that cannot have any.
    """

    def __init__(self, reading: Reading, scheme: Scheme) -> None:
        source, recipe = reading.source, reading.recipe
        if recipe.passes and source.kind == "onnx":
            raise UsageError(
                f"The recipe {recipe.name!r} has compression passes, which need a PyTorch model; {source.name!r} is an "
                "ONNX file.",
                "Use a recipe without passes, or give the PyTorch model.",
            )
        if recipe.passes and source.decoder is not None:
            raise UsageError(
                f"The recipe {recipe.name!r} has compression passes, which take models with one graph; {source.name!r} "
                "has an encoder and a decoder.",
                "Use a recipe without passes (`edge recipes` lists them).",
            )
        what = "compression passes" if recipe.passes else SchemeFormats(scheme).changed_by
        if source.coded and what:
            raise UsageError(
                f"The recipe {recipe.name!r} has {what}, which would change the weights of {source.name!r}: its "
                "checkpoint is quantized already, and these codes could not be kept.",
                "Use a recipe without passes and smoothing, or give the float checkpoint that it was made from.",
            )
        self.source, self.scheme, self.reading = source, scheme, reading
        self.compressed: str | None = None
        self.tokenizer: str | None = None
        self.packages: tuple[str, ...] = ()
        self._training = Training(reading)
        self._passes = [_read(number, table, recipe.name) for number, table in enumerate(recipe.passes)]

    @property
    def traced(self) -> str:
        """The stage with the float graph of what they leave."""
        return "trace" if self.compressed else "trace.float"

    @property
    def need_calibration(self) -> bool:
        return any(step.config.needs.calibration for step in self._passes)

    @property
    def notes(self) -> list[str]:
        return self._training.notes

    def stages(self) -> list[Stage]:
        return [stage for step in self._passes for stage in self._stages(step)]

    def _stages(self, step: _Pass) -> list[Stage]:
        """The stage of a pass after those that make what it needs."""
        config, needs = step.config, step.config.needs
        config.check(self.reading.family(), step.where)
        earlier = {role: stage.name for role, stage in self.reading.stages.items()}
        before = self._trim(step, needs.vocabulary) if needs.vocabulary else []
        inputs = self._inputs(needs, earlier)
        self.compressed = f"compress.{step.number}.{step.name}"
        self.packages += step.packages
        libraries = (*PASS_LIBRARIES, *config.libraries, *self.packages)
        values, models = self._values(config), self.reading.models()
        stage = Stage(self.compressed, config.version, config.run, values, inputs, libraries, models=models)
        return [*before, *(self._trained(step, stage, needs.training) if needs.training else [stage])]

    def _inputs(self, needs: Needs, earlier: Mapping[str, str]) -> dict[str, str]:
        """`earlier`: the stages of the samples, by role, as the model takes them that this pass changes."""
        inputs = {PREVIOUS_PASS: self.compressed} if self.compressed else {}
        inputs |= {TOKENIZER: self.tokenizer} if self.tokenizer else {}
        if not needs.calibration:
            return inputs
        inputs |= {CALIBRATION: self.reading.stages["calibration"].name, PROBE: PROBE}
        inputs |= {SOURCE_CALIBRATION: "samples.calibration"} if self.tokenizer else {}
        return inputs | ({PREVIOUS_CALIBRATION: earlier["calibration"]} if needs.vocabulary else {})

    def _values(self, config: PassConfig) -> dict[str, Any]:
        needs = config.needs
        budgets = self.reading.target.budgets
        limits = {name: budgets[name].limit for name in accuracy_budgets() if name in budgets}
        return {
            "pass": config.model_dump(mode="json", exclude=set(config.local)),
            "scheme": describe(self.scheme if needs.scheme else Scheme(name="fp32")),
            "limits": limits if needs.limits else {},
            **({"hardware": training_hardware()} if needs.hardware else {}),
        }

    def _trained(self, step: _Pass, stage: Stage, needs: TrainingNeeds) -> list[Stage]:
        if self.tokenizer:
            raise UsageError(
                f"{step.where} trains against a teacher that takes other tokens than the trimmed vocabulary has.",
                f"Put the {step.name} pass before the one that trims the vocabulary.",
            )
        return self._training.stages(step.number, stage, needs)

    def _trim(self, step: _Pass, needs: VocabularyNeeds) -> list[Stage]:
        """The trimmed tokenizer, and all samples cut anew with it for what follows. The float model keeps its own."""
        where, number = step.where, step.number
        kind = OUTPUTS.get(self.source.task.family)
        if self.source.task.data != "text" or kind.per_token or kind.self_labelled:
            reason = "judges single tokens" if self.source.task.data == "text" else f"takes {self.source.task.data}"
            raise UsageError(f"{where} trims a vocabulary; {self.source.task.name} {reason}.", "Remove the pass.")
        if self.reading.raw:
            raise UsageError(
                f"{where} trims the vocabulary, so that texts become other tokens; "
                f"{self.reading.raw[0]!r} has no texts.",
                "Give texts with --calibration-data and --eval-data.",
            )
        sets = [load_training(spec, None) for spec in needs.data]
        _require_texts(sets, where)
        values = {
            "datasets": [dataset.digest for dataset in sets],
            "min_count": needs.min_count,
            "keep_tokens": needs.keep_tokens,
        }
        inputs = {TOKENIZER: self.tokenizer} if self.tokenizer else {}
        local = {"data": list(needs.data)}
        self.tokenizer = f"vocabulary.{number}"
        self.reading.stages = {
            role: replace(stage, name=f"samples.{role}.{number}", inputs={TOKENIZER: self.tokenizer})
            for role, stage in self.reading.stages.items()
        }
        run = "pipeline.compress.prune.tokens.trim_tokenizer:run"
        stage = Stage(self.tokenizer, 1, run, values, inputs, TEXT, local, self.reading.models())
        return [stage, *self.reading.stages.values()]


def _read(number: int, table: dict[str, Any], recipe: str) -> _Pass:
    """The pass of a recipe's table, with its config checked."""
    where = f"pass {number + 1} of recipe {recipe}"
    if "pass" not in table:
        raise UsageError(f"{where} does not say which pass it is.", f"Add `pass = ...`: {', '.join(PASSES)}.")
    kind, packages = find_pass(table)
    config = kind.from_data({key: value for key, value in table.items() if key != "pass"}, where)
    return _Pass(number, table["pass"], where, config, (*packages, *config.packages))


def _require_texts(sets: list[Dataset], where: str) -> None:
    """UsageError if a corpus holds anything else."""
    for dataset in sets:
        if dataset.kind not in ("text", "words", "questions"):
            raise UsageError(
                f"{where}: the data set {dataset.name!r} holds {dataset.kind} samples; tokens are counted in texts.",
                "Give data = a text file or a set of texts.",
            )
