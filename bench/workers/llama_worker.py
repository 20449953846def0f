"""llama.cpp (llama-cpp-python) on the bench's model, converted to GGUF here: one row, sampling by llama.cpp itself.

The conversion reads safetensors and permutes query and key to the interleaved rotary order that GGUF's llama keeps.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import protocol
from safetensors.numpy import load_file

KINDS = {
    "float32": gguf.GGMLQuantizationType.F32,
    "float16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def convert(folder: Path, path: Path, kind: str) -> None:
    """The model of a transformers folder (LLaMA shape) as a GGUF file without a vocabulary."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base((config.get("rope_parameters") or config).get("rope_theta", 10000.0))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, tensor in load_file(folder / "model.safetensors").items():
        stem = gguf_name(name.removesuffix(".weight"))
        tensor = interleaved(tensor, heads[stem.split(".")[-1]]) if stem.split(".")[-1] in heads else tensor
        form = KINDS[kind] if tensor.ndim == 2 else KINDS["float32"]
        writer.add_tensor(f"{stem}.weight", gguf.quants.quantize(np.ascontiguousarray(tensor), form), raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name: str) -> str:
    if name in WHOLE:
        return WHOLE[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}"


def interleaved(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from halves (transformers) to pairs (GGUF's llama)."""
    return matrix.reshape(heads, 2, -1, matrix.shape[1]).swapaxes(1, 2).reshape(matrix.shape)


def work(job: dict[str, Any]) -> dict[str, Any]:
    from llama_cpp import Llama

    kind = job["settings"].get("dtype", "float32")
    path = Path(job["scratch"]) / f"model-{kind}.gguf"
    convert(Path(job["model"]), path, kind)
    prompts = [row["prompt"] for row in protocol.read_rows(job, job["rows"])]
    length = len(prompts[0]) + job["new_tokens"] + 1
    model = Llama(str(path), n_ctx=length, n_threads=job["threads"], n_threads_batch=job["threads"], verbose=False)
    greedy = {"temp": 0.0} if job["equality"] else {"temp": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}

    def generate(count: int, new_tokens: int) -> list[list[int]]:
        answers = []
        for prompt in prompts[:count]:
            model.reset()
            tokens = model.generate(prompt, repeat_penalty=1.0, **greedy)
            answers.append([next(tokens) for _ in range(new_tokens)])
        return answers

    return protocol.measure_rollout(job, generate)


if __name__ == "__main__":
    protocol.main(work, "llama-cpp-python", "gguf", "numpy")
