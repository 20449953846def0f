"""The embedded model: a tokenizer trained on the spot and a small random model, so that every stage runs anywhere.

It stands in for LLaMA-33B, Ziya-13B or Qwen-14B; what comes out of it is synthetic and proves the machinery, not
medicine.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from xinglin.models.template import jinja, template_named
from xinglin.records import InputError

SHAPES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}
CONTROL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def train_tokenizer(texts: Iterable[str], vocab_size: int, template: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer over `texts`: nothing is ever unknown, and the same texts give the same tokenizer.

    Text is cut at punctuation, digits, spaces and line ends first, so that a dose is spelled digit by digit, no token
    crosses a clause, and none joins a template's prefix to what is said: the stored chat template gives our tokens.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Split(Regex(r"\s"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=CONTROL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=24,  # bytes: eight Chinese characters
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token=template_named(template).stop,
        pad_token="<unk>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = jinja(template_named(template))
    return tokenizer


def build_model(
    shape: str,
    vocab_size: int,
    *,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int | None = None,
    max_seq_len: int,
    seed: int,
    **extra: object,
) -> PreTrainedModel:
    """A random model of the LLaMA, Qwen2, Qwen3 or Mistral shape; the same seed gives the same weights."""
    if shape not in SHAPES:
        raise InputError(f"model shape {shape!r} is unknown; allowed: {', '.join(SHAPES)}")
    config_class, model_class = SHAPES[shape]
    config = config_class(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=(hidden_size * 8 // 3 + 63) // 64 * 64,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_kv_heads or num_heads,
        head_dim=hidden_size // num_heads,
        max_position_embeddings=max_seq_len,
        tie_word_embeddings=False,
        initializer_range=hidden_size
        ** -0.5,  # transformers' 0.02 suits wide models; this narrow one learns slower by it
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **extra,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config)
