"""The repairs of every text: what changes, and above all what does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from xinglin.data.clean import text as mend

CASES = [
    (mend.encoding, "高血压".encode().decode("latin-1"), "高血压"),
    (mend.encoding, "患者咳嗽三天。".encode().decode("gbk", "replace"), None),  # odd bytes: lost, see is_broken
    (mend.encoding, "注意休息".encode().decode("gb18030"), "注意休息"),
    (mend.encoding, "联通、α受体、résumé", "联通、α受体、résumé"),
    (mend.control, "血\u200b压\ufeff高\r\n头\x07晕", "血压高\n头晕"),
    (mend.control, "\u2f08\u2f24", "人大"),  # Kangxi radicals, as PDF files give them
    (mend.width, "ＣＴ示５．０ｃｍ，约３０％；（阳性）", "CT示5.0cm，约30%；（阳性）"),
    (mend.script, "患者發熱三日，頭髮脫落，白朮", "患者发热三日，头发脱落，白术"),
    (mend.script, "乾隆年间，瞭望，著作", "乾隆年间，瞭望，著作"),
    (mend.html, "<p>多喝水<br>休息</p>", "多喝水\n休息\n"),
    (mend.html, "肿块<5cm，P<0.05，HBV-DNA<1.0E+3，A&B型，每日&2次", None),
    (mend.html, "肿块&lt;5cm&nbsp;P&amp;lt;0.05", "肿块<5cm P<0.05"),
    (mend.html, "写一个网页：<!DOCTYPE html><p>你好</p>", None),
    (mend.markers, "<s>问：高血压怎么办答：", "高血压怎么办"),
    (mend.markers, "<|im_start|>胃疼吃什么药", "胃疼吃什么药"),
    (mend.markers, "医生问：有没有发热？", None),
    (mend.punctuation, "多喝水。。。。注意休息！！！！  好", "多喝水。注意休息！ 好"),
    (mend.punctuation, "3.9----6.1", "3.9-6.1"),
    (mend.punctuation, "```\nif a:    b\n\n\n\n```", None),
]


@pytest.mark.parametrize(("change", "before", "after"), CASES)
def test_text_is_mended_once(change: Callable[[str], str], before: str, after: str | None) -> None:
    found = change(before)
    assert found == (before if after is None else after)
    assert change(found) == found


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("该怎&65533;办", True),
        ("锟斤拷", True),
        ("患者咳嗽三天。".encode().decode("gbk", "replace"), True),
        ("患者咳嗽三天，P<0.05，Café", False),
    ],
)
def test_lost_characters_are_seen(text: str, broken: bool) -> None:
    assert mend.is_broken(text) is broken
