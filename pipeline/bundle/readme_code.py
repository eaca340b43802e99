"""The lines of a bundle's README that make inputs, in Python and in JavaScript, and those of a layout's client."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pipeline.bundle.client_layouts import CLIENTS
from pipeline.bundle.golden import GOLDEN, Golden
from pipeline.bundle.records import Metadata
from pipeline.core.model_spec import ModelSpec
from pipeline.data.image_preprocessing import ByHeight, ImagePreprocessing
from pipeline.source.sentence_modules import sentence_modules

Lines = dict[str, str]
_ENCODED = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Inputs that the library tokenizers makes -> its name for them."""
_TEXTS = '["The first text.", "Another one."]'
_QUESTION = '"Where is the station?", "The station is behind the market."'
_PROCESSORS = {"text": "AutoTokenizer", "image": "AutoImageProcessor", "audio": "AutoFeatureExtractor"}


def python_lines(metadata: Metadata, golden: Golden, steps: ImagePreprocessing | None) -> Lines:
    """`packages` to install, `imports`, and the code that makes `feed`. `steps`: how images are prepared."""
    return _from_texts(metadata) or _from_image(metadata, golden, steps) or _from_golden(golden)


def takes_text(metadata: Metadata) -> bool:
    """Whether a tokenizer makes all that the only graph takes."""
    names = {entry.name for graph in metadata.graphs for entry in graph.inputs}
    return len(metadata.graphs) == 1 and "tokenizer.json" in metadata.preprocessing and names <= set(_ENCODED)


def _from_texts(metadata: Metadata) -> Lines | None:
    """How texts become inputs; None where a tokenizer alone does not make them."""
    if not takes_text(metadata):
        return None
    rows = [
        f'    "{entry.name}": np.array([text.{_ENCODED[entry.name]} for text in texts], np.{entry.dtype}),'
        for entry in metadata.graphs[0].inputs
    ]
    made = f'texts = Tokenizer.from_file("tokenizer.json").encode_batch({_TEXTS})'
    feed = "\n".join([made, "feed = {", *rows, "}"])
    return {"packages": " tokenizers", "imports": "from tokenizers import Tokenizer\n", "feed": feed}


def _prepares(metadata: Metadata, steps: ImagePreprocessing | None) -> bool:
    """Whether the lines can prepare an image for a model that takes nothing else."""
    alone = len(metadata.graphs) == 1 and len(metadata.graphs[0].inputs) == 1
    channels_first = alone and metadata.graphs[0].inputs[0].shape[1:2] == (3,)
    return channels_first and steps is not None and not isinstance(steps.resize, ByHeight)


def _from_image(metadata: Metadata, golden: Golden, steps: ImagePreprocessing | None) -> Lines | None:
    """How an image becomes the input; None for models that take none, or images prepared in another way."""
    if steps is None or not _prepares(metadata, steps):
        return None
    scale, name = _scale(steps), json.dumps(metadata.graphs[0].inputs[0].name)
    image = f'Image.open("{_image(golden)}").convert("RGB")'
    lines = [
        f"image = {image}" if golden.raw else f'image = Image.new("RGB", (640, 480), "orange")  # {image}',
        *_python_geometry(steps),
        f"pixels = np.asarray(image, np.float32) * {scale!r}",
        f"pixels = (pixels - np.array({list(steps.mean)}, np.float32)) / np.array({list(steps.std)}, np.float32)",
        f"feed = {{{name}: pixels.transpose(2, 0, 1)[None].astype(np.float32)}}",
    ]
    return {"packages": " pillow", "imports": "from PIL import Image\n", "feed": "\n".join(lines)}


def _scale(steps: ImagePreprocessing) -> float:
    return 1.0 if steps.rescale is None else steps.rescale


def _image(golden: Golden) -> str:
    return f"{GOLDEN}/0/{golden.raw}" if golden.raw else "photo.jpg"


def _python_geometry(steps: ImagePreprocessing) -> list[str]:
    lines = []
    if isinstance(steps.resize, int):
        sides = f"[{steps.resize} * side // min(image.size) for side in image.size]"
        lines.append(f"image = image.resize({sides}, {steps.resample})")
    elif isinstance(steps.resize, tuple):
        height, width = steps.resize
        lines.append(f"image = image.resize(({width}, {height}), {steps.resample})")
    if steps.crop is not None:
        height, width = steps.crop
        lines += [
            f"left, top = (image.width - {width}) // 2, (image.height - {height}) // 2",
            f"image = image.crop((left, top, left + {width}, top + {height}))",
        ]
    return lines


def _from_golden(golden: Golden) -> Lines:
    """The first golden sample, where nothing is known of what inputs are made from."""
    rows = [f'    {json.dumps(entry.name)}: np.load("{GOLDEN}/0/{entry.file}"),' for entry in golden.inputs]
    return {"packages": "", "imports": "", "feed": "\n".join(["feed = {", *rows, "}"])}


def javascript_lines(metadata: Metadata, golden: Golden, steps: ImagePreprocessing | None) -> Lines | None:
    """What is imported of transformers.js, the lines before that are a program's or a page's own, and the code that
    makes `feed`; None where it does not make inputs of this model."""
    if takes_text(metadata) and "tokenizer_config.json" in metadata.preprocessing:
        return _TEXT_LINES
    if steps is None or not _prepares(metadata, steps):
        return None
    name = json.dumps(metadata.graphs[0].inputs[0].name)
    feed = [
        *_javascript_geometry(steps),
        "const { data: rgb, width, height } = image;",
        f"const [mean, std, area] = [{list(steps.mean)}, {list(steps.std)}, height * width];",
        "const pixels = Float32Array.from({ length: 3 * area }, (_, at) => {",
        "  const [channel, place] = [Math.floor(at / area), at % area];",
        f"  return (rgb[3 * place + channel] * {_scale(steps)!r} - mean[channel]) / std[channel];",
        "});",
        f'const feed = {{ {name}: new ort.Tensor("float32", pixels, [1, 3, height, width]) }};',
    ]
    read = f'let image = (await RawImage.read("{_image(golden)}")).rgb();'
    return {"imports": "RawImage", "in_node": read, "in_browser": read, "feed": "\n".join(feed)}


def _javascript_geometry(steps: ImagePreprocessing) -> list[str]:
    """As `_python_geometry`; a browser resizes with a filter of its own."""
    lines = []
    if isinstance(steps.resize, int):
        sides = f"[image.width, image.height].map((side) => Math.floor({steps.resize} * side / short))"
        lines += [
            "const short = Math.min(image.width, image.height);",
            f"image = await image.resize(...{sides}, {{ resample: {steps.resample} }});",
        ]
    elif isinstance(steps.resize, tuple):
        height, width = steps.resize
        lines.append(f"image = await image.resize({width}, {height}, {{ resample: {steps.resample} }});")
    if steps.crop is not None:
        lines.append(f"image = await image.center_crop({steps.crop[1]}, {steps.crop[0]});")
    return lines


_TEXT_LINES = {
    "imports": "AutoTokenizer, env",
    "in_node": """env.localModelPath = "/"; // the tokenizer is read from this folder, nothing is fetched
env.allowRemoteModels = false;
const tokenizer = await AutoTokenizer.from_pretrained(process.cwd());""",
    "in_browser": """env.localModelPath = "./"; // the tokenizer is read from this folder
env.allowLocalModels = true;
env.allowRemoteModels = false;
const tokenizer = await AutoTokenizer.from_pretrained(".");""",
    "feed": f"""const encoded = tokenizer({_TEXTS}, {{ padding: true, truncation: true }});
const {{ data: ids, dims: shape }} = encoded.input_ids;
const zeros = new BigInt64Array(ids.length); // token types, where the tokenizer leaves them out
const feed = {{}};
for (const name of session.inputNames) feed[name] = new ort.Tensor("int64", encoded[name]?.data ?? zeros, shape);""",
}


def client_lines(metadata: Metadata, golden: Golden, spec: ModelSpec) -> Mapping[str, str] | None:
    """What the layout's client is called with; None of a bundle that is for none."""
    client = CLIENTS.get(metadata.layout)
    if client is None:
        return None
    pooling, normalizes = sentence_modules(spec.path) if spec.sentence_transformer else ("", False)
    image = spec.data == "image"
    example = _python_example(spec, golden)
    if metadata.layout == "transformers.js":
        example = _javascript_example(spec, golden, client.pooling.get(pooling, ""), normalizes)
    return {
        "loader": client.loaders[spec.task],
        "example": example,
        "processor": _PROCESSORS[spec.data],
        "packages": " pillow" if image else "",
        "imports": "\nfrom PIL import Image" if image else "",
        "pooling": pooling and f"pool them by `{pooling}`" + (", and normalize the result" if normalizes else ""),
    }


def _python_example(spec: ModelSpec, golden: Golden) -> str:
    """What Optimum's models are given, through the model's own processor."""
    if spec.task == "question-answering":
        return f"{_QUESTION}, truncation=True"
    given = {"image": f'Image.open("{_image(golden)}").convert("RGB")', "audio": "[0.0] * 16_000, sampling_rate=16_000"}
    return given.get(spec.data, f"{_TEXTS}, padding=True, truncation=True")


def _javascript_example(spec: ModelSpec, golden: Golden, pooling: str, normalizes: bool) -> str:
    if spec.task == "question-answering":
        return _QUESTION
    given = {"image": json.dumps(_image(golden)), "audio": "new Float32Array(16000)"}.get(spec.data, _TEXTS)
    options = {"pooling": pooling, "normalize": normalizes}
    return f"{given}, {json.dumps(options)}" if pooling else given
