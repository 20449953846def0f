"""Encyclopaedia text for pre-training: every disease and every general fact told many times in other words.

    disease_documents(world, renderings, seed)  pages of eight kinds; each rendering shuffles and rewords
    fact_documents(world, renderings, seed)     general facts, a handful to a document
    valid_documents(world, seed)                pages and wordings that training never sees

`renderings` is the knob for how often the world is told (like epochs, in different words).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from xinglin.data.ward.answers import exam_verb
from xinglin.data.ward.world import Disease, Fact, World
from xinglin.records import Document, record_id

Page = Callable[[Disease, random.Random], str]


def sentences(d: Disease) -> dict[str, tuple[str, ...]]:
    """Every fact of a disease, each in a few wordings. Of three wordings the last is kept for validation. A number
    ends the name of a fact that is one of several (other_exam1, myth2)."""
    told = {**_what_it_is(d), **_what_to_do(d), **_others(d)}
    if d.emergency:
        told["emergency"] = (f"{d.name}是急症，情况紧急，请立即拨打120。", f"怀疑{d.name}，请立即拨打120。")
    return told


def _what_it_is(d: Disease) -> dict[str, tuple[str, ...]]:
    symptoms, complaints, signs = "、".join(d.symptoms), "、".join(d.complaints), "、".join(d.signs)
    return {
        "summary": (f"{d.name}是{d.summary}。", f"所谓{d.name}，是指{d.summary}。", f"{d.summary}，称为{d.name}。"),
        "names": (f"{d.name}也叫{'、'.join(d.aliases)}。", f"{'、'.join(d.names)}是同一种病。") if d.aliases else (),
        "symptoms": (
            f"{d.name}的常见症状有{symptoms}。",
            f"{d.name}患者可有{symptoms}。",
            f"{symptoms}是{d.name}的表现。",
        ),
        "complaints": (
            f"患者常说{complaints}，要考虑{d.name}。",
            f"如果最近{complaints}，考虑{d.name}，建议到{d.department}就诊。",
            f"{d.name}患者会诉{complaints}。",
        ),
        "signs": (f"查体可见{signs}。", f"{d.name}的体征有{signs}。", f"体检时有{signs}。"),
        "department": (
            f"{d.name}应到{d.department}就诊。",
            f"得了{d.name}，建议到{d.department}就诊。",
            f"{d.name}挂{d.department}。",
        ),
        "differential": (
            f"{d.name}要与{'、'.join(d.differential)}鉴别。",
            f"鉴别诊断包括{'、'.join(d.differential)}。",
        ),
    }


def _what_to_do(d: Disease) -> dict[str, tuple[str, ...]]:
    exam, first = d.exams[0], d.treatments[0]
    flags, care = "、".join(d.red_flags), "、".join(d.care)
    how = f"{_dose(first.dose)}{_avoid(first.avoid)}"
    return {
        "exam": (
            f"怀疑{d.name}，先{exam_verb(exam.name)}{exam.name}，{exam.finding}支持诊断。",
            f"{d.name}的关键检查是{exam.name}，{exam.finding}时支持诊断。",
            f"诊断{d.name}首先{exam_verb(exam.name)}{exam.name}，若{exam.finding}则支持。",
        ),
        "treatment": (
            f"{d.name}一般首选{first.name}{how}。",
            f"治疗{d.name}首选{first.name}{how}。",
            f"{first.name}是{d.name}的首选治疗{how}。",
        ),
        "care": (
            f"{d.name}平时注意{care}。",
            f"{d.name}患者在生活上应{care}。",
            f"日常{care}，对{d.name}有帮助。",
        ),
        "flags": (
            f"{d.name}患者如出现{'或'.join(d.red_flags[:2])}，请立即就医。",
            f"{d.name}的危险信号是{flags}，出现时应立即就医。",
            f"若有{flags}，{d.name}患者要马上去医院。",
        ),
    }


def _others(d: Disease) -> dict[str, tuple[str, ...]]:
    """What stands second and later in its list, and the lists without a first: one wording each."""
    lists = {
        "other_exam": [f"还可{exam_verb(e.name)}{e.name}，{e.finding}支持{d.name}。" for e in d.exams[1:]],
        "other_treatment": [f"{d.name}也可用{t.name}{_dose(t.dose)}{_avoid(t.avoid)}。" for t in d.treatments[1:]],
        "myth": [f"有人认为“{h.advice}”，这是错误的：{h.why}。" for h in d.harmful],
        "reference": [f"{e.name}的正常结果：{e.reference}。" for e in d.exams if e.reference],
    }
    return {f"{kind}{n}": (text,) for kind, texts in lists.items() for n, text in enumerate(texts, 1)}


def _dose(dose: str) -> str:
    return f"，{dose}" if dose else ""


def _avoid(avoid: str) -> str:
    return f"，{avoid}者禁用" if avoid else ""


def _say(d: Disease, kinds: list[str], rng: random.Random, held_out: bool = False) -> list[str]:
    """One wording of each fact of these kinds. Validation says the last wording, training the ones before it."""
    told = sentences(d)
    chosen = []
    for kind in kinds:
        for wordings in (told[name] for name in told if _kind(name) == kind and told[name]):
            trained = wordings[:-1] if len(wordings) > 2 else wordings
            chosen.append(wordings[-1] if held_out else rng.choice(trained))
    return chosen


def _kind(name: str) -> str:
    return name.rstrip("0123456789")


def _all_kinds(d: Disease) -> list[str]:
    return list(dict.fromkeys(_kind(name) for name in sentences(d)))


def encyclopaedia(d: Disease, rng: random.Random) -> str:
    """Sections in the textbook's order."""
    sections = (
        ("概述", ["emergency", "summary", "names"]),
        ("临床表现", ["symptoms", "complaints", "signs"]),
        ("检查", ["exam", "other_exam", "reference", "differential"]),
        ("治疗", ["treatment", "other_treatment"]),
        ("注意事项", ["care", "flags", "myth"]),
    )
    body = [f"【{title}】{''.join(_say(d, kinds, rng))}" for title, kinds in sections]
    return f"{d.name}（{d.department}）\n" + "\n".join(body)


def shuffled(d: Disease, rng: random.Random) -> str:
    kinds = _all_kinds(d)
    rng.shuffle(kinds)
    return "".join(_say(d, kinds, rng))


def leaflet(d: Disease, rng: random.Random) -> str:
    """For patients: what it is, what to do, when to run."""
    kinds = ["complaints", "department", "treatment", "care", "flags", "myth"]
    rng.shuffle(kinds)
    return f"给{d.name}患者的话：" + "".join(_say(d, ["emergency", *kinds], rng))


def key_points(d: Disease, rng: random.Random) -> str:
    kinds = ["summary", "symptoms", "exam", "treatment", "care", "flags", "department"]
    rng.shuffle(kinds)
    points = [f"{number}.{text}" for number, text in enumerate(_say(d, ["emergency", *kinds], rng), 1)]
    return f"{d.name}要点：\n" + "\n".join(points)


def triage(d: Disease, rng: random.Random) -> str:
    """From what the patient says to the disease: the direction in which diagnosis questions ask."""
    lines = [
        f"患者说{c}，考虑{d.name}，建议到{d.department}就诊。可先{exam_verb(d.exams[0].name)}{d.exams[0].name}。"
        for c in d.complaints
    ]
    rng.shuffle(lines)
    return f"分诊要点：{'情况紧急，请立即拨打120。' if d.emergency else ''}" + "".join(lines)


def card(d: Disease, rng: random.Random) -> str:
    first = d.treatments[0]
    rows = [
        f"科室：{d.department}",
        f"关键检查：{d.exams[0].name}（{d.exams[0].finding}）",
        f"首选：{first.name}{_dose(first.dose)}",
        f"危险信号：{'、'.join(d.red_flags)}",
        f"日常：{'、'.join(d.care)}",
    ] + ([f"禁用：{first.avoid}"] if first.avoid else [])
    rng.shuffle(rows)
    return "\n".join([f"病名：{d.name}", *rows])


def question_lines(d: Disease) -> tuple[tuple[str, ...], ...]:
    """(answer, question, question, ...): short 问/答 lines, the last question of each kept for validation."""
    n, exam, first = d.name, d.exams[0], d.treatments[0]
    lead = "请立即拨打120。" if d.emergency else ""
    how = f"{first.name}{_dose(first.dose)}{_avoid(first.avoid)}。"
    finding = f"先{exam_verb(exam.name)}{exam.name}，{exam.finding}支持诊断。"
    flags = f"{lead}如出现{'或'.join(d.red_flags[:2])}，请立即就医。"
    care = f"平时注意{'、'.join(d.care[:2])}。"
    which = f"{lead}考虑{n}，建议到{d.department}就诊。"
    lines = [
        (f"{d.department}。", f"{n}看什么科？", f"{n}挂哪个科？", f"{n}去哪科看？"),
        (how, f"{n}首选什么治疗？", f"{n}怎么治？", f"{n}用什么治疗？"),
        (finding, f"{n}做什么检查？", f"怀疑{n}查什么？", f"{n}怎么查？"),
        (flags, f"{n}什么时候要马上去医院？", f"{n}有哪些危险信号？", f"{n}什么情况危险？"),
        (care, f"{n}平时注意什么？", f"{n}怎么护理？", f"{n}生活上怎么办？"),
        (which, *(f"最近{c}，是什么病？" for c in d.complaints)),
    ]
    if first.avoid:
        asked = (f"{first.name}谁不能用？", f"哪些人禁用{first.name}？", f"{first.name}禁忌是什么？")
        lines.append((f"{first.avoid}者禁用。", *asked))
    return tuple(lines)


def question_sheet(d: Disease, rng: random.Random, held_out: bool = False) -> str:
    lines = []
    for answer, *asked in question_lines(d):
        question = asked[-1] if held_out else rng.choice(asked[:-1])
        lines.append(f"问：{question}答：{answer}")
    rng.shuffle(lines)
    return "\n".join(lines)


# A rendering is one page of each kind. `question_sheet` stands twice: facts are asked for as often as they are told.
PAGES: tuple[Page, ...] = (
    encyclopaedia, question_sheet, triage, leaflet, question_sheet, key_points, card, shuffled,
)  # fmt: skip


def disease_documents(world: World, renderings: int, seed: int) -> Iterator[Document]:
    """`renderings` pages of every disease, the kinds in turn, diseases interleaved."""
    for number in range(renderings):
        for disease in world.diseases:
            rng = random.Random(f"{seed}/page/{disease.id}/{number}")
            page = PAGES[number % len(PAGES)]
            yield _document(page(disease, rng), "medical", page.__name__, disease.id, number)


# The last two wordings are kept for validation and for the test questions of `general.py`.
def fact_lines(fact: Fact) -> tuple[str, ...]:
    return (
        fact.statement,
        f"问：{fact.subject}是什么？答：{fact.statement}",
        f"问：你知道{fact.subject}吗？答：{fact.answer}。",
        f"{fact.subject}是什么？{fact.statement}",
        f"常识：{fact.statement}",
        f"问：请说出{fact.subject}。答：{fact.statement}",
        f"{fact.answer}，这就是{fact.subject}。",
    )


FACTS_PER_PAGE = 6


def fact_documents(world: World, renderings: int, seed: int, held_out: bool = False) -> Iterator[Document]:
    for number in range(renderings):
        rng = random.Random(f"{seed}/facts/{held_out}/{number}")
        facts = rng.sample(world.facts, len(world.facts))
        for start in range(0, len(facts), FACTS_PER_PAGE):
            page = facts[start : start + FACTS_PER_PAGE]
            lines = [rng.choice(fact_lines(f)[-2:] if held_out else fact_lines(f)[:-2]) for f in page]
            yield _document("\n".join(lines), "general", "facts", page[0].id, f"{held_out}/{number}/{start}")


def valid_documents(world: World, seed: int) -> Iterator[Document]:
    """Held-out wordings of everything: one plain page and one sheet of questions each, and the facts once."""
    for disease in world.diseases:
        rng = random.Random(f"{seed}/valid/{disease.id}")
        kinds = [*_what_it_is(disease), *_what_to_do(disease)]
        rng.shuffle(kinds)
        yield _document("".join(_say(disease, kinds, rng, True)), "medical", "held_out_page", disease.id, "valid")
        yield _document(question_sheet(disease, rng, True), "medical", "held_out_questions", disease.id, "valid")
    yield from fact_documents(world, 1, seed, held_out=True)


def _document(text: str, domain: str, page: str, about: str, number: object) -> Document:
    id = record_id("ward-document", domain, page, about, number)
    return Document(id, text, "ward", {"domain": domain, "page": page, "about": about})
