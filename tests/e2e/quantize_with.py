"""Quantizes a model with a library of other people, in an environment that has it; run as a script by
`test_quantizer_libraries.py`: LIBRARY SOURCE OUT. Writes the checkpoint, and beside it `reference.npz` with the weights
that the library itself makes of its codes."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

os.cpu_count = lambda: 8  # type: ignore[assignment]  # GPTQModel wants more threads than two cores give it
TEXT = "The captain looked at the sea for a long time, and then he said that the ship would leave before the morning. "


def with_gptq(source: str, out: str, **settings: Any) -> dict[str, Any]:
    from gptqmodel import GPTQModel, QuantizeConfig  # noqa: PLC0415

    model = GPTQModel.load(source, QuantizeConfig(**settings), device="cpu")
    model.quantize([TEXT[place:] + TEXT * 3 for place in range(16)], batch_size=4)
    model.save(out)
    loaded = GPTQModel.load(out, device="cpu", backend="torch")
    return {
        f"{name}.weight": module.dequantize_weight().T
        for name, module in loaded.model.named_modules()
        if hasattr(module, "dequantize_weight")
    }


def with_awq(source: str, out: str, group: int) -> dict[str, Any]:
    """AutoAWQ's own packing, of asymmetric rounding to the nearest: its search needs a GPU."""
    import torch  # noqa: PLC0415
    from awq.modules.linear.gemm import WQLinear_GEMM  # noqa: PLC0415
    from awq.utils.packing_utils import dequantize_gemm  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    model, made = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32), {}
    linears = [item for item in model.named_modules() if isinstance(item[1], torch.nn.Linear) and item[0] != "lm_head"]
    for name, linear in linears:
        groups = linear.weight.data.reshape(len(linear.weight), -1, group)
        low, high = groups.amin(-1), groups.amax(-1)
        scale = ((high - low).clamp(min=1e-5) / 15).half().float()
        zero = (-torch.round(low / scale)).clamp(0, 15)
        rounded = torch.clamp(torch.round(groups / scale[..., None]) + zero[..., None], 0, 15) - zero[..., None]
        linear.weight.data = (rounded * scale[..., None]).reshape(linear.weight.shape)
        packed = WQLinear_GEMM.from_linear(linear, 4, group, False, scale.T.contiguous(), zero.T.contiguous())
        made[f"{name}.weight"] = dequantize_gemm(packed.qweight, packed.qzeros, packed.scales, 4, group).T
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, packed)
    model.save_pretrained(out)
    settings = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}
    config = Path(out, "config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": settings}))
    return made


def with_llm_compressor(source: str, out: str, **weights: Any) -> dict[str, Any]:
    import torch  # noqa: PLC0415
    from llmcompressor import oneshot  # noqa: PLC0415
    from llmcompressor.modifiers.quantization import QuantizationModifier  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    groups = {"all": {"targets": ["Linear"], "weights": {"type": "int", **weights}}}
    oneshot(model=model, recipe=QuantizationModifier(ignore=["lm_head"], config_groups=groups))
    model.save_pretrained(out, save_compressed=True)
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    from compressed_tensors.compressors import ModelCompressor  # noqa: PLC0415

    ModelCompressor.from_pretrained_model(loaded).decompress_model(loaded)
    return {name: value for name, value in loaded.state_dict().items() if name.endswith("_proj.weight")}


def with_gguf(source: str, out: str, kind: str) -> dict[str, Any]:
    """The package's quantizer, under the names and in the rows of llama.cpp's converter (LlamaModel.permute)."""
    import gguf  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    config = json.loads(Path(source, "config.json").read_text())
    writer = gguf.GGUFWriter(Path(out, f"model-{kind}.gguf"), "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_token_list([f"t{number}" for number in range(config["vocab_size"])])
    names, made = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"]), {}
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, tensor in load_file(Path(source, "model.safetensors")).items():
        if name == "lm_head.weight":
            continue
        values, to = tensor.float().numpy(), names.get_name(name, try_suffixes=(".weight",))
        count = next((count for part, count in heads.items() if part in name), 0)
        rows = np.arange(len(values)).reshape(count, 2, -1).swapaxes(1, 2).ravel() if count else np.arange(len(values))
        if values.ndim == 1:
            writer.add_tensor(to, values)
            continue
        form = gguf.GGMLQuantizationType[kind]
        data = gguf.quants.quantize(values[rows], form)
        writer.add_tensor(to, data, raw_dtype=form)
        made[name] = gguf.quants.dequantize(data, form)[np.argsort(rows)]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return made


LIBRARIES = {
    "gptq": lambda source, out: with_gptq(source, out, bits=4, group_size=32),
    "gptq-act-order": lambda source, out: with_gptq(
        source, out, bits=4, group_size=64, desc_act=True, act_group_aware=False, sym=False
    ),
    "gptq-v2-8-bits": lambda source, out: with_gptq(
        source, out, bits=8, group_size=-1, act_group_aware=False, format="gptq_v2"
    ),
    "awq": lambda source, out: with_awq(source, out, 64),
    "compressed": lambda source, out: with_llm_compressor(
        source, out, num_bits=4, symmetric=False, strategy="group", group_size=32
    ),
    "compressed-8-bits": lambda source, out: with_llm_compressor(
        source, out, num_bits=8, symmetric=True, strategy="channel"
    ),
    **{name: (lambda source, out, name=name: with_gguf(source, out, name)) for name in ("Q4_0", "Q4_1", "Q8_0")},
}


def main(library: str, source: str, out: str) -> None:
    Path(out).mkdir()
    made = LIBRARIES[library](source, out)
    for file in Path(source).glob("*.json"):
        if not Path(out, file.name).exists():
            shutil.copyfile(file, Path(out, file.name))
    arrays = {name: np.asarray(value.float() if hasattr(value, "float") else value) for name, value in made.items()}
    np.savez(f"{out}.npz", **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
