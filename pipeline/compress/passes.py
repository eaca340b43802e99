"""What a compression pass is: a config that names its stage function and says what it needs. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.core.report_types import PassReport
from pipeline.core.types import Json, StrictModel

TRAINED = "trained"
"""The teacher that the last pass with `Needs.training` before made."""


@dataclass(frozen=True)
class TrainingNeeds:
    """Samples to train on, and a teacher.

    Attributes:
        data: Data sets, which `--training-data` overrides; the calibration set where there are none.
        samples: How many of each set; all if None.
        teacher: A model source, `TRAINED`, or None for the model before all passes.
        teacher_outputs: Whether what the teacher says of every sample is recorded before.
    """

    data: tuple[str, ...] = ()
    samples: int | None = None
    teacher: str | None = None
    teacher_outputs: bool = False


@dataclass(frozen=True)
class VocabularyNeeds:
    """A tokenizer with only those tokens that a corpus uses.

    Attributes:
        data: The data sets whose texts are counted.
        min_count: How often a token must be used to stay.
        keep_tokens: At most that many stay, the most used ones; None sets no bound.
    """

    data: tuple[str, ...]
    min_count: int = 1
    keep_tokens: int | None = None


@dataclass(frozen=True)
class Needs:
    """What a pass gets beside the model as compressed so far: the input `PREVIOUS_PASS` after another pass, and
    `TOKENIZER` once one has changed the tokenizer.

    Attributes:
        calibration: The inputs `CALIBRATION` and `PROBE` (whether samples may run in one batch); with a changed
            tokenizer, also `SOURCE_CALIBRATION`.
        scheme: The recipe's scheme, as `scheme` in the config; float32 otherwise, so that schemes share the result.
        limits: The target's limits on accuracy by budget, as `limits`; none otherwise, so that targets share it.
        hardware: Its bytes depend on this machine's instruction set and threads, which then are in the key.
        training: The input `training`, the model source `TEACHER`, and where they apply the inputs `TEACHER` and
            `TEACHER_OUTPUTS`.
        vocabulary: A smaller tokenizer as `TOKENIZER`, and the calibration samples once more as `PREVIOUS_CALIBRATION`,
            from before they were cut anew with it. What follows gets them as this tokenizer cuts them.
    """

    calibration: bool = True
    scheme: bool = False
    limits: bool = False
    hardware: bool = False
    training: TrainingNeeds | None = None
    vocabulary: VocabularyNeeds | None = None


class PassConfig(StrictModel):
    """Base of the configs of all passes: its fields are the keys that a recipe gives."""

    run: ClassVar[str]
    """`"module:function"`: the stage function, which gets this config as `pass` in `StageContext.config`."""
    version: ClassVar[int]
    """Raised whenever the same config gives another result."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Packages beside torch, transformers and numpy whose versions may change the result."""
    local: ClassVar[frozenset[str]] = frozenset()
    """Keys that name files. They are not part of the stage's config: the files' contents are what counts."""

    @property
    def needs(self) -> Needs:
        return Needs()

    @property
    def packages(self) -> tuple[str, ...]:
        """The installed packages that add what the config names, such as an importance score."""
        return ()

    def check(self, family: str, where: str) -> None:
        """UsageError that begins with `where` if a model of the output kind `family` cannot have this pass."""


def pass_report(name: str, **said: Json) -> dict[str, Json]:
    """The metadata that a pass's stage function returns: those of `PassReport`, and further ones of its own."""
    return PassReport.model_validate({"pass": name, **said}).model_dump(mode="json")
