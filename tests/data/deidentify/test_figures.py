"""Requirements D1, D2 and D3 of de-identification, on the test split of the synthetic labelled notes.

D1 and its precision are measured with rules alone, no structured fields; D3 with the note's own fields as seeds. The
fast run reads 200 notes and asks that the target lies within Wilson's 95 % interval of what it sees, or below it; the
slow one reads 2,000 and asks for the targets themselves. The figures are synthetic and hold for no hospital.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
import yaml

from xinglin.data.deidentify.find import find, known_from
from xinglin.data.deidentify.kinds import Span
from xinglin.data.ward.labelled import labelled_notes
from xinglin.data.ward.labelled.figures import Comparison, compare
from xinglin.metrics.intervals import wilson_interval

TARGETS = {
    **dict.fromkeys(("id_card", "phone", "bank_card", "email", "mrn"), 0.999),
    **dict.fromkeys(("name", "date"), 0.99),
    **dict.fromkeys(("address", "hospital", "employer"), 0.98),
}
PRECISION = 0.95
SEEDED = ("name", "phone", "id_card", "address")
Reached = Callable[[int, int, float], bool]


@cache
def unseeded(count: int) -> Comparison:
    return compare(labelled_notes(count, 0, "test"), lambda note: find(note.text))


@cache
def with_fields(count: int) -> Comparison:
    return compare(labelled_notes(count, 0, "test"), lambda note: find(note.text, known_from(note.fields)))


def reached(count: int, n: int, target: float) -> bool:
    return count >= target * n


def reachable(count: int, n: int, target: float) -> bool:
    """The target is not refuted by so small a sample."""
    return wilson_interval(count, n).high >= target


@pytest.fixture(
    params=[
        pytest.param((200, reachable), id="200-notes"),
        pytest.param((2000, reached), id="2000-notes", marks=pytest.mark.slow),
    ]
)
def size(request: pytest.FixtureRequest) -> tuple[int, Reached]:
    return request.param


# Not reached yet on held-out phrases and lists; 2,000 notes, seed 0. Whoever reaches one removes it here.
OPEN = {"name": "94.6 % of 13,786", "hospital": "95.4 % of 1,980", "employer": "96.1 % of 389"}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.xfail(reason=OPEN[k])] if k in OPEN else []) for k in TARGETS]
)
def test_d1_recall(kind: str, size: tuple[int, Reached]) -> None:
    count, enough = size
    covered, labelled = unseeded(count).recall(kind)
    assert labelled >= count / 20
    assert enough(covered, labelled, TARGETS[kind]), f"{covered} of {labelled}, asked for {TARGETS[kind]:.1%}"


def test_d1_precision(size: tuple[int, Reached]) -> None:
    count, enough = size
    result = unseeded(count)
    right, marked = result.precision()
    wrong = {kind: result.marked[kind] - result.right[kind] for kind in result.marked}
    assert enough(right, marked, PRECISION), f"{right} of {marked}, asked for {PRECISION:.0%}; false alarms {wrong}"


@pytest.mark.parametrize("kind", SEEDED)
def test_d3_what_the_fields_hold_is_found_in_the_text(kind: str, size: tuple[int, Reached]) -> None:
    count, enough = size
    result = with_fields(count)
    covered, seeded = result.seeded_covered[kind], result.seeded[kind]
    assert seeded >= count / 20
    assert enough(covered, seeded, 0.999), f"{covered} of {seeded}, asked for 99.9 %"


def test_fields_lose_nothing(size: tuple[int, Reached]) -> None:
    """Seeds only add: what is found without them is found with them."""
    count, _ = size
    assert with_fields(count).recall()[0] >= unseeded(count).recall()[0]


def clinical() -> dict[str, list[str]]:
    table = yaml.safe_load(Path(__file__).with_name("clinical_text.yaml").read_text("utf-8"))
    return {name: text.splitlines() if name == "sentences" else text.split() for name, text in table.items()}


SENTENCES = {
    "eponyms": ("{}", "诊断考虑{}，建议进一步检查。", "患者既往有{}，家属补充病史。", "查体：{}（-）。"),
    "drugs": ("{}", "予{}治疗，1周后好转。", "患者对{}过敏。", "停用{}，改用其他药物。"),
    "sentences": ("{}", "查房：{}"),
}


def test_d2_size() -> None:
    assert sum(len(set(texts)) for texts in clinical().values()) >= 500


@pytest.mark.parametrize("group", SENTENCES)
def test_d2_clinical_text_is_left_alone(group: str) -> None:
    texts = [frame.format(text) for text in clinical()[group] for frame in SENTENCES[group]]
    changed = {text: [text[span.start : span.end] for span in spans] for text in texts if (spans := find(text))}
    assert not changed, f"{len(changed)} of {len(texts)}: {changed}"


def test_the_scorer_counts_what_it_is_given() -> None:
    """A finder that marks the gold, nothing, everything or half of each: the figures are known without it."""
    notes = list(labelled_notes(30, 3, "test"))
    labelled = sum(len(note.entities) for note in notes)
    score = partial(compare, notes)
    gold = score(lambda note: [_span(entity.start, entity.end) for entity in note.entities])
    assert gold.recall() == (labelled, labelled) and gold.precision() == (labelled, labelled)
    nothing = score(lambda note: [])
    assert nothing.recall() == (0, labelled) and nothing.precision() == (0, 0) and len(nothing.missed) == labelled
    everything = score(lambda note: [_span(0, len(note.text))])
    assert everything.recall() == (labelled, labelled) and everything.precision() == (30, 30)
    short = score(
        lambda note: [_span(entity.start, entity.end - 1) for entity in note.entities if len(entity.text) > 1]
    )
    assert short.recall() == (0, labelled) and short.precision()[0] == short.precision()[1]
    beside = score(lambda note: [_span(entity.start - 1, entity.start) for entity in note.entities[:1] if entity.start])
    assert beside.precision()[0] == 0 and len(beside.false_alarms) == beside.precision()[1] > 0


def _span(start: int, end: int) -> Span:
    return Span(start, end, "name", "test")
