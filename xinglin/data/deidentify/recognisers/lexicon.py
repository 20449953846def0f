"""The word lists and the regular expressions that are made of them.

words(file, section)       the words of a section of lexicons/FILE.yaml
any_of(words, gap="")      a regular expression that matches the longest of the words, as a prefix tree
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parents[1] / "lexicons"
HAN = "\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff〇"


@functools.cache
def _load(file: str) -> dict[str, str]:
    return yaml.safe_load((FOLDER / f"{file}.yaml").read_text("utf-8"))


@functools.cache
def words(file: str, section: str) -> frozenset[str]:
    return frozenset(_load(file)[section].split())


@functools.cache
def characters(file: str, section: str) -> frozenset[str]:
    return frozenset("".join(_load(file)[section].split()))


def any_of(vocabulary: Iterable[str], gap: str = "") -> str:
    """`gap` is put between the characters of Chinese words (spaced labels such as 姓  名)."""
    tree: dict[str, dict] = {}
    for word in vocabulary:
        node = tree
        for char in word:
            node = node.setdefault(char, {})
        node[""] = {}
    return _expression(tree, gap)


def _expression(tree: dict[str, dict], gap: str) -> str:
    branches = []
    for char, below in sorted(tree.items()):
        if char:
            rest = _expression(below, gap) if set(below) != {""} else ""
            between = gap if rest and char > "\u2e80" else ""
            branches.append(re.escape(char) + (f"(?:{between}{rest})?" if "" in below and rest else between + rest))
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"


@functools.cache
def _by_two() -> dict[str, tuple[str, ...]]:
    table: dict[str, list[str]] = {}
    for section in ("eponyms", "drugs_and_herbs", "ordinary"):
        for word in words("protect", section):
            if len(word) > 1:
                table.setdefault(word[:2], []).append(word)
    return {key: tuple(sorted(set(found), key=len, reverse=True)) for key, found in table.items()}


def word_end(text: str, start: int) -> int:
    """Where the longest protected word that begins at `start` ends; 0 when there is none."""
    for word in _by_two().get(text[start : start + 2], ()):
        if text.startswith(word, start):
            return start + len(word)
    return 0


@functools.cache
def protected() -> re.Pattern[str]:
    """Matches the longest protected word that begins here."""
    vocabulary = words("protect", "eponyms") | words("protect", "drugs_and_herbs") | words("protect", "ordinary")
    return re.compile(any_of(word for word in vocabulary if len(word) > 1))
