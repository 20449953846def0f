"""`xinglin convert` against the published architectures written out by hand in float64, tiktoken and sentencepiece."""

from __future__ import annotations

import base64
import json
import math
import os
import pickle
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from xinglin.cli import app
from xinglin.models.convert import convert, weights
from xinglin.models.convert.vocabulary import QWEN_CONTROL, QWEN_PIECES, pair_of, read_tiktoken
from xinglin.models.load import describe, load_base, load_tokenizer, save_model
from xinglin.models.template import encode_text, template_named
from xinglin.records import InputError
from xinglin.rollout.generator import Decoding
from xinglin.rollout.local import LocalGenerator

D, LAYERS, HEADS, FF, SEQ = 64, 2, 4, 96, 40
QWEN = {  # the keys of the published Qwen-14B, with a tiny model's numbers
    **{"architectures": ["QWenLMHeadModel"], "auto_map": {"AutoConfig": "configuration_qwen.QWenConfig"}},
    **{"attn_dropout_prob": 0.0, "bf16": False, "emb_dropout_prob": 0.0, "fp16": False, "fp32": False},
    **{"hidden_size": D, "intermediate_size": 2 * FF, "initializer_range": 0.02, "kv_channels": D // HEADS},
    **{"layer_norm_epsilon": 1e-6, "max_position_embeddings": 8192, "model_type": "qwen", "no_bias": True},
    **{"num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "onnx_safe": None, "rotary_emb_base": 10000},
    **{"rotary_pct": 1.0, "scale_attn_weights": True, "seq_length": SEQ, "tie_word_embeddings": False},
    **{"tokenizer_type": "QWenTokenizer", "transformers_version": "4.31.0", "use_cache": True},
    **{"use_flash_attn": "auto", "use_dynamic_ntk": True, "use_logn_attn": True},
}
BAICHUAN = {  # of the published Baichuan2-7B-Base
    **{"architectures": ["BaichuanForCausalLM"], "auto_map": {"AutoConfig": "configuration_baichuan.BaichuanConfig"}},
    **{"bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": D, "initializer_range": 0.02},
    **{"intermediate_size": FF, "max_position_embeddings": 64, "model_max_length": 64, "model_type": "baichuan"},
    **{"num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "pad_token_id": 0, "rms_norm_eps": 1e-6},
    **{"tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True, "z_loss_weight": 0},
}


# --- the published architectures, written out in float64 -------------------------------------------------------------


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def rotate(x_THD: Tensor) -> Tensor:
    """Rotary positions over the whole head: pairs are a half apart, pair i turns by t / 10000^(2i / D)."""
    T, _, size = x_THD.shape
    out = torch.empty_like(x_THD)
    for t in range(T):
        for i in range(size // 2):
            angle = t * 10000.0 ** (-2 * i / size)
            a, b = x_THD[t, :, i], x_THD[t, :, i + size // 2]
            out[t, :, i] = a * math.cos(angle) - b * math.sin(angle)
            out[t, :, i + size // 2] = b * math.cos(angle) + a * math.sin(angle)
    return out


def attend(q: Tensor, k: Tensor, v: Tensor, logn: int | None = None) -> Tensor:
    """(T, d) causal attention; with `logn`, query t is multiplied by log(t + 1) to the base `logn` beyond it."""
    T, d = q.shape
    q, k, v = (part.view(T, HEADS, d // HEADS) for part in (q, k, v))
    q, k = rotate(q), rotate(k)
    out = torch.zeros_like(v)
    for t in range(T):
        scale = math.log(t + 1, logn) if logn and t + 1 > logn else 1.0
        for h in range(HEADS):
            scores = (k[: t + 1, h] @ q[t, h]) * scale / math.sqrt(d // HEADS)
            out[t, h] = scores.softmax(0) @ v[: t + 1, h]
    return out.reshape(T, d)


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def qwen_forward(w: dict[str, Tensor], ids: list[int]) -> Tensor:
    """First-generation Qwen (arXiv:2309.16609, section 2.3): logits (T, V)."""
    w = {name: tensor.double() for name, tensor in w.items()}
    x = w["transformer.wte.weight"][ids]
    for n in range(LAYERS):
        at = f"transformer.h.{n}."
        h = rms_norm(x, w[at + "ln_1.weight"])
        q, k, v = (h @ w[at + "attn.c_attn.weight"].T + w[at + "attn.c_attn.bias"]).split(D, dim=-1)
        x = x + attend(q, k, v, logn=SEQ) @ w[at + "attn.c_proj.weight"].T
        h = rms_norm(x, w[at + "ln_2.weight"])
        x = x + (h @ w[at + "mlp.w1.weight"].T * silu(h @ w[at + "mlp.w2.weight"].T)) @ w[at + "mlp.c_proj.weight"].T
    return rms_norm(x, w["transformer.ln_f.weight"]) @ w["lm_head.weight"].T


def baichuan_forward(w: dict[str, Tensor], ids: list[int]) -> Tensor:
    """Baichuan2 7B (arXiv:2309.10305, sections 2.3 and 2.5): logits (T, V)."""
    w = {name: tensor.double() for name, tensor in w.items()}
    x = w["model.embed_tokens.weight"][ids]
    for n in range(LAYERS):
        at = f"model.layers.{n}."
        q, k, v = (rms_norm(x, w[at + "input_layernorm.weight"]) @ w[at + "self_attn.W_pack.weight"].T).split(D, dim=-1)
        x = x + attend(q, k, v) @ w[at + "self_attn.o_proj.weight"].T
        h = rms_norm(x, w[at + "post_attention_layernorm.weight"])
        gated = silu(h @ w[at + "mlp.gate_proj.weight"].T) * (h @ w[at + "mlp.up_proj.weight"].T)
        x = x + gated @ w[at + "mlp.down_proj.weight"].T
    head = w["lm_head.weight"]
    return rms_norm(x, w["model.norm.weight"]) @ (head / head.norm(dim=1, keepdim=True)).T


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    noise = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {name: 1 + 0.2 * x if "norm" in name or ".ln_" in name else 0.15 * x for name, x in noise.items()}


def qwen_weights(vocab_size: int) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (vocab_size, D),
        "transformer.ln_f.weight": (D,),
        "lm_head.weight": (vocab_size, D),
    }
    for n in range(LAYERS):
        at = f"transformer.h.{n}."
        shapes |= {at + "ln_1.weight": (D,), at + "ln_2.weight": (D,)}
        shapes |= {at + "attn.c_attn.weight": (3 * D, D), at + "attn.c_attn.bias": (3 * D,)}
        shapes |= {at + "attn.c_proj.weight": (D, D), at + "mlp.c_proj.weight": (D, FF)}
        shapes |= {at + "mlp.w1.weight": (FF, D), at + "mlp.w2.weight": (FF, D)}
    return random_weights(shapes)


def baichuan_weights(vocab_size: int) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        **{"model.embed_tokens.weight": (vocab_size, D), "model.norm.weight": (D,), "lm_head.weight": (vocab_size, D)}
    }
    for n in range(LAYERS):
        at = f"model.layers.{n}."
        shapes |= {at + "input_layernorm.weight": (D,), at + "post_attention_layernorm.weight": (D,)}
        shapes |= {at + "self_attn.W_pack.weight": (3 * D, D), at + "self_attn.o_proj.weight": (D, D)}
        shapes |= {at + f"mlp.{one}_proj.weight": (FF, D) for one in ("gate", "up")}
        shapes |= {at + "mlp.down_proj.weight": (D, FF)}
    return random_weights(shapes)


# --- vocabularies made on the spot -----------------------------------------------------------------------------------


def corpus() -> list[str]:
    english = "Take 0.5 g of amoxicillin three times a day, don't stop.\n"
    return [*tiny_models.TEXTS[:3], english, "头痛头痛头痛，发热😀😀。"]


def train_ranks(num_merges: int) -> dict[bytes, int]:
    """A byte BPE in a dozen lines: join the most frequent pair; tokens are kept as tiktoken does (bytes and rank)."""
    import regex

    ranks = {bytes([byte]): byte for byte in range(256)}
    words = Counter(piece for text in corpus() * 5 for piece in regex.findall(QWEN_PIECES, text))
    split = {word: [bytes([byte]) for byte in word.encode()] for word in words}
    for _ in range(num_merges):
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, parts in split.items():
            for pair in zip(parts, parts[1:], strict=False):
                pairs[pair] += words[word]
        pairs = Counter({pair: count for pair, count in pairs.items() if pair[0] + pair[1] not in ranks})
        if not pairs:
            break
        (a, b), _ = max(pairs.items(), key=lambda item: (item[1], item[0]))
        ranks[a + b] = len(ranks)
        for parts in split.values():
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == (a, b):
                    parts[i : i + 2] = [a + b]
                i += 1
    return ranks


def write_ranks(path: Path, ranks: dict[bytes, int]) -> None:
    path.write_bytes(b"\n".join(base64.b64encode(token) + b" %d" % rank for token, rank in ranks.items()) + b"\n")


@pytest.fixture(scope="module")
def ranks() -> dict[bytes, int]:
    return train_ranks(180)


@pytest.fixture
def qwen(tmp_path: Path, ranks: dict[bytes, int]) -> Path:
    """A folder as Qwen-14B was published: remote code, two shards with an index, qwen.tiktoken."""
    folder = tmp_path / "Qwen-tiny"
    folder.mkdir()
    vocab_size = len(ranks) + len(QWEN_CONTROL) + 12  # the published one has more rows than tokens, too
    (folder / "config.json").write_text(json.dumps({**QWEN, "vocab_size": vocab_size}), "utf-8")
    (folder / "modeling_qwen.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", "utf-8")
    tensors = qwen_weights(vocab_size)
    names = sorted(tensors)
    files = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, of in files.items():
        save_file({name: tensors[name] for name in of}, folder / file)
    where = {name: file for file, of in files.items() for name in of}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}), "utf-8")
    write_ranks(folder / "qwen.tiktoken", ranks)
    return folder


def published(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


# --- Qwen ------------------------------------------------------------------------------------------------------------


def test_qwen_logits_are_those_of_the_written_out_model(qwen: Path, tmp_path: Path) -> None:
    facts = convert(qwen, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True, dtype=torch.float64)
    assert type(model).__name__ == "Qwen2ForCausalLM" and facts["to"] == "Qwen2ForCausalLM"
    ids = torch.randint(0, model.config.vocab_size, (SEQ,), generator=torch.Generator().manual_seed(1))
    expected = qwen_forward(published(qwen), ids.tolist())
    with torch.no_grad():
        torch.testing.assert_close(model(ids[None]).logits[0], expected, atol=1e-5, rtol=0)
    ours = load_base(tmp_path / "out", nf4=False)  # as the engine loads it: float32, packed attention
    with torch.no_grad():
        assert float((ours(ids[None]).logits[0].double() - expected).abs().max()) < 1e-4
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    assert not (tmp_path / "ran").exists()


def test_the_longest_text_is_where_qwen_begins_to_stretch(qwen: Path, tmp_path: Path) -> None:
    """Beyond seq_length the published model is another one; the converted one says where it ends."""
    assert convert(qwen, tmp_path / "out")["max_tokens"] == SEQ
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True, dtype=torch.float64)
    ids = torch.randint(0, 300, (SEQ + 6,), generator=torch.Generator().manual_seed(1))
    expected = qwen_forward(published(qwen), ids.tolist())
    with torch.no_grad():
        difference = (model(ids[None]).logits[0] - expected).abs().amax(-1)
    assert float(difference[:SEQ].max()) < 1e-5 < 1e-4 < float(difference[SEQ:].min())
    config = json.loads((qwen / "config.json").read_text("utf-8")) | {"use_logn_attn": False, "use_dynamic_ntk": False}
    (qwen / "config.json").write_text(json.dumps(config), "utf-8")
    assert convert(qwen, tmp_path / "plain")["max_tokens"] == 8192


def test_a_converted_model_is_used_as_any_other(qwen: Path, tmp_path: Path) -> None:
    convert(qwen, tmp_path / "out")
    assert not describe(tmp_path / "out").is_adapter
    tokenizer, template = load_tokenizer(tmp_path / "out")
    assert template.name == "chatml" and tokenizer.eos_token == "<|endoftext|>"
    generator = LocalGenerator.load(tmp_path / "out")
    (answers,) = generator.generate([tiny_models.user("头痛")], Decoding(max_new_tokens=5, temperature=0.0), seed=0)
    assert answers[0].decoding["tokens"] == 5 or answers[0].decoding["finished"]


def strings(count: int, seed: int) -> list[str]:
    """Chinese, English, digits, signs, spaces, emoji, combining marks, control tokens as text; pieces of the corpus."""
    rng = random.Random(seed)
    parts = [
        *"头痛发热，。！？：；、（）患者三天的了是不医生龘０１①②℃μ",
        *["amoxicillin", "Don't", "we'll", "I'M", "café", "cafe\u0301", "0.5", "150/90", "mmHg"],
        *["  ", " ", "\n", "\r\n", "\t", "\u3000", "\u200b", "\ufeff", "---", "...", "<|im", "_start|>"],
        *["😀", "👨\u200d👩\u200d👧", "🤒", "한국", "ｶﾞ", "é", "ẛ̣", "aaaaaaa"],
    ]
    text = "".join(corpus())

    def part() -> str:
        start = rng.randrange(len(text))
        return rng.choice([rng.choice(parts), text[start : start + rng.randrange(12)]])

    return ["".join(part() for _ in range(rng.randrange(0, 25))) for _ in range(count)]


def test_ids_are_tiktokens(qwen: Path, tmp_path: Path, ranks: dict[bytes, int]) -> None:
    tiktoken = pytest.importorskip("tiktoken", reason="the independent tokenizer: pip install tiktoken")
    import unicodedata

    special = {token: len(ranks) + i for i, token in enumerate(QWEN_CONTROL)}
    theirs = tiktoken.Encoding("Qwen", pat_str=QWEN_PIECES, mergeable_ranks=ranks, special_tokens=special)
    convert(qwen, tmp_path / "out")
    ours, _ = load_tokenizer(tmp_path / "out")
    used = set()
    for text in strings(1000, seed=0):
        expected = theirs.encode(unicodedata.normalize("NFC", text), disallowed_special=())
        assert encode_text(ours, text) == expected, text
        used.update(expected)
        assert ours.decode(expected) == unicodedata.normalize("NFC", text)
    assert len(used & set(range(256, len(ranks)))) > 100  # the merges were at work, not bytes alone
    chat = "<|im_start|>user\n头痛<|im_end|>\n<|endoftext|><|extra_204|>"
    assert ours.encode(chat) == theirs.encode(chat, allowed_special="all")
    assert len(ours) == theirs.n_vocab


def test_pairs_by_hand() -> None:
    ranks = {b"a": 0, b"b": 1, b"c": 2, b"ab": 3, b"bc": 4, b"abc": 5, b"aa": 6, b"aaa": 7, b"cb": 8, b"abcb": 9}
    assert pair_of(b"abc", ranks) == (b"ab", b"c")  # ab comes before bc
    assert pair_of(b"aaa", ranks) == (b"aa", b"a")  # the leftmost of equals
    assert pair_of(b"abcb", ranks) == (b"abc", b"b")
    assert pair_of(b"bcb", ranks | {b"bcb": 10}) == (b"bc", b"b")
    assert pair_of(b"caa" + b"c", ranks | {b"caac": 10}) is None  # c, aa, c: three parts that nothing joins
    assert pair_of(b"a", ranks) is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("!!!! 300", "line 301: not a new token in base64 and its rank 300"),
        ("YWJjZGVmZ2hpamts 299", "line 301: not a new token"),
        ("YQ== 300", "line 301: not a new token"),  # a is there already
        ("YWJjZGVmZ2hpamts", "line 301: not a new token"),
    ],
)
def test_a_damaged_vocabulary_names_its_line(tmp_path: Path, ranks: dict[bytes, int], line: str, says: str) -> None:
    path = tmp_path / "qwen.tiktoken"
    write_ranks(path, {token: rank for token, rank in ranks.items() if rank < 300})
    path.write_bytes(path.read_bytes() + line.encode())
    with pytest.raises(InputError, match=says):
        read_tiktoken(path)


# --- weights ---------------------------------------------------------------------------------------------------------


def test_small_shards_hold_the_same_weights(qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(qwen, tmp_path / "one")
    monkeypatch.setattr(weights, "SHARD_BYTES", 60_000)
    convert(qwen, tmp_path / "many")
    files = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 4 and files[0] == f"model-00001-of-{len(files):05}.safetensors"
    one, many = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("one", "many"))
    assert all(torch.equal(one[name], many[name]) for name in one)


def to_bin(folder: Path) -> None:
    torch.save(published(folder), folder / "pytorch_model.bin")
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.index.json")]:
        path.unlink()


def test_bin_only_by_a_flag(qwen: Path, tmp_path: Path) -> None:
    tensors = published(qwen)
    to_bin(qwen)
    with pytest.raises(InputError, match=r"found pickled weights \(pytorch_model.bin\), which are refused"):
        convert(qwen, tmp_path / "out")
    convert(qwen, tmp_path / "out", allow_bin=True)
    stored = load_file(tmp_path / "out/model.safetensors")
    assert torch.equal(stored["model.layers.1.mlp.up_proj.weight"], tensors["transformer.h.1.mlp.w1.weight"])
    key_bias = tensors["transformer.h.0.attn.c_attn.bias"][D : 2 * D]
    assert torch.equal(stored["model.layers.0.self_attn.k_proj.bias"], key_bias)


class Payload:
    """Unpickled, it touches a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.marker}'",)


def test_a_pickle_that_is_no_tensor_is_not_run(qwen: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for number, dump in enumerate((lambda o, p: torch.save(o, p), lambda o, p: p.write_bytes(pickle.dumps(o)))):
        to_bin(qwen) if number == 0 else None
        dump({"x": Payload(marker)}, qwen / "pytorch_model.bin")
        with pytest.raises(InputError, match="cannot be read as tensors alone") as error:
            convert(qwen, tmp_path / "out", allow_bin=True)
        assert "\n" not in str(error.value) and not marker.exists()
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def edit(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **values}), "utf-8")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model_type": "llama"}, "model_type 'llama' is not one that convert maps"),
        ({"quantization_config": {"bits": 4}}, "the weights are quantised"),
        ({"rotary_pct": 0.25}, "rotary_pct is 0.25; only 1.0 has an exact native form"),
        ({"no_bias": False}, "no_bias is False"),
        ({"kv_channels": 8}, "kv_channels 8 x 4 heads is not hidden_size 64"),
        ({"num_hidden_layers": 3}, "the weights lack model.layers.2"),
        ({"intermediate_size": 4 * FF}, r"down_proj.weight is \(64, 96\), config.json asks for \(64, 192\)"),
        ({"vocab_size": 400}, "config.json has vocab_size 400"),
    ],
)
def test_what_has_no_exact_form_is_refused(qwen: Path, tmp_path: Path, values: dict[str, Any], says: str) -> None:
    edit(qwen, **values)
    with pytest.raises(InputError, match=says) as error:
        convert(qwen, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_a_strange_tensor_or_a_lost_shard_is_refused(qwen: Path, tmp_path: Path) -> None:
    first, second = sorted(qwen.glob("*.safetensors"))
    tensors = load_file(first)
    save_file({**tensors, "transformer.visual.conv1.weight": torch.zeros(2)}, first)  # Qwen-VL
    with pytest.raises(InputError, match="tensor transformer.visual.conv1.weight is not of this architecture"):
        convert(qwen, tmp_path / "out")
    save_file({**tensors, "transformer.h.0.attn.rotary_emb.inv_freq": torch.zeros(8)}, first)  # a buffer: left out
    convert(qwen, tmp_path / "out")
    second.unlink()
    with pytest.raises(InputError, match=f"names {second.name}, which is not there"):
        convert(qwen, tmp_path / "again")
    with pytest.raises(InputError, match="not an empty folder"):
        convert(qwen, tmp_path / "out")


def test_the_command_and_the_refusal_that_names_it(qwen: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"`xinglin convert {qwen} --out DIR` maps it to a native shape"):
        describe(qwen)
    found = CliRunner().invoke(app, ["convert", str(qwen), "--out", str(tmp_path / "out"), "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["to"] == "Qwen2ForCausalLM"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *["chat_template.jinja", "config.json", "generation_config.json", "model.safetensors"],
        *["tokenizer.json", "tokenizer_config.json", "xinglin.json"],
    ]


# --- Baichuan and Ziya -----------------------------------------------------------------------------------------------


@pytest.fixture
def baichuan(tmp_path: Path) -> Path:
    sentencepiece = pytest.importorskip("sentencepiece", reason="Baichuan's vocabulary: pip install sentencepiece")
    folder = tmp_path / "Baichuan2-tiny"
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in corpus() * 20 for line in text.splitlines()]),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        split_digits=True,
        user_defined_symbols=["<reserved_106>", "<reserved_107>"],
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    (folder / "config.json").write_text(json.dumps({**BAICHUAN, "vocab_size": 410}), "utf-8")
    save_file(baichuan_weights(410), folder / "model.safetensors")
    return folder


def test_baichuan_logits_are_those_of_the_written_out_model(baichuan: Path, tmp_path: Path) -> None:
    facts = convert(baichuan, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True, dtype=torch.float64)
    assert facts["to"] == type(model).__name__ == "LlamaForCausalLM"
    ids = torch.randint(0, 410, (48,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(ids[None]).logits[0]
    torch.testing.assert_close(logits, baichuan_forward(published(baichuan), ids.tolist()), atol=1e-5, rtol=0)


def test_the_head_of_the_first_baichuan_stays_as_it_is(baichuan: Path, tmp_path: Path) -> None:
    config = {name: value for name, value in BAICHUAN.items() if name != "z_loss_weight"}
    (baichuan / "config.json").write_text(json.dumps({**config, "vocab_size": 410}), "utf-8")
    convert(baichuan, tmp_path / "out")
    stored = load_file(tmp_path / "out/model.safetensors")["lm_head.weight"]
    assert torch.equal(stored, published(baichuan)["lm_head.weight"])


def test_ids_are_sentencepieces(baichuan: Path, tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    convert(baichuan, tmp_path / "out")
    theirs = SentencePieceProcessor(model_file=str(baichuan / "tokenizer.model"))
    ours, template = load_tokenizer(tmp_path / "out", "llama")
    assert (ours.bos_token, ours.eos_token, template.stop) == ("<s>", "</s>", "</s>")
    used = set()
    for text in [*strings(1000, seed=1), "<reserved_106>头痛<reserved_107>"]:
        assert encode_text(ours, text) == theirs.encode(text), text
        assert ours.decode(theirs.encode(text)) == text
        used.update(theirs.encode(text))
    assert len(used & set(range(261, 400))) > 50


def test_a_baichuan_with_alibi_is_refused(baichuan: Path, tmp_path: Path) -> None:
    config = {name: value for name, value in BAICHUAN.items() if name != "max_position_embeddings"}
    (baichuan / "config.json").write_text(json.dumps({**config, "vocab_size": 410}), "utf-8")
    with pytest.raises(InputError, match="Baichuan 13B has ALiBi positions"):
        convert(baichuan, tmp_path / "out")


def test_a_llama_with_ziyas_vocabulary_loads_as_it_is(tmp_path: Path) -> None:
    """Ziya2 (arXiv:2311.03301) is a LLaMA with 39,424 rows of vocabulary: no conversion, whatever fast tokenizer."""
    model = tiny_models.model("llama", vocab_size=39_424)
    save_model(tmp_path / "ziya", model, tiny_models.tokenizer("human-bot-angle"), template_named("human-bot-angle"))
    (tmp_path / "ziya/xinglin.json").unlink()
    assert load_base(tmp_path / "ziya", nf4=False).get_output_embeddings().weight.shape == (39_424, 64)
    generator = LocalGenerator.load(tmp_path / "ziya", template="human-bot-angle")
    (answers,) = generator.generate([tiny_models.user("头痛")], Decoding(max_new_tokens=3, temperature=0.0), seed=0)
    assert answers[0].decoding["tokens"] <= 3
