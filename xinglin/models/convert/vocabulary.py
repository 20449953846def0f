"""A published vocabulary as a `tokenizers` tokenizer of equal ids.

`qwen.tiktoken` holds one token a line: its bytes in base64 and its rank. Such a BPE joins, again and again, the two
neighbours whose concatenation has the lowest rank (the leftmost of equals). The pair that makes a token is therefore
found by running the BPE on the token's own bytes with the lower ranks alone: two parts are left, and they are its
merge. A text piece that is a token as it stands takes that token at once, as tiktoken does.

`tokenizer.model` is a sentencepiece BPE; the same ranks stand in the order of its pieces. What sentencepiece does to a
text before (a space in front, the spaces it keeps) is found by asking it, and the result is compared on probes.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from xinglin.records import InputError

# The cut of Qwen's tokenizer: contractions, words with one sign before, single digits, signs, line ends, spaces.
QWEN_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{number}|>" for number in range(205)))
PROBES = (
    "患者男，56岁，反复咳嗽3个月。血压 150/90 mmHg，血糖 7.8mmol/L。",
    "  two  spaces, \ta tab\nand a line end \n\n",
    "Take 0.5g t.i.d. for 14 days; Don't stop! café ① ２３ 🤒👨‍👩‍👧 \u200b",
    "",
    " ",
    "繁體與龘字",
)


def tiktoken_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Qwen's tokenizer, control tokens after the ranks as published: the end of text, ChatML's two, 205 spare ones."""
    ranks = read_tiktoken(path)
    letters = byte_letters()
    vocabulary = {spell(token, letters): rank for token, rank in ranks.items()}
    bpe = Tokenizer(models.BPE(vocabulary, _spelled_merges(ranks, letters), ignore_merges=True))
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in QWEN_CONTROL])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        clean_up_tokenization_spaces=False,
    )


def read_tiktoken(path: Path) -> dict[bytes, int]:
    """Token -> rank. Raises `InputError` with the line of what is no token, double, or missing."""
    if not path.is_file():
        raise InputError(f"{path}: not there; it is published beside the model's weights")
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            encoded, rank = line.split()
            token = base64.b64decode(encoded, validate=True)
            expected = len(ranks)
            if int(rank) != expected or token in ranks or not token:
                raise ValueError
        except (ValueError, binascii.Error):
            raise InputError(
                f"{path}, line {number}: not a new token in base64 and its rank {len(ranks)}; copy the file again"
            ) from None
        ranks[token] = expected
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise InputError(f"{path}: lacks some of the 256 single bytes; it is no whole byte vocabulary")
    return ranks


def pair_of(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two tokens that the BPE joins last to make this one; None where it never makes it.

    >>> pair_of(b"abc", {b"a": 0, b"b": 1, b"c": 2, b"bc": 3, b"ab": 4, b"abc": 5})
    (b'a', b'bc')
    """
    parts = [token[i : i + 1] for i in range(len(token))]
    limit = ranks[token]
    while len(parts) > 2:
        joined = [ranks.get(a + b, limit) for a, b in zip(parts, parts[1:], strict=False)]
        best = min(range(len(joined)), key=joined.__getitem__)
        if joined[best] >= limit:
            return None
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return (parts[0], parts[1]) if len(parts) == 2 else None


def _spelled_merges(ranks: dict[bytes, int], letters: dict[int, str]) -> list[tuple[str, str]]:
    pairs = (pair_of(token, ranks) for token in sorted(ranks, key=ranks.__getitem__) if len(token) > 1)
    return [(spell(a, letters), spell(b, letters)) for a, b in filter(None, pairs)]


def byte_letters() -> dict[int, str]:
    """The letter that byte-level BPE writes for each byte: printable Latin-1 as itself, the rest from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(0x100 + i) for i, byte in enumerate(others)}}


def spell(token: bytes, letters: dict[int, str]) -> str:
    return "".join(letters[byte] for byte in token)


def sentencepiece_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Baichuan's tokenizer. Raises `InputError` where the native one does not give the very same ids on the probes."""
    pieces = _load_sentencepiece(path)
    size = pieces.get_piece_size()
    names = [pieces.id_to_piece(index) for index in range(size)]
    plain = [i for i in range(size) if not (pieces.is_control(i) or pieces.is_unknown(i) or pieces.is_byte(i))]
    merges = _sentencepiece_merges([names[i] for i in plain])
    bpe = Tokenizer(
        models.BPE(
            {name: index for index, name in enumerate(names)},
            merges,
            unk_token=names[pieces.unk_id()],
            byte_fallback=any(pieces.is_byte(i) for i in range(size)),
            fuse_unk=True,
        )
    )
    steps: list[Any] = [normalizers.Replace(" ", "▁")]
    if pieces.encode_as_pieces("患")[0].startswith("▁"):
        steps.insert(0, normalizers.Prepend("▁"))
    bpe.normalizer = normalizers.Sequence(steps)
    strip = [decoders.Strip(" ", 1, 0)] if len(steps) == 2 else []
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    control = [names[i] for i in range(size) if pieces.is_control(i) or pieces.is_unknown(i)]
    bpe.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in control])
    made = {a + b for a, b in merges}
    whole = [names[i] for i in plain if len(names[i]) > 1 and names[i] not in made and _stands_alone(pieces, i)]
    bpe.add_tokens([AddedToken(name, normalized=False) for name in whole])  # what sentencepiece calls user-defined
    for probe in PROBES:
        if bpe.encode(probe, add_special_tokens=False).ids != pieces.encode(probe):
            raise InputError(f"{path}: this sentencepiece model has no exact native form (its ids differ on a probe)")
    bos, eos, unk = (names[i] if i >= 0 else None for i in (pieces.bos_id(), pieces.eos_id(), pieces.unk_id()))
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        pad_token=unk,
        clean_up_tokenization_spaces=False,
    )


def _stands_alone(pieces: Any, index: int) -> bool:
    return pieces.encode(pieces.id_to_piece(index))[-1] == index


def _load_sentencepiece(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: not there; it is published beside the model's weights")
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise InputError(f"{path}: reading it needs sentencepiece; pip install 'xinglin[convert]'") from None
    try:
        return SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError):
        raise InputError(f"{path}: no sentencepiece model; the file is damaged, copy it again") from None


def _sentencepiece_merges(names: list[str]) -> list[tuple[str, str]]:
    """All splits of each piece into two others, in the order of the pieces: sentencepiece joins what makes the best
    piece, whichever way it was cut."""
    order = {name: rank for rank, name in enumerate(names)}
    merges = []
    for name in names:
        cuts = [(name[:i], name[i:]) for i in range(1, len(name))]
        known = [(a, b) for a, b in cuts if a in order and b in order]
        merges += sorted(known, key=lambda pair: (order[pair[0]], order[pair[1]]))
    return merges
