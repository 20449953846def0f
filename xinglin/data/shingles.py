"""Sets of character n-grams of many texts at once: hashes, MinHash signatures, Jaccard. Numpy only.

Chinese has no spaces, so a shingle is n characters. Texts stand one after the other in one array of code points, with
the place where each starts ("ragged"); every operation runs over that array, in blocks that stay in the cache.

MinHash (Broder 1997): for a random order of all shingles, two sets have the same smallest one with probability equal
to their Jaccard similarity. An order is multiply-shift (Dietzfelbinger 1997) of a mixed hash, cut to 32 bits.
"""

from __future__ import annotations

import functools
import math
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from xinglin.data.texts import normal

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
NUM_CHARS = 5
BLOCK = 1 << 17
"""Code points of one block: its hashes (8 bytes each) fit the second-level cache."""
MOST_PERMUTATIONS = 128
SHORTAGE = 0.01
"""Chance that a pair at the threshold shares no band."""
DROPPED, HARD = 0, 0xFFFFFFFF
MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93))


@functools.cache
def _normal_table() -> NDArray[np.uint32]:
    """The normal form of every character of the basic plane: its code point, DROPPED, or HARD."""
    table = np.full(1 << 16, HARD, np.uint32)
    for number in range(1 << 16):
        char = chr(number)
        form = normal(char)
        composes = unicodedata.category(char)[0] == "M" or 0x1100 <= number < 0x1200  # with the character before it
        if len(form) < 2 and not composes:
            table[number] = ord(form) if form else DROPPED
    return table


def normal_points(texts: Sequence[str]) -> tuple[NDArray[np.uint32], I64]:
    """The normal forms (texts.normal) of all texts as one array of code points, and the length of each.

    By a table, character by character; a text with characters that the table cannot treat alone goes the slow way.
    """
    points, lengths, found = _looked_up(texts)
    if (hard := np.flatnonzero(found == HARD)).size:
        rows = set(np.searchsorted(np.cumsum(lengths), hard, "right").tolist())
        points, lengths, found = _looked_up([normal(t) if row in rows else t for row, t in enumerate(texts)])
        found = np.where(found == HARD, points, found)  # what is still hard has been through `normal`
    kept = found != DROPPED
    ends = np.concatenate([[0], np.cumsum(kept)])[np.cumsum(lengths)]
    return found[kept], np.diff(ends, prepend=0)


def _looked_up(texts: Sequence[str]) -> tuple[NDArray[np.uint32], I64, NDArray[np.uint32]]:
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    found = _normal_table()[points.astype(np.uint16)]  # wraps what lies beyond the basic plane
    found[points > 0xFFFF] = HARD
    return points, lengths, found


def blocks(lengths: I64) -> Iterator[tuple[int, int]]:
    """Runs of neighbouring rows of about `BLOCK` characters as (start, stop); a longer row is a block of its own."""
    ends = np.cumsum(lengths)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + BLOCK, "right")), start + 1)
        yield start, stop
        start = stop


def padded(points: NDArray[np.uint32], lengths: I64, n: int = NUM_CHARS) -> tuple[NDArray[np.uint32], I64]:
    """Rows shorter than n filled up with zeros, which no normal form holds.

    The one shingle of a short text is then the text itself: short texts are equal or different, and never collapse.
    """
    if not len(lengths) or int(lengths.min()) >= n:
        return points, lengths
    longer = np.maximum(lengths, n)
    filled = np.zeros(int(longer.sum()), np.uint32)
    filled[np.repeat(starts_of(longer), lengths) + within(lengths)] = points
    return filled, longer


def within(counts: I64) -> I64:
    """0, 1, ... up to each count, one after the other."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)


def starts_of(lengths: I64) -> I64:
    """Where each of the rows begins."""
    return np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)


def hashes(points: NDArray[np.uint32], lengths: I64, n: int = NUM_CHARS) -> U64:
    """A hash for every place: of the n characters from there on, within one row.

    The last n - 1 places of a row, where no n-gram begins, repeat the row's first hash: nothing is added to the set.
    """
    starts = starts_of(lengths)
    size = len(points) - n + 1
    found = np.empty(len(points), np.uint64)
    rolled = points[:size].astype(np.uint64)
    for offset in range(1, n):
        rolled *= MIX[0]
        rolled += points[offset : offset + size]
    found[:size] = mixed(rolled)
    tails = (starts + lengths)[:, None] - np.arange(1, n)
    found[tails] = found[starts][:, None]
    return found


def mixed(values: U64) -> U64:
    """Spread what differs in few bits over all 64, in place."""
    values ^= values >> np.uint64(32)
    values *= MIX[1]
    values ^= values >> np.uint64(29)
    values *= MIX[0]
    values ^= values >> np.uint64(32)
    return values


def bands_for(threshold: float) -> tuple[int, int]:
    """(bands, rows in a band): the most rows, so the fewest false candidates, that still find a pair at the threshold.

    A pair of similarity s shares at least one of b bands of r rows with probability 1 - (1 - s^r)^b.
    """
    best = (MOST_PERMUTATIONS, 1)
    for rows in range(1, MOST_PERMUTATIONS + 1):
        hit = min(threshold**rows, 1 - 1e-12)
        bands = math.ceil(math.log(SHORTAGE) / math.log1p(-hit))
        if bands * rows > MOST_PERMUTATIONS:
            return best
        best = (bands, rows)
    return best


def band_keys(found: U64, lengths: I64, bands: int, rows: int) -> U64:
    """A (bands, texts) array: texts with an equal number in a band share `rows` MinHash values."""
    short = (found >> np.uint64(32)).astype(np.uint32)
    starts = starts_of(lengths)
    factors = np.random.default_rng(bands * 1000 + rows).integers(0, 1 << 32, bands * rows, dtype=np.uint32) | 1
    keys = np.zeros((bands, len(lengths)), np.uint64)
    ordered = np.empty_like(short)
    for number, factor in enumerate(factors):
        np.multiply(short, factor, out=ordered)
        key = keys[number // rows]
        key *= MIX[0]
        key += np.minimum.reduceat(ordered, starts)
    return mixed(keys)


def jaccard(left: U64, left_pair: I64, right: U64, right_pair: I64, num_pairs: int) -> NDArray[np.float64]:
    """The true Jaccard similarity of pairs of sets: hashes of either side, and the pair each belongs to.

    One sort over (pair, hash, side): what stands there twice is in both. 63 bits hold pair and hash: with 4,096 pairs
    at a time 51 bits are left to the hash, and a false match in sets of 10,000 has a chance below 1e-7.
    """
    bits = np.uint64(max(1, int(num_pairs - 1).bit_length()))
    shift = np.uint64(63) - bits
    parts = [
        (((pair.astype(np.uint64) << shift) | (values >> (bits + np.uint64(1)))) << np.uint64(1)) | np.uint64(side)
        for side, (values, pair) in enumerate(((left, left_pair), (right, right_pair)))
    ]
    both = np.concatenate(parts)
    both.sort()  # np.unique hashes first, which is seven times slower here
    items = both[first_of_equal(both)] >> np.uint64(1)
    new = first_of_equal(items)
    sets = np.bincount((items[new] >> shift).astype(np.int64), minlength=num_pairs)
    shared = np.bincount((items[~new] >> shift).astype(np.int64), minlength=num_pairs)
    return shared / np.maximum(sets, 1)


def first_of_equal(values: U64) -> NDArray[np.bool_]:
    """Of sorted values, which ones differ from the one before."""
    new = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return new
