"""The report of a run: one offline HTML file that a doctor, an engineer and a privacy officer can read.

    write_report(Path("runs/demo"))  ->  runs/demo/report.html

folder.py   reads the run's files: what is missing or broken becomes a sentence, never an exception
scores.py   checkpoints x metrics, paired differences, what may be said of them
judging.py  what else a reward model rewards, judges beside doctors, ways of alignment side by side
training.py what each stage did: curves, stops, rounds, reward-model diagnostics
tables.py   data, values published or assumed, samples, files
figures.py  inline SVG with its text kept as text
words.py    Chinese names beside the field's terms, and how numbers are printed

The page asks for nothing from elsewhere: no script, no font, no image. Every text in it is escaped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from xinglin.report import judging, scores, tables, training, words
from xinglin.report.folder import RunFolder, read_run
from xinglin.run import write_text

__all__ = ["write_report"]


def write_report(out: Path) -> Path:
    """Write OUT/report.html from what the run folder holds now; its path."""
    page = _environment().get_template("page.html.jinja").render(**_content(read_run(out)))
    path = out / "report.html"
    write_text(path, "\n".join(line.rstrip() for line in page.splitlines()) + "\n")
    return path


def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(num=words.num, exact=words.exact, whole=words.whole, signed=words.signed, share=words.share)
    return found


def _content(run: RunFolder) -> dict[str, Any]:
    compared = scores.comparisons(run)
    matrix = scores.matrix(run)
    stages, rewards = training.stages(run), training.reward_models(run)
    return {
        "head": tables.head(run),
        "synthetic": tables.synthetic_reasons(run),
        "compared": compared,
        "matrix": matrix,
        "checkpoints": scores.checkpoints(run),
        "metric_words": scores.explained(matrix),
        "notes": scores.notes_table(run),
        "stages": stages,
        "rewards": rewards,
        "reward_facts": list(dict.fromkeys(key for model in rewards for key in model.facts)),
        "overlaid": judging.margin_curves(run),
        "reliability": judging.reliability(run),
        "noise": judging.noise_study(run),
        "judges": judging.judges(run),
        "aligned": judging.aligned(run),
        "rounds": training.rounds(run),
        "decoding": training.decoding(run),
        "data": tables.data(run),
        "values": tables.values(run),
        "samples": tables.samples(run),
        "caveats": tables.caveats(run) + scores.caveats(run) + training.caveats(stages),
        "repeat": tables.repeat(run),
        "files": tables.files(run),
    }
