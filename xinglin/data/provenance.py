"""Where a data set comes from and what its licence says, read from the LICENSE and NOTE files beside the data.

Words are matched, not law interpreted: `research_only` is set whenever any notice speaks of research, academic or
non-commercial use only, so that a doubtful set errs on the safe side.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

LICENCES = (
    ("CC BY-NC-SA 4.0", r"CC[ -]BY[ -]NC[ -]SA|Attribution-NonCommercial-ShareAlike"),
    ("CC BY-NC 4.0", r"CC[ -]BY[ -]NC|Attribution-NonCommercial"),
    ("Apache-2.0", r"Apache License|Apache-2\.0|Apache 2\.0"),
    ("MIT", r"\bMIT\b|Permission is hereby granted, free of charge"),
    ("GPL-3.0", r"GPL-3\.0|GNU GENERAL PUBLIC LICENSE"),
    ("CC BY-SA 4.0", r"CC[ -]BY[ -]SA|Attribution-ShareAlike"),
    ("CC BY 4.0", r"CC[ -]BY|Creative Commons Attribution"),
    ("CC0-1.0", r"\bCC0\b"),
)
RESEARCH_ONLY = re.compile(
    r"research[ -](?:use )?only|academic/research use only|academic research|academic[^.;\n]{0,30}only"
    r"|non-?commercial|\bNC\b|BY-NC|commercial (?:use|misuse)[^.;\n]{0,20}(?:forbidden|prohibited)|no commercial use"
    r"|for technical research purposes|仅[供限][^。\n]{0,10}(?:研究|学术)|非商业|禁止商用",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Provenance:
    """`licence` is the short name in the notices, "" where none is stated; `notices` are the files that were read."""

    source: str = ""
    commit: str = ""
    licence: str = ""
    research_only: bool = False
    notices: tuple[str, ...] = ()


def licence_of(path: Path) -> Provenance:
    """Provenance of a file or folder from the notices in its folder, or in up to three folders above it."""
    start = path.resolve() if path.is_dir() else path.resolve().parent
    for folder in (start, *start.parents[:3]):
        if (found := _read(folder)).notices:
            return found
    return Provenance()


@functools.lru_cache(maxsize=256)
def _read(folder: Path) -> Provenance:
    files = [path for path in sorted(folder.glob("*")) if path.is_file() and _is_notice(path)]
    licences = [path for path in files if not path.stem.lower().startswith("note")]
    notes = "\n".join(_text(path) for path in files if path not in licences)
    source = re.search(r"(?:source|来源)\s*[:：]\s*(\S+)", notes)
    commit = re.search(r"\bcommit\s+([0-9a-f]{7,40})\b", notes)
    words = re.search(r"licen[cs]e as stated there\s*:\s*(.*)", notes)
    stated = "\n".join(_text(path) for path in licences) or (words[1] if words else "")
    # The Apache text itself speaks of many things: research-only words count in our notes and short licences alone.
    own_words = notes + "".join(_text(path) for path in licences if path.stat().st_size < 4000)
    return Provenance(
        source[1] if source else "",
        commit[1] if commit else "",
        next((name for name, pattern in LICENCES if re.search(pattern, stated)), ""),
        RESEARCH_ONLY.search(own_words) is not None,
        tuple(path.name for path in files),
    )


def _is_notice(path: Path) -> bool:
    return re.match(r"(?i)licen[cs]e|copying|note(?:\.txt|\.md)?$|notice", path.name) is not None


def _text(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:  # a notice, not data
        return file.read(100_000)
