"""A small word2vec, and what cosine similarity of its averages is worth.

IvyGPT (arXiv 2307.10512) reports cosine x 100 of 64-dimensional word2vec embeddings and does not say which. This one
is trained on the spot: skip-gram with negative sampling (Mikolov et al. 2013), 64 dimensions, seeded. Words are found
by forward maximum match over a lexicon, or, without one, are overlapping character bigrams.

Averages of word vectors saturate: antonyms share contexts, negations and numbers vanish, long texts all look alike.
So the similarity is only given with its floor (answers against other questions' references) and its AUC (right
against negated texts): below 0.8 it says "not a quality measure".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xinglin.records import InputError

Array = NDArray[np.float32]
Ids = NDArray[np.int64]
Embed = Callable[[Sequence[str]], Array]
DIMENSIONS = 64
BATCH = 8192
SHARED_NEGATIVES = 64  # drawn once a batch and weighted down: one matrix product instead of a gather for each pair
WORDLIKE = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Embedding:
    """Callable: texts -> mean of the vectors of their known words, a zero row where none is known."""

    index: dict[str, int]
    vectors: Array
    lexicon: frozenset[str] = frozenset()

    def __call__(self, texts: Sequence[str]) -> Array:
        rows = np.zeros((len(texts), self.vectors.shape[1]), dtype=np.float32)
        for row, text in enumerate(texts):
            known = [self.index[word] for word in split_words(text, self.lexicon) if word in self.index]
            if known:
                rows[row] = self.vectors[known].mean(0)
        return rows


def split_words(text: str, lexicon: frozenset[str] = frozenset()) -> list[str]:
    """Words of the lexicon from left to right, longest first, else single characters; or character bigrams."""
    runs = WORDLIKE.findall(text)
    if not lexicon:
        return [run[i : i + 2] for run in runs for i in range(max(1, len(run) - 1))]
    longest = max(map(len, lexicon))
    return [word for run in runs for word in _longest_matches(run, lexicon, longest)]


def _longest_matches(run: str, lexicon: frozenset[str], longest: int) -> Iterator[str]:
    start = 0
    while start < len(run):
        lengths = range(min(longest, len(run) - start), 1, -1)
        size = next((size for size in lengths if run[start : start + size] in lexicon), 1)
        yield run[start : start + size]
        start += size


def train_embedding(
    texts: Iterable[str],
    lexicon: Iterable[str] = (),
    *,
    dimensions: int = DIMENSIONS,
    window: int = 4,
    negatives: int = 5,
    epochs: int = 3,
    min_count: int = 3,
    learning_rate: float = 0.1,
    seed: int = 0,
) -> Embedding:
    """Skip-gram vectors of the words seen at least `min_count` times. 400k characters: seconds on one core."""
    words = frozenset(lexicon)
    lines = [split_words(text, words) for text in texts]
    counts = Counter(word for line in lines for word in line)
    index = {word: row for row, (word, n) in enumerate(counts.most_common()) if n >= min_count}
    if len(index) < 2:
        raise InputError(f"{len(index)} words occur {min_count} times or more; an embedding needs more text")
    frequency = np.array([counts[word] for word in index], dtype=np.float64)
    rng = np.random.default_rng(seed)
    model = _SkipGram(len(index), dimensions, frequency, negatives, learning_rate, rng)
    for _ in range(epochs):
        centres, contexts = _pairs(lines, index, frequency, window, rng)
        for first in range(0, len(centres), BATCH):
            model.update(centres[first : first + BATCH], contexts[first : first + BATCH])
    return Embedding(index, model.centre_vectors, words)


def _pairs(
    lines: list[list[str]], index: dict[str, int], frequency: NDArray[np.float64], window: int, rng: np.random.Generator
) -> tuple[Ids, Ids]:
    """Shuffled (centre, context) pairs, both ways; frequent words thinned, near neighbours preferred."""
    gap = [-1] * window
    ids = np.array([i for line in lines for i in [index[w] for w in line if w in index] + gap], dtype=np.int64)
    share = frequency / frequency.sum()
    keep = np.minimum(1.0, np.sqrt(1e-3 / share) + 1e-3 / share)
    ids = ids[(ids < 0) | (rng.random(len(ids)) < keep[ids])]
    found: list[tuple[Ids, Ids]] = []
    for distance in range(1, window + 1):
        left, right = ids[:-distance], ids[distance:]
        chosen = (left >= 0) & (right >= 0) & (rng.random(len(left)) < 1 - (distance - 1) / window)
        found += [(left[chosen], right[chosen]), (right[chosen], left[chosen])]
    centres, contexts = (np.concatenate(side) for side in zip(*found, strict=True))
    order = rng.permutation(len(centres))
    return centres[order], contexts[order]


class _SkipGram:
    """Two tables of vectors and one Adagrad accumulator a row: summed batch gradients stay tame for frequent words."""

    def __init__(
        self,
        size: int,
        dimensions: int,
        frequency: NDArray[np.float64],
        negatives: int,
        rate: float,
        rng: np.random.Generator,
    ) -> None:
        self.centre_vectors = ((rng.random((size, dimensions)) - 0.5) / dimensions).astype(np.float32)
        self.context_vectors = np.zeros((size, dimensions), dtype=np.float32)
        self.centre_norms, self.context_norms = np.zeros(size, np.float32), np.zeros(size, np.float32)
        noise = frequency**0.75
        self.noise = np.cumsum(noise / noise.sum())
        self.weight, self.rate, self.rng = negatives / SHARED_NEGATIVES, rate, rng

    def update(self, centres: Ids, contexts: Ids) -> None:
        drawn = np.searchsorted(self.noise[:-1], self.rng.random(SHARED_NEGATIVES))
        inner, outer, noise = self.centre_vectors[centres], self.context_vectors[contexts], self.context_vectors[drawn]
        pull = (_sigmoid((inner * outer).sum(1)) - 1)[:, None]
        push = np.asarray(_sigmoid(_product(inner, noise.T)) * self.weight, np.float32)
        self._step(self.centre_vectors, self.centre_norms, centres, pull * outer + _product(push, noise))
        rows, gradients = np.concatenate([contexts, drawn]), np.concatenate([pull * inner, _inner(push, inner)])
        self._step(self.context_vectors, self.context_norms, rows, gradients)

    def _step(self, table: Array, norms: Array, rows: Ids, gradients: Array) -> None:
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        rows, sums = rows[starts], np.add.reduceat(gradients[order], starts)
        norms[rows] += (sums * sums).mean(1)
        table[rows] -= self.rate * sums / np.sqrt(norms[rows] + 1e-8)[:, None]


# Matrix products in blocks of 32 rows: small enough for BLAS to stay on one thread. On a busy machine its spinning
# threads made training 13 times slower (85 s for 6.5 s).
ROWS = 32


def _product(a: Array, b: Array) -> Array:
    whole = len(a) - len(a) % ROWS
    blocks = np.matmul(a[:whole].reshape(-1, ROWS, a.shape[1]), b).reshape(whole, b.shape[1])
    return np.concatenate([blocks, a[whole:] @ b])


def _inner(a: Array, b: Array) -> Array:
    """a.T @ b."""
    whole = len(a) - len(a) % ROWS
    left, right = (side[:whole].reshape(-1, ROWS, side.shape[1]) for side in (a, b))
    total: Array = np.matmul(left.transpose(0, 2, 1), right).sum(0) + a[whole:].T @ b[whole:]
    return total


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))), dtype=np.float32)


def similarity(embed: Embed, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
    """Cosine x 100 of each pair; 0 where a text has no known word, so silence never helps."""
    if len(predictions) != len(references):
        raise InputError(f"{len(predictions)} predictions and {len(references)} references; give one for each")
    if not predictions:
        return []
    a, b = np.asarray(embed(predictions), np.float64), np.asarray(embed(references), np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.divide((a * b).sum(1), norms, out=np.zeros(len(a)), where=norms > 0)
    return [float(value) for value in 100 * cosines]


def similarity_report(
    embed: Embed,
    predictions: Sequence[str],
    references: Sequence[str],
    triples: Sequence[tuple[str, str, str]] = (),
    *,
    seed: int = 0,
) -> dict[str, float | str | None]:
    """Mean, floor and AUC. A triple is (reference, right text, negated text)."""
    values = similarity(embed, predictions, references)
    order = np.random.default_rng(seed).permutation(len(values))
    shuffled = [references[i] for i in np.roll(order, 1)]
    floor = similarity(embed, [predictions[i] for i in order], shuffled) if len(values) > 1 else []
    auc = None
    if triples:
        golds, rights, wrongs = zip(*triples, strict=True)
        auc = roc_auc(similarity(embed, rights, golds), similarity(embed, wrongs, golds))
    verdict = "" if auc is not None and auc >= 0.8 else "not a quality measure"
    return {
        "mean": float(np.mean(values)) if values else None,
        "floor": float(np.mean(floor)) if floor else None,
        "auc": auc,
        "num_triples": len(triples),
        "verdict": verdict,
    }


def roc_auc(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Chance that a right text scores above a wrong one, ties half (Mann and Whitney 1947)."""
    ordered = np.sort(np.asarray(wrong, np.float64))
    below, not_above = np.searchsorted(ordered, right, "left"), np.searchsorted(ordered, right, "right")
    return float((below + not_above).mean() / 2 / len(ordered))
