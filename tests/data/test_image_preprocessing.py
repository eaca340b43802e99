from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from model_specs import hugging_face

from pipeline.core.errors import UsageError
from pipeline.data.encode import image_size
from pipeline.data.image_preprocessing import KNOWN, ImagePreprocessing
from pipeline.data.synthetic import render

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
SHAPES = [(64, 64), (50, 81), (97, 40), (20, 23)]
SMALL: dict[str, dict[str, Any]] = {
    "ViT": {"size": {"height": 32, "width": 48}},
    "Beit": {"size": {"height": 33, "width": 32}, "do_center_crop": True, "crop_size": {"height": 24, "width": 24}},
    "Bit": {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}},
    "CLIP": {"size": {"shortest_edge": 32}, "crop_size": {"height": 33, "width": 29}},
    "DeiT": {"size": {"height": 40, "width": 40}, "crop_size": {"height": 64, "width": 37}},
    "ConvNext": {"size": {"shortest_edge": 56}},
    "MobileNetV1": {"size": {"shortest_edge": 40}, "crop_size": {"height": 55, "width": 55}},
    "MobileNetV2": {"size": {"shortest_edge": 40}, "crop_size": {"height": 36, "width": 36}, "do_rescale": False},
    "Pvt": {"size": {"height": 32, "width": 32}, "do_normalize": False},
    "Segformer": {"size": {"height": 32, "width": 32}, "do_resize": False},
    "Detr": {"size": {"height": 32, "width": 40}, "do_pad": False},
    "Yolos": {"size": {"height": 32, "width": 40}, "do_pad": False},
    "Siglip": {"size": {"height": 32, "width": 32}, "resample": 1},
}


def image(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return render(5, max(height, width))[:height, :width]


def test_every_known_processor_is_compared() -> None:
    assert set(SMALL) == KNOWN


@pytest.mark.parametrize("kind", sorted(SMALL))
@pytest.mark.parametrize("shape", SHAPES)
def test_same_as_the_reference_processor(kind: str, shape: tuple[int, int], tmp_path: Path) -> None:
    reference = getattr(transformers, f"{kind}ImageProcessorPil")(**SMALL[kind])
    reference.save_pretrained(tmp_path)
    ours = ImagePreprocessing.from_config(tmp_path / "preprocessor_config.json")(image(*shape))
    theirs = reference(image(*shape), return_tensors="np")["pixel_values"][0]
    assert (ours.dtype, ours.shape) == (np.float32, theirs.shape)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_convnext_squeezes_from_384_on() -> None:
    config = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}, "resample": 3, **HALF}
    assert ImagePreprocessing.from_config(config).resize == (384, 384)
    assert ImagePreprocessing.from_config(config).crop is None


@pytest.mark.parametrize(
    ("config", "resize", "crop"),
    [
        ({"feature_extractor_type": "ViTFeatureExtractor", "size": 224}, (224, 224), None),
        ({"image_processor_type": "ViTImageProcessorFast", "size": 224, "crop_size": None}, (224, 224), None),
        ({"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 200}, 224, (200, 200)),
        ({"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "crop_size": 224}, (256, 256), (224, 224)),
        ({"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, "crop_pct": 0.875}, 256, (224, 224)),
        ({"size": {"height": 8, "width": 9}, "crop_size": {"height": 2, "width": 2}}, (8, 9), None),
        ({"do_resize": False}, None, None),
    ],
)
def test_sizes_of_old_and_new_configs(
    config: dict[str, Any], resize: int | tuple[int, int] | None, crop: tuple[int, int] | None
) -> None:
    prepared = ImagePreprocessing.from_config({"resample": 3, **HALF, **config})
    assert (prepared.resize, prepared.crop, prepared.rescale) == (resize, crop, 1 / 255)


def test_values_by_hand() -> None:
    config = {"do_resize": False, "image_mean": [0.0, 0.5, 1.0], "image_std": [1.0, 0.5, 0.25]}
    pixels = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    expected = [[[0, 1]], [[-1, 1]], [[-4, 0]]]
    assert ImagePreprocessing.from_config(config)(pixels).tolist() == expected


def test_raw_values_without_rescaling_and_normalization() -> None:
    config = {"do_resize": False, "do_rescale": False, "do_normalize": False}
    assert ImagePreprocessing.from_config(config)(np.full((1, 1, 3), 200, np.uint8)).tolist() == [[[200]]] * 3


@pytest.mark.parametrize(
    ("length", "wanted", "expected"),
    [(4, 2, [2, 3]), (5, 2, [2, 3]), (4, 3, [1, 2, 3]), (2, 5, [0, 0, 1, 2, 0]), (3, 4, [0, 1, 2, 3])],
)
def test_centre_crop_by_hand(length: int, wanted: int, expected: list[int]) -> None:
    row = np.arange(1, length + 1, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    cropped = ImagePreprocessing(crop=(1, wanted))(row)
    assert cropped[0, 0].tolist() == expected


@given(height=st.integers(1, 20), width=st.integers(1, 20), crop=st.tuples(st.integers(1, 25), st.integers(1, 25)))
def test_a_crop_has_the_size_asked_for(height: int, width: int, crop: tuple[int, int]) -> None:
    pixels = np.full((height, width, 3), 9, np.uint8)
    cropped = ImagePreprocessing(crop=crop)(pixels)
    assert cropped.shape == (3, *crop)
    assert (cropped == 9).sum() == 3 * min(height, crop[0]) * min(width, crop[1])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, 'preprocessor_config.json does not say "size".'),
        ({"size": {"height": 8, "width": 8}}, 'preprocessor_config.json does not say "resample".'),
        ({"do_resize": False}, 'preprocessor_config.json does not say "image_mean".'),
        (
            {"do_resize": False, "image_processor_type": "CLIPImageProcessor"},
            'preprocessor_config.json does not say "crop_size".',
        ),
        (
            {"size": 224},
            "preprocessor_config.json has the size 224; allowed are height and width, or shortest_edge, or a single "
            "number if image_processor_type is given.",
        ),
        (
            {"size": {"longest_edge": 800}},
            "preprocessor_config.json has the size {'longest_edge': 800}; allowed are height and width, or "
            "shortest_edge, or a single number if image_processor_type is given.",
        ),
        (
            {"image_processor_type": "LevitImageProcessor"},
            "preprocessor_config.json names the image processor 'Levit', which is not supported.",
        ),
        ({"do_pad": True}, "preprocessor_config.json asks for do_pad, which is not supported."),
        (
            {"do_flip_channel_order": True},
            "preprocessor_config.json asks for do_flip_channel_order, which is not supported.",
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "do_center_crop": True},
            "preprocessor_config.json asks for do_center_crop after crop_pct, which is not supported.",
        ),
    ],
)
def test_configs_that_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        ImagePreprocessing.from_config(config)
    assert caught.value.message == message


def test_values_of_a_wrong_type_are_named() -> None:
    config = {"do_resize": False, "image_mean": [0.5], "image_std": [0.5, 0.5, 0.5]}
    with pytest.raises(UsageError, match=r"^preprocessor_config\.json has 2 mistakes:\n  - mean\.1: is missing"):
        ImagePreprocessing.from_config(config)


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        ImagePreprocessing.from_config(tmp_path / "preprocessor_config.json")
    assert caught.value.message == (
        "The model's folder has no preprocessor_config.json, which says how images are prepared."
    )


@pytest.mark.parametrize(("content", "said"), [("{", "is not valid JSON"), (json.dumps([1]), "is not a JSON object")])
def test_config_that_is_no_object(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=f"^preprocessor_config.json {said}"):
        ImagePreprocessing.from_config(path)


def test_the_size_that_a_model_takes(tmp_path: Path) -> None:
    """The crop, else both sides of the resizing; where only the shortest edge is given, it depends on the image. A
    folder without a processor is asked for its config."""
    sizes = {
        '{"resize": [12, 16]}': (12, 16),
        '{"resize": 20, "crop": [8, 8]}': (8, 8),
        '{"resize": 20}': None,
    }
    for values, expected in sizes.items():
        assert ImagePreprocessing.model_validate_json(values).size == expected
    source = hugging_face(tmp_path)
    for config, expected in (("{}", None), ('{"image_size": 24}', (24, 24)), ('{"image_size": [8, 6]}', (8, 6))):
        (tmp_path / "config.json").write_text(config)
        assert image_size(source) == expected
    processor = {"image_processor_type": "ViTImageProcessor", "size": 16, "resample": 2, "do_normalize": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    assert image_size(source) == (16, 16)
