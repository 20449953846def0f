"""One row and its fields: the many ways a text can be absent, wrapped, tagged or marked, brought to one string."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xinglin.records import Message, Role

ABSENT = {"", "nan", "none", "null", "无输入", "<无输入>", "<noinput>", "n/a"}
TAGS = "p|br|div|span|b|i|u|a|em|strong|font|img|ul|ol|li|h[1-6]|table|tr|td|th|tbody|thead|sup|sub|hr|center|pre"
HTML_TAG = re.compile(rf"</?(?:{TAGS})(?:\s+[\w-]+\s*=[^<>]*|\s*)/?>", re.I)
HTML_BREAK = re.compile(r"<br\s*/?>|</(?:p|div|li|tr|h[1-6])>", re.I)
ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[a-zA-Z]{2,8});")
CODE = re.compile(r"```|<!DOCTYPE|<html|\bHTML\b", re.I)
SPECIAL = re.compile(r"</?s>|<\|[\w ]{1,30}\|>|\[/?INST\]|<</?SYS>>|\[(?:Human|MOSS|human|bot)\]\s*[:：]?")
LEADING = re.compile(
    r"^(?:<?(?:问|答|Human|Assistant|提问|回答)>?\s*[:：]|### ?(?:Instruction|Response|指令|回答)[:：]?)\s*"
)
TRAILING = re.compile(
    r"(?:^|\n|(?<=[。？?！!\s]))(?:<?(?:答|Assistant|回答)>?\s*[:：]|### ?(?:Response|回答)[:：]?)\s*$"
)
UNSAFE = re.compile("[\ud800-\udfff\ue000-\uf8ff\U000f0000-\U0010ffff]")
ROLES: dict[str, Role] = {
    **dict.fromkeys(("human", "user", "patient", "client", "患者", "病人", "用户", "问", "求助者", "q"), "user"),
    **dict.fromkeys(("gpt", "assistant", "doctor", "bot", "model", "chatgpt", "ai", "a"), "assistant"),
    **dict.fromkeys(("医生", "答", "助手", "咨询师", "专家", "大夫"), "assistant"),
    "system": "system",
    "系统": "system",
}
TOOL_ROLES = {"function_call", "observation", "tool", "function", "ipython", "tool_call", "tool_response"}
TURN = re.compile(
    r"(?:^|(?<=\s))<(user|bot|human|assistant|问|答)>\s*[:：]"
    r"|^\s*(?:</?s>\s*)*(医生|病人|患者|Human|Assistant|patient|doctor|问|答|用户|助手)\s*[:：]",
    re.M | re.I,
)
# Automatic synonym replacement turned these into their opposites (measured in Toyhom: 184 + 432 + 196 answers).
REVERSED = re.compile(
    r"放慢.{0,6}(?:康复|痊愈)|(?<!声音|语气|动作|音量|力度|语调|手法)放柔"
    r"|麻醉[^，。；]{0,10}(?:疫苗|球蛋白|免疫蛋白)|横向散播|驱毒|辛辣打击|预防工作.{0,12}拔出"
)


class Rejected(Exception):
    """This row yields no record; `reason` is a short word that goes into the counts, never text of the row."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Row:
    """One row of a file. `flags` counts what was changed or noticed; it ends up in the record's meta."""

    path: Path
    number: int
    value: Any
    flags: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.value, dict):
            self.value = {str(key).strip().lower(): value for key, value in self.value.items()}

    def get(self, *names: str) -> Any:
        """The first of these fields that the row has."""
        return next((self.value[name] for name in names if name in self.value), None)

    def text(self, *names: str) -> str:
        """The clean text of the first of these fields that says something; "" when none does."""
        return next((text for name in names if (text := self.clean(self.value.get(name)))), "")

    def cells(self) -> list[str]:
        """Every cell of the row, clean, in its order."""
        return [self.clean(cell) for cell in (self.value.values() if isinstance(self.value, dict) else self.value)]

    def clean(self, value: Any) -> str:
        """R5, R7, R8: unwrap, take absent words for "", strip prompt markers and HTML."""
        text = self._unwrap(value).strip()
        if bad := UNSAFE.search(text):
            raise Rejected(f"{'lone_surrogate' if bad[0] < chr(0xE000) else 'private_use'}_U+{ord(bad[0]):04X}")
        if text.lower() in ABSENT or html.unescape(text) in ABSENT:
            return ""
        if ("<" in text or "&" in text) and not CODE.search(text):
            cleaned = HTML_TAG.sub("", HTML_BREAK.sub("\n", text))
            cleaned = ENTITY.sub(lambda match: html.unescape(match[0]).replace("\xa0", " "), cleaned)
            self.flag("html", cleaned != text)
            text = cleaned
        unmarked = SPECIAL.sub("", text).strip() if "<" in text or "[" in text else text
        unmarked = LEADING.sub("", unmarked)
        if unmarked.endswith((":", "：", "Response", "回答")):
            unmarked = TRAILING.sub("", unmarked)
        self.flag("prompt_markers", unmarked != text)
        return unmarked.replace("\r\n", "\n").replace("\r", "\n").strip()

    def _unwrap(self, value: Any) -> str:
        while isinstance(value, list | tuple) and value:
            self.flag("variants_left", len(value) - 1)
            value = value[0]
        if isinstance(value, dict):
            value = next((value[key] for key in ("value", "content", "text") if key in value), None)
        if isinstance(value, str):
            return value
        return "" if value is None or isinstance(value, list | tuple | dict | bool) else str(value)

    def flag(self, name: str, count: int | bool = 1) -> None:
        if count:
            self.flags[name] = self.flags.get(name, 0) + int(count)


def role_of(word: str) -> Role:
    """user, assistant or system for the many words there are."""
    key = word.strip().strip("<>").lower()
    if key in TOOL_ROLES:
        raise Rejected("tool_roles")
    if key not in ROLES:
        raise Rejected("unknown_role")
    return ROLES[key]


def split_turns(text: str) -> list[tuple[str, str]]:
    """(role word, text) of a dialogue written into one string: `<user>: … <bot>: …`, `医生：` / `病人：` lines."""
    marks = list(TURN.finditer(text))
    if not marks or text[: marks[0].start()].strip():
        return []
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [(mark[1] or mark[2], text[mark.end() : end]) for mark, end in zip(marks, ends, strict=True)]


def messages(row: Row, turns: Iterable[tuple[str, Any]]) -> tuple[tuple[Message, ...], dict[str, str]]:
    """R6: known roles, equal neighbours merged, no turn lost. A doctor's opening and a patient's closing words stay
    in meta: a conversation starts with a user turn (after system) and ends with an assistant turn."""
    merged: list[tuple[Role, str]] = []
    for word, value in turns:
        role, text = role_of(word), row.clean(value)
        if not text:
            row.flag("empty_turns")
        elif merged and merged[-1][0] == role:
            row.flag("merged_turns")
            merged[-1] = (role, merged[-1][1] + "\n" + text)
        else:
            merged.append((role, text))
    if not any(role == "assistant" for role, _ in merged):
        raise Rejected("no_assistant_turn" if not row.flags.get("empty_turns") else "empty_answer")
    if not any(role == "user" for role, _ in merged):
        raise Rejected("no_user_turn")
    meta: dict[str, str] = {}
    system = [merged.pop(0)] if merged[0][0] == "system" else []
    if merged[0][0] == "assistant":
        meta["opening"] = merged.pop(0)[1]
        row.flag("assistant_first")
    if merged[-1][0] == "user":
        meta["closing"] = merged.pop()[1]
        row.flag("user_last")
    if not any(role == "assistant" for role, _ in merged):
        raise Rejected("no_answer_after_question")
    return tuple(Message(role, text) for role, text in system + merged), meta


def meaning_reversed(text: str) -> bool:
    """R12: wording that automatic synonym replacement has turned into its opposite."""
    return REVERSED.search(text) is not None


def letters(count: int) -> str:
    """Option letters; after Z come a to z, because a key is one character."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    if count > len(alphabet):
        raise Rejected("too_many_options")
    return alphabet[:count]
