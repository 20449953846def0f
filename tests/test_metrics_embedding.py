"""The small word2vec and what is said about its cosines."""

from __future__ import annotations

import math
import random
import time

import numpy as np
import pytest

from xinglin import metrics


def test_words() -> None:
    assert metrics.split_words("高血压，CT") == ["高血", "血压", "CT"]
    lexicon = frozenset(["高血压", "高血压患者", "服药"])
    assert metrics.split_words("高血压患者按时服药", lexicon) == ["高血压患者", "按", "时", "服药"]


def test_roc_auc_equals_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    right, wrong = rng.integers(0, 20, 80).tolist(), rng.integers(0, 15, 50).tolist()
    theirs = sklearn.roc_auc_score([1] * 80 + [0] * 50, right + wrong)
    assert metrics.roc_auc(right, wrong) == pytest.approx(theirs)
    assert metrics.roc_auc([2.0], [1.0]) == 1
    assert metrics.roc_auc([1.0], [1.0]) == 0.5


def topics(rng: random.Random, count: int) -> list[str]:
    """Two subjects whose words never meet."""
    words = {"心": ["胸痛", "心悸", "血压", "心梗"], "皮": ["皮疹", "瘙痒", "湿疹", "药膏"]}
    return [" ".join(rng.choices(words[rng.choice("心皮")], k=8)) for _ in range(count)]


def test_embedding_learns_who_keeps_company() -> None:
    """One negative: with k of them the optimum is PMI - log k, which in a dozen words pulls all vectors together."""
    lexicon = ["胸痛", "心悸", "皮疹", "瘙痒"]
    embed = metrics.train_embedding(topics(random.Random(6), 1_000), lexicon, negatives=1, seed=1)
    assert embed.vectors.shape[1] == 64
    near, far = metrics.similarity(embed, ["胸痛", "胸痛"], ["心悸", "瘙痒"])
    assert near > far + 30
    again = metrics.train_embedding(topics(random.Random(6), 1_000), lexicon, negatives=1, seed=1)
    assert np.array_equal(embed.vectors, again.vectors)


def test_similarity_of_silence_is_zero_and_of_itself_100() -> None:
    embed = metrics.train_embedding(topics(random.Random(6), 100), seed=1)
    assert metrics.similarity(embed, ["胸痛", "", "胸痛"], ["胸痛", "胸痛", "xyz"]) == pytest.approx(
        [100, 0, 0], abs=1e-4
    )


def test_similarity_says_when_it_is_no_quality_measure() -> None:
    blind = metrics.train_embedding(topics(random.Random(6), 100), seed=1)
    triples = [("胸痛 心悸", "心悸 胸痛", "胸痛 不 心悸")] * 20
    assert metrics.similarity_report(blind, ["胸痛"], ["心悸"], triples)["verdict"] == "not a quality measure"

    def seeing(texts: list[str]) -> np.ndarray:
        return np.array([[1.0, 5.0 if "不" in text else 0.0] for text in texts])

    report = metrics.similarity_report(seeing, ["胸痛", "不"], ["心悸", "不"], triples)
    assert report["auc"] == 1.0 and report["verdict"] == ""
    assert report["mean"] == pytest.approx(100) and report["floor"] == pytest.approx(100 / math.sqrt(26))


def test_embedding_of_400k_characters_is_quick() -> None:
    rng = np.random.default_rng(0)
    zipf = np.minimum(rng.zipf(1.3, 400_000), 3_000) + 0x4E00
    texts = ["".join(map(chr, zipf[first : first + 200])) for first in range(0, len(zipf), 200)]
    start = time.process_time()
    metrics.train_embedding(texts, seed=0)
    assert time.process_time() - start < 30  # 7 s where it was written; CI machines are slower
