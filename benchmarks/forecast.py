"""How well one constant per device predicts published decode rates: `edge plan` against rows of EDGE_DATA.

Rows are llama.cpp's on the CPU (device_truth/aihub_llm.csv, Qualcomm AI Hub's models), at a context of 512 and of 4,096
tokens. Models whose sizes are not known for sure are left out: granite-4.0-micro (dense by its card, and yet hardly
slower at 4,096 tokens), gemma-4-E2B and gpt-oss-20b (of other number formats); so is Dragonwing Q-8750, whose rows are
the Galaxy S25's. `python -m benchmarks.forecast` prints the constants that pipeline/forecast/rates.toml has.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

from benchmarks.data import folder
from benchmarks.row import Measured, Row
from pipeline.forecast.shapes import ModelShapes, Weight, shapes_of

_SMALL = {"model_type": "qwen3_5_text", "num_hidden_layers": 24, "num_attention_heads": 8, "num_key_value_heads": 2}
_SMALL |= {"head_dim": 256, "vocab_size": 248320, "linear_num_key_heads": 16, "linear_num_value_heads": 16}
_QWEN = {"model_type": "qwen3", "hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16}
_QWEN |= {"num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 6144, "vocab_size": 151936}
_MINISTRAL = {"model_type": "mistral", "hidden_size": 3072, "num_hidden_layers": 26, "num_attention_heads": 32}
_MINISTRAL |= {"num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 9216, "vocab_size": 131072}
_SMOL = {"model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32}
_SMOL |= {"num_key_value_heads": 32, "intermediate_size": 8192, "vocab_size": 49280}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3_1_7b": _QWEN,
    "qwen3_vl_2b_instruct": _QWEN,
    "ministral_3_3b_instruct_2512": _MINISTRAL,
    "smolvlm2_2_2b_instruct": _SMOL,
    "qwen3_5_0_8b": {**_SMALL, "hidden_size": 1024, "intermediate_size": 3584},
    "qwen3_5_2b": {**_SMALL, "hidden_size": 2048, "intermediate_size": 6144},
}
"""What the models' config.json say on the Hugging Face hub; all of them share the head with the embeddings."""
_PHONES = ("Samsung Galaxy S25", "Samsung Galaxy S26")
_BITS = {"q4_0": (4.5, 6.5625), "q8_0": (8.5, 8.5)}
"""Of products and of the head, which llama-quantize keeps in Q6_K."""
SHORT, LONG = 512, 4096


@dataclass(frozen=True)
class Rates:
    """Of one model on one device, by context: tokens of a prompt and of an answer per second."""

    model: str
    device: str
    precision: str
    prefill: dict[int, float]
    decode: dict[int, float]

    @property
    def bandwidth(self) -> float:
        """GB of weights that are read per second at the short context."""
        return read_gb(shapes(self.model), *_BITS[self.precision]) * self.decode[SHORT]

    @property
    def attention_ps(self) -> float | None:
        """Picoseconds that a token more before costs, for each value of the queries; None without both contexts."""
        if not self.decode.get(LONG):
            return None
        more = 1 / self.decode[LONG] - 1 / self.decode[SHORT]
        return more / (LONG - SHORT) / sum(layer.queries for layer in shapes(self.model).attention) * 1e12

    @property
    def gops(self) -> float:
        """10^9 additions and multiplications a second while a prompt is read."""
        return self.prefill[SHORT] * 2 * shapes(self.model).multiplied / 1e9


@cache
def shapes(model: str) -> ModelShapes:
    return shapes_of({**CONFIGS[model], "tie_word_embeddings": True}, model)


def read_gb(model: ModelShapes, bits: float, head_bits: float) -> float:
    """GB of weights that one token reads."""

    def size(weight: Weight, count: int) -> float:
        return count * weight.read * weight.dims[0] * weight.dims[1] * (head_bits if weight.head else bits) / 8e9

    return sum(size(weight, count) for weight, count in model.weights.items() if weight.op != "table")


def published() -> list[Rates]:
    """The rows that are judged."""
    rows: dict[tuple[str, str], list[dict[str, str]]] = {}
    with (folder() / "device_truth" / "aihub_llm.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["unit"] == "cpu" and row["model"] in CONFIGS and row["device"] != "Dragonwing Q-8750":
                rows.setdefault((row["model"], row["device"]), []).append(row)
    found = [_rates(*key, some) for key, some in rows.items()]
    return [rates for rates in found if SHORT in rates.decode]


def _rates(model: str, device: str, rows: list[dict[str, str]]) -> Rates:
    prefill, decode = (
        {int(row["context"]): float(row[name]) for row in rows} for name in ("prefill_tok_s", "decode_tok_s")
    )
    return Rates(model, device, rows[0]["precision"], prefill, decode)


def errors(rates: list[Rates]) -> Iterator[float]:
    """Relative errors of decode rates, each predicted from the other models on its device."""
    for left_out in rates:
        others = [each.bandwidth for each in rates if each.device == left_out.device and each is not left_out]
        yield abs(median(others) / left_out.bandwidth - 1)


def decode_median_error() -> Measured:
    """In percent, of the phones; beside it, the largest of theirs."""
    found = list(errors([rates for rates in published() if rates.device in _PHONES]))
    return Measured(100 * median(found), 100 * max(found))


def long_median_error() -> Measured:
    """Of the phones' decode rates at 4,096 tokens, from the rate of the same model at 512 and the cost of attention
    that other models have; beside it, the largest."""
    rates = [each for each in published() if each.device in _PHONES and each.attention_ps is not None]
    found = []
    for left_out in rates:
        beside = [each for each in rates if each is not left_out and each.device == left_out.device]
        others = [each.attention_ps or 0 for each in beside]
        work = sum(layer.queries for layer in shapes(left_out.model).attention) * (LONG - SHORT)
        predicted = 1 / (1 / left_out.decode[SHORT] + median(others) * 1e-12 * work)
        found.append(abs(predicted / left_out.decode[LONG] - 1))
    return Measured(100 * median(found), 100 * max(found))


def constants(device: str) -> dict[str, list[float]]:
    """Least, median and largest of each constant over the models on a device."""
    rates = [each for each in published() if each.device == device]
    kinds = {
        "bandwidth_gb_s": [each.bandwidth for each in rates],
        "attention_ps": [each.attention_ps for each in rates if each.attention_ps],
        "prefill_gops": [each.gops for each in rates],
    }
    return {
        name: [float(f"{value:.3g}") for value in (min(found), median(found), max(found))]
        for name, found in kinds.items()
    }


ROWS = [
    Row("plan.decode_median_error", "%", "largest error", decode_median_error),
    Row("plan.decode_median_error_4096", "%", "largest error", long_median_error),
]


if __name__ == "__main__":
    for name in sorted({rates.device for rates in published()}):
        print(name, constants(name))
    for each in published():
        said = f"{each.bandwidth:.1f} GB/s, attention {each.attention_ps}, {each.gops:.0f} GOP/s"
        print(each.device, each.model, said)
    for measured in ROWS:
        print(measured.id, measured.measure())
