"""Licence and source from the notices beside the data."""

import pytest

from xinglin.data.provenance import licence_of


def test_notices_of_the_nearest_folder_above(tmp_path):
    (tmp_path / "set" / "deep").mkdir(parents=True)
    note = "source: github.com/a/b  commit 0123456789abcdef (2020)\nlicence as stated there: README: CC BY-NC 4.0.\n"
    (tmp_path / "set" / "NOTE.txt").write_text(note, encoding="utf-8")
    found = licence_of(tmp_path / "set" / "deep" / "x.json")
    assert (found.source, found.commit, found.licence) == ("github.com/a/b", "0123456789abcdef", "CC BY-NC 4.0")
    assert found.research_only and found.notices == ("NOTE.txt",)


@pytest.mark.parametrize(
    ("words", "licence", "only"),
    [
        ("MIT License\nPermission is hereby granted, free of charge", "MIT", False),
        ("Apache License Version 2.0", "Apache-2.0", False),
        ("Apache-2.0. Intended for academic/research use only; commercial misuse prohibited", "Apache-2.0", True),
        ("MIT; free for research and commercial use", "MIT", False),
        ("本数据仅供学术研究使用", "", True),
        ("Attribution-NonCommercial-ShareAlike 4.0", "CC BY-NC-SA 4.0", True),
    ],
)
def test_licence_words(tmp_path, words, licence, only):
    (tmp_path / "LICENSE").write_text(words, encoding="utf-8")
    found = licence_of(tmp_path)
    assert (found.licence, found.research_only) == (licence, only)


def test_nothing_stated(tmp_path):
    (tmp_path / "a" / "b" / "c" / "d").mkdir(parents=True)
    assert licence_of(tmp_path / "a" / "b" / "c" / "d").licence == ""
