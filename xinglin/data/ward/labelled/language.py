"""What one split of the labelled notes is written with: word lists, number formats, phrases, skeletons of notes.

load_language("dev")    Language of dev.yaml; "test" shares no phrase, name, place, company or skeleton with it
expand(...)             a skeleton with its <groups> replaced by phrases; {slots} stay
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

SplitName = Literal["dev", "test"]
GROUP = re.compile(r"<(\w+)(?:\?(\d+))?>")


@dataclass(frozen=True, slots=True)
class Region:
    code: str
    province: str
    city: str
    district: str

    @property
    def city_short(self) -> str:
        return self.city.removesuffix("市")


@dataclass(frozen=True, slots=True)
class Language:
    split: SplitName
    lists: dict[str, tuple[str, ...]]
    formats: dict[str, tuple[str, ...]]
    regions: tuple[Region, ...]
    groups: dict[str, tuple[str, ...]]
    notes: dict[str, tuple[str, ...]]


@cache
def load_language(split: SplitName) -> Language:
    raw = yaml.safe_load((Path(__file__).parent / f"{split}.yaml").read_text("utf-8"))
    return Language(
        split=split,
        lists={name: _items(value) for name, value in raw["lists"].items()},
        formats={name: _items(value) for name, value in raw["formats"].items()},
        regions=tuple(_region(line.split()) for line in raw["regions"].splitlines()),
        groups={name: _items(value) for name, value in raw["groups"].items()},
        notes={kind: tuple(text.rstrip("\n") for text in texts) for kind, texts in raw["notes"].items()},
    )


def expand(skeleton: str, language: Language, papers: str, rng: random.Random) -> str:
    """`<group?40>` is a phrase of the group in 40 % of the cases; `<papers>` is the patient's own kind of papers.

    Between two groups that stand side by side a phrase without a full stop gets one.
    """

    def phrase(match: re.Match[str]) -> str:
        if match[2] and rng.randrange(100) >= int(match[2]):
            return ""
        text = rng.choice(language.groups[papers if match[1] == "papers" else match[1]])
        followed = match.string[match.end() : match.end() + 1] == "<"
        return text + "。" if followed and not text.endswith("。") else text

    lines = (GROUP.sub(phrase, line) for line in skeleton.splitlines())
    return "\n".join(line for line in lines if line).replace("⏎", "\n")


def _items(value: Any) -> tuple[str, ...]:
    """A YAML list; a block of lines; words with commas or spaces between them."""
    if isinstance(value, list):
        return tuple(value)
    if "\n" in value:
        return tuple(value.splitlines())
    return tuple(value.split(", ") if ", " in value else value.split())


def _region(words: list[str]) -> Region:
    """`code province city district`; a municipality has no city of its own."""
    return Region(words[0], words[1], words[-2], words[-1])
