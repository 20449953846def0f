"""Marks, forms and figures of the pages, worked out by hand."""

from __future__ import annotations

import string

import pytest

from xinglin.annotate.web.content import figure_text, order_line, share_text
from xinglin.annotate.web.entrance import local_path
from xinglin.annotate.web.guard import Attempts
from xinglin.annotate.web.texts import parts
from xinglin.annotate.web.words import SCRIPT, WORDS, script_words, word


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        ("平 文\n\t第二行", [("平 文\n\t第二行", "", 0)]),
        ("a\u202eb", [("a", "", 0), ("202E", "RLO", 1), ("b", "", 0)]),
        ("\u200b\u200b\u200b", [("200B", "ZWSP", 3)]),
        ("a\r\nb", [("a", "", 0), ("000D", " ", 1), ("\nb", "", 0)]),
        ("\x07\ud800", [("0007", "U+0007", 1), ("D800", "U+D800", 1)]),
        ("👨‍👩‍👧", [("👨‍👩‍👧", "", 0)]),
    ],
)
def test_parts(text: str, wanted: list[tuple[str, str, int]]) -> None:
    found = parts(text)
    assert found == wanted
    back = "".join(chr(int(run, 16)) * count if mark else run for run, mark, count in found)
    assert back == text, "every character stands somewhere: a position on the page is one in the text"


@pytest.mark.parametrize(("ranks", "line"), [((1, 2), "1 > 2"), ((2, 1, 2), "2 > 1 = 3"), ((1, 1), "1 = 2")])
def test_order_line(ranks: tuple[int, ...], line: str) -> None:
    assert order_line(ranks) == line


def test_figures() -> None:
    assert share_text(None, "zh") == "无法计算" and share_text(None, "en") == "undefined"
    found = {"share": 0.8, "hits": 8, "n": 10, "low": 0.4902, "high": 0.9433}
    assert share_text(found, "zh") == "80% (10; 49–94%)"
    assert figure_text({"value": None, "n": 5, "low": None, "high": None}, "zh") == "无法计算"
    assert figure_text({"value": 0.7, "n": 5, "low": None, "high": None}, "zh") == "0.700 (5)"
    assert figure_text({"value": 0.7, "n": 5, "low": 0.5, "high": 0.9}, "zh") == "0.700 (5; 0.500 … 0.900)"


@pytest.mark.parametrize("path", ["/p/1", "/p/1/disputes", "/"])
def test_local_path(path: str) -> None:
    assert local_path(path) == path


@pytest.mark.parametrize("path", ["", "//a", "/\\a", "http://a", "/a\r\nset-cookie: x", "p/1", "/乱"])
def test_no_other_path(path: str) -> None:
    assert local_path(path) == "/"


def test_both_languages_fill_the_same_blanks() -> None:
    def blanks(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    wrong = [name for name, (zh, en) in {**WORDS, **SCRIPT}.items() if blanks(zh) != blanks(en) or not zh or not en]
    assert wrong == []
    assert word("version", "en", n=3) == "version 3" and script_words("zh")["error_done"].startswith("这题")


def test_attempts_are_counted_and_forgotten() -> None:
    attempts = Attempts(most=2, seconds=0.05)
    assert attempts.wait("a") == 0
    attempts.fail("a")
    attempts.fail("a")
    assert attempts.wait("a") == 1 and attempts.wait("b") == 0
    attempts.seconds = 0.0
    assert attempts.wait("a") == 0
