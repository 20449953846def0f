"""What the cleaning rules may be told, with defaults; a YAML file changes them by name (`--rules FILE`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from xinglin.config import Config, Positive, Share
from xinglin.records import InputError


class CleanSettings(Config):
    """Lengths are characters."""

    skip: tuple[str, ...] = ()
    """Rules that do not run."""
    min_answer: Positive = 4
    """A shorter answer is dropped. Records with a `task_type` (exam letters, entity lists) are not asked."""
    min_question: Positive = 2
    min_document: Positive = 20
    max_chars: Positive = 20_000
    """A longer record is dropped: nobody asks or answers that much; long documents are cut when they are imported."""
    min_han: Share = 0.3
    """Lowest share of Chinese characters among the letters of a record."""
    max_rare: Share = 0.5
    """Highest share of characters outside GB 2312's first level (the 3,755 common ones) in a question."""
    tail_contexts: Positive = 30
    """A last sentence that stands behind so many different sentences is boilerplate and is cut off."""
    tail_share: Share = 0.001
    """...and behind so many of all answers."""
    tails: tuple[str, ...] = ()
    """Last sentences known to be boilerplate; they need no counting."""
    quarantine_share: Share = 0.05
    """A source with a larger share of answers that a synonym machine has written is dropped whole."""
    quarantine_answers: Positive = 100
    """...when it has so many answers."""
    pile_up: Annotated[float, Field(gt=1)] = 8.0
    """Answers without an end mark are cut off when their length is so many times more frequent than its neighbours."""
    pile_up_answers: Positive = 20


def read_settings(path: Path | None, off: tuple[str, ...], names: tuple[str, ...]) -> CleanSettings:
    """Settings from a YAML file, with the rules of `off` switched off besides.

    Raises `InputError` for an unknown key, a wrong value or an unknown rule, all in one line.
    """
    tree = _read(path) if path else {}
    try:
        settings = CleanSettings.model_validate(tree)
    except ValidationError as error:
        problems = ", ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InputError(f"{path}: {problems}; allowed keys: {', '.join(CleanSettings.model_fields)}") from None
    chosen = tuple(dict.fromkeys((*settings.skip, *off)))
    if unknown := [name for name in chosen if name not in names]:
        raise InputError(f"rule {unknown[0]!r} cannot be switched off; rules are {', '.join(names)}")
    return settings.model_copy(update={"skip": chosen})


def _read(path: Path) -> dict[str, object]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({type(error).__name__}); give a YAML file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(
            f"{path}{f':{mark.line + 1}' if mark else ''}: not plain YAML; give `key: value` lines"
        ) from None
    if not isinstance(tree, dict | None):
        raise InputError(f"{path}: holds no mapping; give `key: value` lines such as `min_answer: 4`")
    return tree or {}
