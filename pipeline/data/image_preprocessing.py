"""From an image to a model's input, as the model's own preprocessor_config.json describes it.

The Hugging Face image-processor convention: resize, centre crop, rescale, normalize, channels first. It is
written anew on Pillow because the processors that most configs name want torchvision in transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from pipeline.core.errors import UsageError
from pipeline.core.types import StrictModel
from pipeline.core.untrusted import Limit, read_json_object

CROPPING = {"Bit", "CLIP", "DeiT", "MobileNetV1", "MobileNetV2"}
"""Processors that crop unless their config says otherwise."""
SQUARE = {"Beit", "DeiT", "Pvt", "Segformer", "ViT"}
"""Processors to which a single number as size is both sides; to the others it is the shortest edge."""
KNOWN = CROPPING | SQUARE | {"ConvNext", "Siglip", "Detr", "Yolos"}

PREPROCESSOR = "preprocessor_config.json"
_ENDINGS = ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")
_UNKNOWN_STEPS = ("do_pad", "do_flip_channel_order", "rescale_offset")
_NPZ = "Prepare the images yourself and give them as model inputs in an .npz file."


LARGEST_SIDE = 16_384
"""Pixels of a side of what images are made into."""
Side = Annotated[int, Field(gt=0, le=LARGEST_SIDE)]
Spread = Annotated[float, Field(gt=0)]


class ByHeight(StrictModel):
    """A size of one height, whose width keeps the image's shape: written lines of text."""

    height: Side


class ImagePreprocessing(StrictModel):
    """What is done to an image, in this order; None leaves a step out.

    `resize`: (height, width), the length of the shortest edge, or { height = ... }. `resample`: Pillow's number of the
    filter (0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming). `crop`: (height, width) around the centre,
    zeros where the image is smaller. `rescale`: factor on 0..255. `mean`, `std`: per channel, after rescaling.
    """

    resize: tuple[Side, Side] | Side | ByHeight | None = None
    resample: Literal[0, 1, 2, 3, 4, 5] = 2
    crop: tuple[Side, Side] | None = None
    rescale: Annotated[float, Field(gt=0)] | None = None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[Spread, Spread, Spread] = (1.0, 1.0, 1.0)

    @classmethod
    def from_config(cls, config: Path | Mapping[str, Any]) -> Self:
        """Read a preprocessor_config.json, or what it holds.

        UsageError if there is no such file, it is no JSON object, lacks a value that a step needs, or asks
        for a processor or a step that is not known here.
        """
        values = _read(config) if isinstance(config, Path) else config
        given = {key: value for key, value in values.items() if value is not None}
        kind = _kind(given)
        _refuse_unknown(given, kind)
        return cls.from_data({**_geometry(given, kind), **_values(given)}, PREPROCESSOR)

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of what comes out; None where it depends on the image."""
        return self.crop or (self.resize if isinstance(self.resize, tuple) else None)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [H, W, 3] -> float32 [3, h, w]."""
        if self.resize is not None:
            image = _resize(image, self.resize, self.resample)
        if self.crop is not None:
            image = _crop_axis(_crop_axis(image, 0, self.crop[0]), 1, self.crop[1])
        pixels = image.astype(np.float32)
        if self.rescale is not None:
            pixels = (image * np.float64(self.rescale)).astype(np.float32)
        normal = (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1))


def written_out(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a preprocessor_config.json holds, with the steps that its processor does unless it says otherwise:
    transformers.js does those alone that are named."""
    given = {key: value for key, value in config.items() if value is not None}
    steps = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    return {**steps, "do_center_crop": _kind(given) in CROPPING, **given}


def reduces_labels(folder: Path) -> bool:
    """Whether the model's maps count classes from 1, and 0 is none: its processor has `do_reduce_labels`."""
    place = folder / PREPROCESSOR
    said = read_json_object(place) if place.is_file() else {}
    return bool(said.get("do_reduce_labels", said.get("reduce_labels")))


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UsageError(f"The model's folder has no {path.name}, which says how images are prepared.", _NPZ)
    return read_json_object(path)


def _kind(given: Mapping[str, Any]) -> str:
    """`ViTImageProcessorFast` -> `ViT`; empty if the config names no processor."""
    name = str(given.get("image_processor_type", given.get("feature_extractor_type", "")))
    ending = next((ending for ending in _ENDINGS if name.endswith(ending)), "")
    return name.removesuffix(ending)


def _refuse_unknown(given: Mapping[str, Any], kind: str) -> None:
    steps = [step for step in _UNKNOWN_STEPS if given.get(step)]
    if kind == "ConvNext" and given.get("do_center_crop"):
        steps.append("do_center_crop after crop_pct")
    if steps:
        raise UsageError(f"{PREPROCESSOR} asks for {steps[0]}, which is not supported.", _NPZ)
    if kind and kind not in KNOWN:
        raise UsageError(
            f"{PREPROCESSOR} names the image processor {kind!r}, which is not supported.",
            f"Allowed: {', '.join(sorted(KNOWN))}. {_NPZ}",
        )


def _values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Rescaling and normalization; processors from before `do_rescale` existed always rescaled by 1/255."""
    found: dict[str, Any] = {}
    if given.get("do_rescale", True):
        found["rescale"] = given.get("rescale_factor", 1 / 255)
    if given.get("do_normalize", True):
        found |= {"mean": _need(given, "image_mean"), "std": _need(given, "image_std")}
    return found


def _geometry(given: Mapping[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if given.get("do_resize", True):
        size = _size(_need(given, "size"), kind)
        found = {"resample": _need(given, "resample"), "resize": size}
        if kind == "ConvNext":
            found |= _convnext(size, given.get("crop_pct", 224 / 256))
    if given.get("do_center_crop", kind in CROPPING):
        crop = _need(given, "crop_size")
        found["crop"] = (crop, crop) if isinstance(crop, int) else _size(crop, kind)
    return found


def _convnext(size: int | tuple[int, int], crop_pct: float) -> dict[str, Any]:
    """ConvNeXT and ResNet: below 384, resize to size / crop_pct and crop; from 384, squeeze into a square."""
    if not isinstance(size, int):
        raise UsageError(f"{PREPROCESSOR}: a ConvNext processor's size must be the shortest edge, not {size}.", _NPZ)
    if not isinstance(crop_pct, (int, float)) or not 0 < crop_pct <= 1:
        raise UsageError(f"{PREPROCESSOR}: crop_pct is {crop_pct!r}, not a share.", _NPZ)
    return {"resize": int(size / crop_pct), "crop": (size, size)} if size < 384 else {"resize": (size, size)}


def _size(size: Any, kind: str) -> int | tuple[int, int]:
    """(height, width), or the shortest edge."""
    if isinstance(size, int) and kind:
        return (size, size) if kind in SQUARE else size
    if isinstance(size, dict) and set(size) == {"height", "width"}:
        return size["height"], size["width"]
    if isinstance(size, dict) and set(size) == {"shortest_edge"}:
        return size["shortest_edge"]
    raise UsageError(
        f"{PREPROCESSOR} has the size {size!r}; allowed are height and width, or shortest_edge, or a single number "
        "if image_processor_type is given.",
        _NPZ,
    )


def _need(given: Mapping[str, Any], key: str) -> Any:
    if key not in given:
        raise UsageError(f'{PREPROCESSOR} does not say "{key}".', "Add it as the model's authors used it in training.")
    return given[key]


def _resize(image: NDArray[np.uint8], size: tuple[int, int] | int | ByHeight, resample: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if isinstance(size, ByHeight):
        size = (size.height, max(1, round(size.height * width / height)))
    if isinstance(size, int):
        short = min(height, width)
        size = (size * height // short, size * width // short)
    if size[0] * size[1] > Limit.PIXELS:
        raise UsageError(
            f"An image of {height} x {width} pixels would become one of {size[0]} x {size[1]}, which is too large.",
            "Take it out of the folder, or crop it.",
        )
    picture = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling(resample))
    return np.asarray(picture)


def _crop_axis(image: NDArray[np.uint8], axis: int, wanted: int) -> NDArray[np.uint8]:
    """Cut, or pad with zeros, to `wanted` around the centre; the odd row of padding goes before."""
    missing = wanted - image.shape[axis]
    if missing > 0:
        around = [((missing + 1) // 2, missing // 2) if other == axis else (0, 0) for other in range(3)]
        return np.pad(image, around)
    begin = -missing // 2
    return image.take(range(begin, begin + wanted), axis)


def own_preprocessing(name: str, kind: str, folder: Path) -> ImagePreprocessing:
    """The image processing in the folder of a Hugging Face model or an ONNX file; UsageError if there is none."""
    if kind == "factory" or (kind == "onnx" and not (folder / PREPROCESSOR).is_file()):
        raise unprepared(name)
    return ImagePreprocessing.from_config(folder / PREPROCESSOR)


def unprepared(name: str) -> UsageError:
    """The error to raise where nothing says how images become inputs of the model `name`."""
    return UsageError(
        f"Nothing says how images become inputs of {name!r}.",
        "Add a [preprocessing] table to the recipe, or give the inputs themselves, as floats in an .npz file.",
    )
