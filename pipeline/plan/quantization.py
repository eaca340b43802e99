"""The stages of a scheme: calibration, smoothing, what rounding costs, codes, and the graph that has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.compress import PREVIOUS_PASS
from pipeline.core.errors import UsageError
from pipeline.core.stage import Stage
from pipeline.core.types import Scheme
from pipeline.devices.host_info import training_hardware
from pipeline.formats.scheme import SchemeFormats
from pipeline.plan.npu import FIXED
from pipeline.plan.passes import Passes
from pipeline.plan.samples import Reading
from pipeline.quantize.schemes import describe
from pipeline.runtime.behaviour import PROBE

TORCH = ("torch", "transformers", "optimum", "onnx-ir", "onnxscript", "onnxruntime")
ONNX = ("onnx-ir", "onnxruntime", "numpy")
_TOKENS = ("transformers", *ONNX)


def without_cache(scheme: Scheme) -> Scheme:
    """What of a scheme passes and the rounding of weights depend on."""
    return scheme.model_copy(update={"cache": 32})


class Quantization:
    """From the float graph to the bundle's."""

    def __init__(self, reading: Reading, passes: Passes, scheme: Scheme) -> None:
        self.reading, self.passes, self.scheme = reading, passes, scheme
        self.source, self.formats = reading.source, SchemeFormats(scheme)

    @property
    def traced(self) -> str:
        """The float graph that is quantized, or ships."""
        return FIXED if self.reading.target.npu else self.passes.traced

    @property
    def calibrates(self) -> bool:
        """Whether it needs calibration samples."""
        formats = self.formats
        measured = formats.smooths or formats.keeps_sensitive or formats.allocates or formats.learns
        found = measured or formats.scales_channels or formats.needs_ranges or formats.needs_curvature
        return bool(found or self.scheme.cache == 8)

    @property
    def stores_codes(self) -> bool:
        """Whether the scheme rounds weights, or the checkpoint has codes that are kept whatever the scheme."""
        return self.formats.rounds or self.source.coded

    @property
    def changes(self) -> bool:
        """Whether the bundle's graph is another one than the traced one."""
        return self.stores_codes or bool(self.cache)

    @property
    def cache(self) -> dict[str, int]:
        """The bits of keys and values, where the scheme changes them."""
        return {} if self.scheme.cache == 32 else {"cache": self.scheme.cache}

    @property
    def rounded(self) -> str:
        """The graph whose weights are rounded."""
        if not self.stores_codes:
            return self.traced
        return "scale" if self.formats.scales_channels else "smooth" if self.formats.smooths else self.traced

    def stages(self, calibrated: bool) -> list[Stage]:
        """The stages up to the bundle's graph, and those that compare it with the float one."""
        stages = self._quantize(calibrated) if self.stores_codes else []
        inputs = {"graph": self.rounded, **({"plan": "quantize"} if stages else {})}
        if self.scheme.cache == 8:
            seen = {"graph": self.rounded, "samples": self.reading.stages["calibration"].name}
            stages.append(self.reading.of_model("calibrate.cache", 2, "pipeline.quantize.cache:run", {}, seen, _TOKENS))
            inputs["cache"] = "calibrate.cache"
        stages.append(self._onnx("write", "write:run", self.cache, inputs, version=8))
        return [*stages, self._compare(calibrated), *self.outside()]

    def _quantize(self, calibrated: bool) -> list[Stage]:
        config = {"scheme": describe(without_cache(self.scheme))}
        names = {"exclude": list(self.scheme.nodes_to_exclude), "overridden": list(self.formats.patterns)}
        samples = {"samples": self.reading.stages["calibration"].name} if calibrated else {}
        # what is watched depends on nothing else of the scheme, so that recipes can share it
        inputs = {"graph": self.traced, "layers": "layers"}
        stages = [self._onnx("layers", "layers:run", names, {"graph": self.traced}, version=3)]
        observed = {**samples, PROBE: PROBE}
        if self.formats.smooths:
            stages.append(self._onnx("calibrate.channels", "calibrate:channels", {}, inputs | observed, version=2))
            smoothed = {**inputs, "channels": "calibrate.channels"}
            stages.append(self._onnx("smooth", "smooth:run", config, smoothed, version=5))
            inputs["graph"] = "smooth"
        if self.formats.scales_channels:
            stages.append(self._onnx("calibrate.moments", "calibrate:hessians", {}, inputs | observed, version=2))
            scaled = {**inputs, "hessians": "calibrate.moments"}
            stages.append(self._onnx("scale", "awq:run", config, scaled))
            inputs["graph"] = "scale"
        observed |= inputs
        if self.formats.needs_ranges:
            stages.append(self._onnx("calibrate.ranges", "calibrate:ranges", config, observed, version=11))
            inputs["ranges"] = "calibrate.ranges"
        if self.formats.needs_curvature:
            stages.append(self._told(self._onnx("calibrate.hessians", "calibrate:hessians", {}, observed, version=2)))
            inputs["hessians"] = "calibrate.hessians"
        for name, run, version in self._measuring():
            stages.append(self._onnx(name, run, config, inputs | samples, version=version))
            inputs[name] = name
        if self.formats.learns:
            stages.append(self._learn(config, inputs | samples))
            inputs["learned"] = "learn"
        return [*stages, self._told(self._onnx("quantize", "quantize:run", config, inputs, version=18))]

    def _learn(self, config: dict[str, Any], inputs: dict[str, str]) -> Stage:
        if self.source.language is None:
            raise UsageError(
                f"The scheme {self.scheme.name!r} learns codes block by block of a language model; "
                f"{self.source.name!r} does {self.source.task.name}.",
                'Use rounding = "gptq" or "nearest".',
            )
        if self.source.coded:
            raise UsageError(
                f"The scheme {self.scheme.name!r} learns codes, but the checkpoint {self.source.name!r} has its "
                "own, which are kept.",
                'Use rounding = "nearest", or give the float checkpoint that it was made from.',
            )
        inputs = inputs | ({PREVIOUS_PASS: self.passes.compressed} if self.passes.compressed else {})
        return self.reading.of_model(
            "learn", 1, "pipeline.quantize.learned.run:run", {**config, "hardware": training_hardware()}, inputs, TORCH
        )

    def _measuring(self) -> list[tuple[str, str, int]]:
        """Name, function and version of the stages that measure what rounding costs the outputs."""
        wanted = [
            (self.formats.needs_ranges and self.scheme.everywhere is None, ("noise", "noise:run", 7)),
            (self.formats.keeps_sensitive, ("sensitivity", "sensitivity:run", 9)),
            (self.formats.allocates, ("allocation", "allocate:run", 1)),
        ]
        return [stage for asked, stage in wanted if asked]

    def _compare(self, calibrated: bool) -> Stage:
        """The quantized graph against the one that it was made from, not against the model before pruning."""
        data = "calibration" if calibrated else "evaluation"
        inputs = {"float": self.traced, "model": "write", "samples": self.reading.stages[data].name, PROBE: PROBE}
        config = {"data": data}
        return Stage("compare", 5, "pipeline.checks.compare:run", config, inputs, ("onnxruntime", "numpy"))

    def outside(self) -> list[Stage]:
        """What calibration did not see of the evaluation data, where ranges or smoothing rest on it."""
        smoothed = self.formats.smooths
        inputs = {"channels": "calibrate.channels"} if smoothed else {}
        inputs |= {"ranges": "calibrate.ranges"} if self.formats.needs_ranges else {}
        if not inputs:
            return []
        inputs |= {
            "graph": "smooth" if smoothed else self.traced,
            "evaluation": self.reading.stages["evaluation"].name,
        }
        return [Stage("outside", 1, "pipeline.checks.outside:run", {}, inputs, ONNX)]

    def _told(self, stage: Stage) -> Stage:
        """A stage that reads the codes of the model's checkpoint, where it has any."""
        return replace(stage, models=self.reading.models()) if self.source.coded else stage

    @staticmethod
    def _onnx(name: str, run: str, config: dict[str, Any], inputs: dict[str, str], version: int = 1) -> Stage:
        return Stage(name, version, f"pipeline.quantize.{run}", config, inputs, ONNX)
