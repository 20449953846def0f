# ruff: noqa: E501 - a regular expression is easier to check in one piece
"""Names of patients, relatives and staff: found by the words around them, then everywhere else in the same note.

    names(text)   spans over a normalised text

Cues come in three strengths. A label (姓名：) or a sex behind (，男，67岁) is sure: any name shape is taken. A role
or a relative (主治医师, 其子) asks for a surname. A title behind (王主任), a bare 患者 or an act (由…陪同) asks for a
surname, for a given name that is no ordinary word, and for an end that fits.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from xinglin.data.deidentify.kinds import Span
from xinglin.data.deidentify.recognisers.lexicon import HAN, any_of, characters, word_end, words
from xinglin.data.deidentify.recognisers.name_shapes import (
    BAD_GIVEN,
    DOTTED,
    NEVER_ALONE,
    NOT_PERSON_AFTER_DOT,
    TITLES,
    is_word,
    name_end,
    ordinary,
    tables,
)
from xinglin.data.deidentify.recognisers.name_slots import HANDS_OVER, PERSON, SURNAMES, THIN, char_worth, slots

STARTS_A_NAME = re.compile(f"[{HAN}A-Z]")
ENGLISH_TITLE = re.compile(r"(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.?[ ]?(?P<name>[A-Z][A-Za-z'’\-]+(?: [A-Z][A-Za-z'’\-]+){0,2})")
LATIN_SEX = re.compile(
    r"[A-Z][A-Za-z'’\-]+(?: [A-Z][A-Za-z'’\-]*\.?){1,3}(?=[,，、 ]{1,2}(?:male|female|Male|Female|M,|F,"
    r"|男|女))"
)
IN_BOOK = re.compile(r"《[^》]*$|[论篇经方典]$|^[汉唐宋金元明清]·|[a-zA-Z]$")
ACTS = words("cues", "acts")
BY_HAND = re.compile(
    rf"[某*＊×xX○□](?![些种个日年月时人次地天处项类院科医公单一])[{HAN}](?=[^{HAN}A-Za-z0-9]|$|{any_of(TITLES | ACTS)}|[因于在到来与和已系为今诉的])|"
    r"[某xX×*＊](?:(?<=某)某?(?:某|[男女](?!性))?(?![些种个日年月时人次地天处项类院科医公单一])"
    r"|(?<=[xX×])[xX×]{1,2}(?![A-Za-z0-9×*+/.])|(?<=[*＊])[*＊]{0,2}(?![A-Za-z0-9×*+/.]))"
    rf"|[○〇□◯●■△▲_]{{1,3}}(?![0-9A-Za-z])|[xX×](?=[ ]?(?:[，,、。：:；;/（(\n]|$|医|主任|护士|先生|女士|教授))"
)
OPENING = re.compile(
    r"(?:[ \t]{0,2}[（(][^）)\n]{1,10}[）)])?(?P<colon>[ \t]{0,4}[:：】\]][ \t_]{0,8}(?:\r?\n[ \t]*)?)?["
    r" \t_]{0,8}[（(【\[“\"]?[ ]?"
)
LIST_GAP = re.compile(
    r"[ ]?(?:[（(][^）)\n]{1,8}[）)]|副?主任医师|主治医师|住院医师|副?主任|医师|医生|护士长|护士|教授"
    r"|主管护师|护师)*[ ]?[、/，,；;和及 ][ ]?"
)
SEX = re.compile(r"[男女](?:性|孩|婴|童)?[ ]{0,3}(?:[,，、；;/|）)\t \r\n]|[0-9]|$)")
PAIR = re.compile(
    rf"(?<![{HAN}])(?P<name>[{HAN}·]{{2,12}})[ \t]{{0,4}}[,，、；;/|（(\t ][ \t]{{0,4}}(?:性别[:："
    rf" ]{{0,2}})?$"
)


@functools.cache
def _cues() -> tuple[re.Pattern[str], dict[str, str]]:
    sections = (
        ("titles", "title"),
        ("acts", "act"),
        ("kin", "kin"),
        ("roles", "role"),
        ("patients", "patient"),
        ("labels", "label"),
    )
    kind = {word: name for section, name in sections for word in words("cues", section)}
    return re.compile(any_of(kind, "[ \t]{0,4}")), kind


BED_BEFORE = re.compile(r"[0-9一二三四五六七八九十][ ]?$")
SPEAKERS = words("cues", "speakers")  # they open the turns of a dialogue as well
OFFSPRING = frozenset("之子 之女 之妻 之夫 之父 之母".split())


def names(text: str) -> list[Span]:
    """Names by context, then their repeats."""
    found = list(_by_cue(text))
    found += (Span(m.start("name"), m.end("name"), "name", "title") for m in ENGLISH_TITLE.finditer(text))
    found += (Span(m.start(), m.end(), "name", "before-sex") for m in LATIN_SEX.finditer(text))
    if any(dot in text for dot in "·•‧・∙"):
        found += _dotted(text)
    found += _before_sex(text)
    found += _minority(text)
    found += _foreign(text)
    found += _masked(text)
    found += slots(text)
    found += _beside(text, found)
    return found + list(_repeats(text, found))


def _by_cue(text: str) -> Iterator[Span]:
    pattern, kinds = _cues()
    for match in pattern.finditer(text):
        word = match.group()
        word = word if word in kinds else word.replace(" ", "").replace("\t", "")
        kind = kinds[word]
        if word in TITLES or word in ACTS or word in OFFSPRING:
            yield from _before(text, match.start(), "title" if word in TITLES else "act")
        if kind not in ("title", "act"):
            yield from _after(text, match.end(), kind, word)


def _after(text: str, place: int, kind: str, word: str) -> Iterator[Span]:
    """One name, or several in a row, behind a cue."""
    opening = OPENING.match(text, place)
    if opening is None:
        return
    colon = bool(opening["colon"])
    if word == "床" and not BED_BEFORE.search(text[: place - 1][-2:]):
        return
    if (word in words("cues", "colon_only") or word.isascii()) and not colon:
        return
    spaced = opening.end() > place
    strength = 3 if kind == "label" and spaced else 2 if kind == "role" and spaced or colon and kind != "patient" else 1
    speaker = word in SPEAKERS or kind == "patient"
    if speaker:
        kind, strength = "speaker", 2 if colon and word not in ("家属", "家人", "家长") else 1
    end = name_end(text, opening.end(), strength, kind)
    if end is None and spaced and opening.group()[-1:] in '（(“"' and not colon:
        return
    start = opening.end()
    while end is not None:
        if kind == "speaker" and text[start:end] in words("names", "words"):
            return
        yield Span(start, end, "name", f"after-{kind}")
        gap = LIST_GAP.match(text, end) if strength > 1 else None
        if not gap or (" " == gap.group().strip("") and not gap.group().strip()):
            return
        start, end = gap.end(), name_end(text, gap.end(), 1, "list")


def _before(text: str, end: int, kind: str) -> Iterator[Span]:
    """The name right before a title or an act: 欧阳修文主任医师, 王主任, 由张秀英陪同."""
    common, known, ambiguous, prose, compound, _ = tables()
    stop = end - 1 if end and text[end - 1] in " （(" else end
    for size in (4, 3, 2, 1):
        start = stop - size
        if start < 0 or (size == 1 and kind == "act"):
            continue
        piece = text[start:stop]
        if not all("\u3400" <= char <= "\u9fff" for char in piece) or is_word(text, start):
            continue
        if _fits(piece, text[start - 1] if start else "\n", kind) and (stop == end or size > 1):
            yield Span(start, stop, "name", f"before-{kind}")
            return


BEHIND_A_PERSON = frozenset("士师生任者属由请经")
OPEN_LEFT = frozenset("由请经与和、及在为遵按据向对告找随听给从让嘱约是邀同因日科师生任并现今曾叫被者属院长士代")


def _fits(piece: str, before: str, kind: str) -> bool:
    """Whether `piece` is a name, given the character to its left."""
    common, known, ambiguous, prose, compound, _ = tables()
    double = compound.match(piece)
    surname = double.group() if double and (len(piece) > 2 or double.group() == piece) else piece[0]
    rest = piece[len(surname) :]
    if (
        len(rest) > 2
        or (len(surname) == 1 and surname not in common and not rest)
        or surname[0] not in known | set(surname[:2] if double else "")
    ):
        return False
    if (
        (piece == "于" and before in "请须应需")
        or (piece == "谢" and before in "谢感致多答")
        or piece in NEVER_ALONE
        or before + piece in ("亲戚", "允许", "过程", "方便")
    ):
        return False
    edge = not ("\u3400" <= before <= "\u9fff") or before in OPEN_LEFT or before in HANDS_OVER or before in PERSON
    if not rest:
        return len(surname) == 2 or (
            edge if surname in ambiguous else surname in common and (edge or before not in "科室组院区部")
        )
    if rest.strip("某xX*×") == "":
        return True
    if any(char in BAD_GIVEN for char in rest):
        return False
    if kind == "title" and len(rest) == 2 and char_worth(rest) >= 1.0:
        return True
    familiar = not any(char in prose for char in rest)
    if surname not in common and len(surname) == 1:
        return edge and familiar and not "\u3400" <= before <= "\u9fff"
    if kind == "act":
        return familiar and edge and (surname not in ambiguous or before in BEHIND_A_PERSON)
    return (familiar or len(surname) == 2) and (
        edge or len(surname) == 2 or surname not in ambiguous and surname in common
    )


def _dotted(text: str) -> Iterator[Span]:
    """买买提·艾力江, 约翰·史密斯: any run with a middle dot that is no disease; words before the name are cut off."""
    lead = re.compile(
        r".*(?:患者|病人|患儿|家属|医师|医生|主任|教授|护士|其[子女妻夫父母兄弟姐妹]|儿子|女儿|丈夫|妻子|父亲"
        r"|母亲|由|请|与|和|及|为|经|名|人|者|员|爱人|配偶)"
    )
    for match in DOTTED.finditer(text):
        if (
            IN_BOOK.search(text, max(0, match.start() - 14), match.end())
            or NOT_PERSON_AFTER_DOT.match(text, match.end())
            or NOT_PERSON_AFTER_DOT.search(match.group())
        ):
            continue
        first = re.split("[·•‧・∙]", match.group())[0]
        cut = lead.match(first)
        start = match.start() + (cut.end() if cut and cut.end() < len(first) else 0)
        tail = re.compile(
            r"(?<=.)(?:主任|医师|医生|教授|护士|查房|陪同|代述|签字|提供|先生|女士|之[子女妻夫父母]|因|于|在|诉"
            r"|[，,]).*"
        ).search(match.group(), match.group().rfind("·") + 1)
        yield Span(start, match.start() + tail.start() if tail else match.end(), "name", "dotted")


def _before_sex(text: str) -> Iterator[Span]:
    """A whole cell or clause that is a name and is followed by a sex: 张建国，男，67岁."""
    _, known, _, _, compound, minority = tables()
    for sex in SEX.finditer(text):
        match = PAIR.search(text, max(0, sex.start() - 24), sex.start())
        if match is None:
            continue
        piece = match["name"]
        lead = re.match(r"(?:患者|病人|患儿|产妇|孕妇|伤者|死者|姓名|受检者|床)(?=.{2})", piece)
        start = match.start("name") + (lead.end() if lead else 0)
        piece = text[start : match.end("name")]
        if piece[-2:] in TITLES:
            continue
        shaped = piece[0] in known or compound.match(piece) or minority.match(piece)
        if (
            shaped
            and 2 <= len(piece) <= (4 if compound.match(piece) else 12 if minority.match(piece) else 4)
            and piece not in ordinary()
        ):
            if not any(char in BAD_GIVEN - set("时后") for char in piece[1:]) and not (
                len(piece) == 4 and not compound.match(piece) and not minority.match(piece)
            ):
                yield Span(start, match.end("name"), "name", "before-sex")


def _minority(text: str) -> Iterator[Span]:
    """Two or more parts of minority names in a row are a name without any cue."""
    for match in tables()[5].finditer(text):
        size = len(match.group())
        if size >= 4 and not is_word(text, match.start()):
            yield Span(match.start(), match.end(), "name", "minority")


@functools.cache
def _latin() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Two words of Latin letters of which one is a first name; foreign names in Chinese characters, two parts."""
    first = any_of(words("names", "latin"))
    word = r"[A-Z][a-z'’\-]+"
    sound = "".join(sorted(characters("names", "sounds")))
    return (
        re.compile(rf"(?<![A-Za-z])(?:{first}(?: [A-Z]\.?)?(?: {word}){{1,2}}|{word} {first})(?![A-Za-z])"),
        re.compile(
            rf"(?P<a>(?<![{HAN}])[{sound}]{{2,7}}|(?:{any_of(words('names', 'minority'))}){{1,3}})"
            rf"[ .•‧・∙·]\n?(?P<b>[{sound}]{{2,8}})(?![{HAN}·])"
        ),
    )


SEPARATED = re.compile(rf"[ .•‧・∙·](?<=[{HAN}].)\n?(?=[{HAN}])")
TWO_WORDS = re.compile("[A-Z](?=[A-Za-z'’\\-.]+ [A-Z])")


def _foreign(text: str) -> Iterator[Span]:
    """John Smith; 约翰.史密斯, 依布拉音 玉素甫: without any cue, when list or script say so."""
    latin, sounded = _latin()
    if TWO_WORDS.search(text):
        yield from (Span(m.start(), m.end(), "name", "latin") for m in latin.finditer(text))
    done = 0
    for gap in SEPARATED.finditer(text):
        match = sounded.search(text, max(done, gap.start() - 9), gap.end() + 9)
        if match is None:
            continue
        done = match.end()
        spelled = len(match.group()) >= 6 or tables()[5].match(text, match.start())
        if spelled and not (is_word(text, match.start()) or is_word(text, match.start("b"))):
            yield Span(match.start(), match.end(), "name", "foreign")


def _masked(text: str) -> Iterator[Span]:
    """李某某, 张XX, 王**: names that were hidden by hand."""
    known = tables()[1]
    for match in BY_HAND.finditer(text):
        start = match.start() - (2 if match.start() > 1 and tables()[4].match(text, match.start() - 2) else 1)
        if match.start() and (text[match.start() - 1] in known and _edge(text, start, match) or _initial(text, start)):
            yield Span(start, match.end(), "name", "hidden")


def _edge(text: str, start: int, match: re.Match[str]) -> bool:
    """王某某 is a name anywhere, 王* and 王○ behind an edge only."""
    before = text[start - 1 : start] if start else ""
    return (
        "某" in match.group()
        or len(match.group()) > 1
        and match.group()[1] in "xX×*＊"
        or (not "\u3400" <= before <= "\u9fff" or before in PERSON or before in HANDS_OVER)
    )


def _initial(text: str, start: int) -> bool:
    """Whether the character at `start` can only be the first of a hidden name (扎某某, of 扎西多吉)."""
    char, before = text[start], text[start - 1 : start]
    return (
        "\u3400" <= char <= "\u9fff"
        and char not in BAD_GIVEN | UNNAMED
        and (not "\u3400" <= before <= "\u9fff" or before in PERSON)
    )


UNNAMED = frozenset("有为以从因如若比同或即当另何这那每各该任多第某因故")


def _beside(text: str, found: list[Span]) -> list[Span]:
    """The neighbours of a name in a list of names: 高玉兰/范德福, 廖福生、方便."""
    behind, before = _neighbours()
    more = []
    for span in found:
        if text[span.end : span.end + 2].strip(" ")[:1] in SEPARATORS and (match := behind.match(text, span.end)):
            more.append(Span(match.start("name"), match.end("name"), "name", "list"))
        if text[max(0, span.start - 2) : span.start].strip(" ")[-1:] in SEPARATORS:
            window = max(0, span.start - 8)
            if match := before.search(text[window : span.start]):
                more.append(Span(window + match.start("name"), window + match.end("name"), "name", "list"))
    return more


SEPARATORS = frozenset("、/")


@functools.cache
def _neighbours() -> tuple[re.Pattern[str], re.Pattern[str]]:
    shape = rf"(?P<name>(?:[{''.join(sorted(SURNAMES))}]|{any_of(words('names', 'compound'))})[{HAN}]{{1,2}})"
    return (
        re.compile(rf"[ ]?[、/][ ]?{shape}(?=[ ]?(?:[^{HAN} ]|$|均|等|护送|查房|参加|签|{any_of(TITLES)}))"),
        re.compile(rf"(?:(?<![{HAN}])|(?<=[{''.join(sorted(PERSON))}])){shape}[ ]?[、/][ ]?\Z"),
    )


def _words_again(text: str, name: str, seen: set[int]) -> Iterator[Span]:
    """The places of a name that is a word as well (高原), where the edges are those of a person's name."""
    for match in re.compile(name).finditer(text):
        before = text[match.start() - 1 : match.start()]
        left = not "\u3400" <= before <= "\u9fff" or before in PERSON or before in HANDS_OVER
        if left and match.start() not in seen and BEHIND_A_WORD.match(text, match.end()):
            yield Span(match.start(), match.end(), "name", "repeat")


BEHIND_A_WORD = re.compile(rf"[^{HAN}]|$|[{''.join(sorted(THIN))}帮]|{any_of(ACTS | TITLES)}")


def _repeats(text: str, found: list[Span]) -> Iterator[Span]:
    """The other places of the names already found; ordinary words (高兴) and single surnames are not repeated."""
    seen = {span.start for span in found}
    for name in {text[span.start : span.end] for span in found}:
        bare = name.replace(" ", "").replace("\n", "")
        if len(bare) < 2 or not STARTS_A_NAME.match(bare):
            continue
        if bare in words("names", "words") or word_end(bare, 0) == len(bare):
            yield from _words_again(text, bare, seen)
            continue
        place = text.find(bare)
        while place >= 0:
            if place not in seen and not (len(bare) == 2 and word_end(text, place)):
                yield Span(place, place + len(bare), "name", "repeat")
            place = text.find(bare, place + len(bare))
