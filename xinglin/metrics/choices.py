"""Which letters an exam answer chooses, in Chinese free text, and what guessing would give.

Capital letters fill medical text (CT, HIV, 维生素D, B超, ACE抑制剂), answers deny ("不是A"), hedge ("A或B") and change
their mind. So every free-standing letter group is a *mention*; a mention is dropped when it is denied or hedged, and
the strongest kind that is left decides:

    答案 > 选 > judged right ("C正确", several add up) > 是/为 > at the start of a line > the only one in the text

Where two mentions are equally strong the last one counts: that is where the answer ends up. No letter at all: the text
of exactly one option. Else "": unparsed, which scores as wrong and is counted.
Tested on tests/evals/exam_outputs.tsv, labelled by hand.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xinglin.records import ExamQuestion, InputError

ANSWER, PICKED, JUDGED, NAMED, LISTED, PLAIN = 5, 4, 3, 2, 1, 0
NOT_A_CHOICE_AFTER = "超|型|族|群|组|级|期|段|波|细胞|反应|抗原|抗体|肽|受体|类|链球|抑制|评估|淋巴|-[^A-Z]"
DENIED_BEFORE = re.compile(
    r"(?:不是|并非|而非|不为|不能?选择?|不可选择?|不应该?选择?|不会选择?|不要选择?|误选择?|排除|除了?)\s*(?:选项)?\s*$"
)
DENIED_AFTER = re.compile(
    r"^(?!\s*,?而?(?:不是|不选|非)\s*(?:选项)?[A-Z])\s*选?项?\s*[都均也皆是为]*\s*(?:不|错|有误|\?\s*\S|可?排除|干扰|未必)"
    r"|^[^。,;\n]{0,4}(?:错误|不对)"
)
LISTED_AS_WRONG = re.compile(r"^[.:]?\s*(?:错误?|不正确|不对|×)\s*(?:$|[,.;\n])")  # "B. 错误", but not "B. 错构瘤"
HEDGED_BEFORE = re.compile(r"(?:或者?|还是|\bor)\s*$")
HEDGED_AFTER = re.compile(r"^\s*(?:(?:或者?|还是|or)\s*[A-Z]|[都均]有?可能)")
ANSWER_BEFORE = re.compile(
    r"(?:答案|answer)\]?\s*(?:应该?)?\s*(?:是|为|选择?|is)?\s*(?:选项|option)?\s*[:\s]*(?:选项|选择?)?\s*$", re.I
)
PICKED_BEFORE = re.compile(r"(?<![首可优备筛误])选(?:择|项)?\s*[:是为]?\s*(?:选项)?\s*$")
JUDGED_AFTER = re.compile(r"^[.:]?\s*选?项?\s*[都均也皆是为最]*\s*(?:正确|对(?=[,.;的\n]|$)|符合|合适|合理)")
NAMED_BEFORE = re.compile(r"(?:是|为|有|is|[::])\s*:?\s*$")


@dataclass(frozen=True, slots=True)
class _Mention:
    letters: frozenset[str]
    strength: int


def parse_choice(text: str, letters: str = "ABCD", options: Mapping[str, str] | None = None) -> str:
    """The chosen letters in alphabetical order, e.g. "A" or "ACD"; "" where the text commits to none."""
    plain = _plain_text(text)
    boxed = re.findall(r"\\boxed\{([^{}]*)\}", plain)
    if boxed:
        inside = _mentions(boxed[-1], letters)
        return "".join(sorted(inside[0].letters)) if inside else ""
    mentions = [mention for mention in _mentions(plain, letters) if mention.strength >= 0]
    exact = [letter for letter, option in (options or {}).items() if _bare(option) == _bare(plain)]
    if len(exact) == 1 and len(_bare(plain)) > 1:
        return exact[0]
    chosen = _strongest(mentions, letters) or _lower_case(plain, letters) or frozenset(_by_option_text(plain, options))
    return "".join(sorted(chosen))


def choice_accuracy(keys: Sequence[str], chosen: Sequence[str]) -> float:
    """Share of questions whose chosen letters are exactly the key; unparsed ("") is wrong."""
    if len(keys) != len(chosen) or not keys:
        raise InputError(f"{len(keys)} keys and {len(chosen)} answers; every question needs one answer")
    return sum(key == letters for key, letters in zip(keys, chosen, strict=True)) / len(keys)


def chance_level(questions: Sequence[ExamQuestion]) -> float:
    """Accuracy of guessing: 1/n for one answer of n options, 1/(2^n - 1) where several may be right."""
    shares = [1 / (2 ** len(q.options) - 1) if is_multiple(q) else 1 / len(q.options) for q in questions]
    return sum(shares) / len(shares)


def is_multiple(question: ExamQuestion) -> bool:
    """Several answers are allowed: said by `meta.multiple`, else seen in the key."""
    return bool(question.meta.get("multiple", len(question.answer) > 1))


def _plain_text(text: str) -> str:
    """Full-width forms, Markdown, LaTeX, brackets round a letter, thinking and follow-up questions taken away."""
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(r"<think>.*?(?:</think>|\Z)", "", text, flags=re.S)
    text = re.sub(r"<[|/a-z_]+>", "", text)
    text = re.split(r"\n\s*(?:问题|题目|Question)\s*:", text.strip())[0]
    text = re.sub(r"[*`#\"'“”‘’$]|\\[()\[\]]", "", text)
    text = re.sub(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"[(\[【「]\s*([A-Za-z]|[A-Z][A-Z、,\s]*)\s*[)\]】」]", r" \1 ", text)
    return re.sub(r"[\[【]?((?:正确|参考)?答案)[\]】]", r"\1:", text).replace("。", ".").strip()


def _mentions(text: str, letters: str) -> list[_Mention]:
    one = f"[{letters}]"
    joiner = rf"\s*(?:[、/&+和与及]|以及|and)\s*|\s*[,;]\s*(?:and\s+)?(?!{one}\s*(?:选?项|也|是|不|错|为))|[ ]+"
    joiner = rf"(?:{joiner})(?:选项\s*)?"
    group = re.compile(
        rf"(?<![A-Za-z0-9])(?<!维生素)(?<!维他命)(?<!血型)(?<!病毒){one}+(?:(?:{joiner}){one}+(?![A-Za-z0-9]))*"
        rf"(?![A-Za-z0-9]|{NOT_A_CHOICE_AFTER})"
    )
    found = []
    for match in group.finditer(text):
        runs = re.findall(f"{one}+", match[0])
        if all(len(set(run)) == len(run) and (len(run) < 3 or list(run) == sorted(run)) for run in runs):
            found.append(_Mention(frozenset("".join(runs)), _strength(text, match.start(), match.end())))
    return found


def _strength(text: str, start: int, end: int) -> int:
    """-1 for a mention that is denied or hedged."""
    before, after = text[max(0, start - 16) : start], text[end : end + 24]
    if DENIED_BEFORE.search(before) or HEDGED_BEFORE.search(before) or HEDGED_AFTER.search(after):
        return -1
    if LISTED_AS_WRONG.search(after) or (after[:1] not in ",.;:\n " and DENIED_AFTER.search(after)):
        return -1
    if ANSWER_BEFORE.search(before):
        return ANSWER
    if PICKED_BEFORE.search(before) and not JUDGED_AFTER.search(after):
        return PICKED
    if JUDGED_AFTER.search(after):
        return JUDGED
    if NAMED_BEFORE.search(before):
        return NAMED
    return LISTED if not before.strip(" ") or before.rstrip(" ").endswith("\n") else PLAIN


def _strongest(mentions: Sequence[_Mention], letters: str) -> frozenset[str]:
    if not mentions:
        return frozenset()
    top = max(mention.strength for mention in mentions)
    best = [mention.letters for mention in mentions if mention.strength == top]
    everything = frozenset().union(*best)
    if top == JUDGED:
        return everything
    if top == LISTED:  # a list of the chosen options, unless it is the question's own list again
        restated = len(best) > 2 and everything == frozenset(letters)
        return frozenset() if restated else everything
    if top == PLAIN:
        return everything if len(set(best)) == 1 else frozenset()
    return best[-1]


def _lower_case(text: str, letters: str) -> frozenset[str]:
    found = re.match(rf"\W*(?:选|答案\s*[:是为]?)?\W*([{letters.lower()}])(?![A-Za-z0-9])", text)
    return frozenset(found[1].upper()) if found else frozenset()


def _by_option_text(text: str, options: Mapping[str, str] | None) -> str:
    """The letter of the one option that the text contains; options inside a longer one that is there too are out."""
    bodies = {letter: _bare(option) for letter, option in (options or {}).items()}
    bare = _bare(text)
    there = {letter: body for letter, body in bodies.items() if len(body) > 1 and body in bare}
    there = {k: v for k, v in there.items() if not any(v != other and v in other for other in there.values())}
    exact = [letter for letter, body in bodies.items() if body == bare]
    chosen = exact or list(there)
    denied = len(chosen) == 1 and re.search(rf"(?:不是|并非|排除|不选){re.escape(bodies[chosen[0]])}", bare)
    return chosen[0] if len(chosen) == 1 and not denied else ""


def _bare(text: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text))
