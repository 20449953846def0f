"""Duplicates: the truth is counted here with Python sets and dictionaries, never with the code under test."""

import json
import random
import tracemalloc
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from xinglin.cli.data import app
from xinglin.data import shingles
from xinglin.data.dedup import dedup_files, find_duplicates
from xinglin.data.sources import import_file
from xinglin.data.texts import normal
from xinglin.records import Conversation, InputError, Message, read_any, write_records

PUBLIC = Path(__file__).resolve().parents[2] / "../shared/data/public"
TEXT = "患者三天前受凉后出现咳嗽咳黄痰伴低热体温三十八度自服感冒药后无明显好转今日来院就诊查体咽部充血双肺呼吸音粗"


def shingle_set(text):
    letters = "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())
    return {letters[start : start + 5] for start in range(len(letters) - 4)} or {letters}


def jaccard(left, right):
    a, b = shingle_set(left), shingle_set(right)
    return len(a & b) / len(a | b)


def talk(number, question, answer):
    return Conversation(f"c{number}", (Message("user", question), Message("assistant", answer)), "own")


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        (["高血压怎么办？", "高血压 怎么办", "高血压，怎么办!", "低血压怎么办？"], [0, 0, 0, 3]),
        (["ＨＢｓＡｇ阳性", "hbsag阳性"], [0, 0]),  # width and case
        (["是", "否", "好的", "是。"], [0, 1, 2, 0]),  # shorter than a shingle: equal or different
        (["？？", "。", ""], [0, 1, 2]),  # nothing to compare: never a duplicate
        (["Ⅱ型", "II型", "Ⅲ型"], [0, 0, 2]),  # one character becomes two
        (["e\u0301tude", "\u00e9tude"], [0, 0]),  # composed and decomposed
        (["𠮷野家", "𠮷野家。", "吉野家"], [0, 0, 2]),  # beyond the basic plane
    ],
)
def test_exact(texts, kept):
    groups = find_duplicates(texts, near=0)
    assert groups.kept.tolist() == kept and groups.exact.all()
    assert find_duplicates(texts).kept.tolist() == kept


def test_normal_points_spell_what_normal_says():
    rng = random.Random(1)
    alphabet = (
        "高血压患者abcXYZ０１２ＡＢＣ，。！？（）()<>≤℃㎎Ⅱ½①ﬁİß가각ᄀ" + "\u0301\u3099\u200b\U00020bb7\U0001d400_~ \n\t"
    )
    texts = ["".join(rng.choices(alphabet, k=rng.randrange(30))) for _ in range(500)]
    points, lengths = shingles.normal_points(texts)
    spelled = "".join(map(chr, points.tolist()))
    ends = np.cumsum(lengths).tolist()
    assert [spelled[end - size : end] for end, size in zip(ends, lengths.tolist(), strict=True)] == [
        normal(text) for text in texts
    ]


def test_true_jaccard_against_sets():
    texts = [TEXT, TEXT[:30] + "无" + TEXT[31:], TEXT[10:], "完全不同的另一段话与前面没有任何关系", "短"]
    points, lengths = shingles.padded(*shingles.normal_points(texts))
    found = shingles.hashes(points, lengths)
    owner = np.repeat(np.arange(len(texts)), lengths)
    for i, left in enumerate(texts):
        for j, right in enumerate(texts):
            a, b = found[owner == i], found[owner == j]
            value = shingles.jaccard(a, np.zeros(len(a), np.int64), b, np.zeros(len(b), np.int64), 1)
            assert value == pytest.approx([jaccard(left, right)])


@pytest.mark.parametrize("near", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_find_a_pair_at_the_threshold(near):
    bands, rows = shingles.bands_for(near)
    assert bands * rows <= shingles.MOST_PERMUTATIONS
    assert 1 - (1 - near**rows) ** bands >= 0.99 or near == 1


def test_which_row_stays():
    texts = [TEXT, TEXT + "一", "别的", TEXT + "。"]
    assert find_duplicates(texts, keep="first").kept.tolist() == [0, 0, 2, 0]
    longest = find_duplicates(texts, keep="longest")
    assert longest.kept.tolist() == [1, 1, 2, 1] and longest.exact.tolist() == [False, True, True, False]
    expected = jaccard(TEXT, TEXT + "一")
    assert longest.similarity.tolist() == pytest.approx([expected, 1, 1, expected])


def test_a_chain_is_one_group_and_its_ends_are_told():
    chain = [TEXT, TEXT[:-3], TEXT[:-6]]
    near = min(jaccard(chain[0], chain[1]), jaccard(chain[1], chain[2])) - 0.001
    assert jaccard(chain[0], chain[2]) < near
    groups = find_duplicates(chain, near=near)
    assert groups.kept.tolist() == [0, 0, 0]
    assert groups.similarity[2] == pytest.approx(jaccard(chain[0], chain[2]))


def planted(texts, rng, count, length):
    """Real texts and edited copies of some of them: (texts, pairs of places with their similarity)."""
    pool = "".join(texts)
    texts = list(dict.fromkeys(text for text in texts if len(normal(text)) >= length))
    rng.shuffle(texts)
    pairs = []
    for place in range(count):
        rate = rng.choice([0.005, 0.01, 0.02, 0.03, 0.06])
        copy = "".join(rng.choice(pool) if rng.random() < rate else char for char in texts[place])
        pairs.append((place, len(texts), jaccard(texts[place], copy)))
        texts.append(copy)
    return texts, pairs


@pytest.mark.parametrize(("file", "length"), [("huatuo_bencao/llama_data.json", 30), ("cmexam_val/val_0-3404.csv", 12)])
def test_recall_and_precision_on_planted_pairs_in_real_text(file, length):
    if not (PUBLIC / file).is_file():
        pytest.skip("shared/data/public is not beside the project")
    real = [
        "".join(message.content for message in record.messages) if isinstance(record, Conversation) else record.question
        for record in import_file(PUBLIC / file)
    ]
    texts, pairs = planted(real[:3000], random.Random(0), 800, length)
    groups = find_duplicates(texts, near=0.8)
    joined = [(a, b, s) for a, b, s in pairs if groups.kept[a] == groups.kept[b]]
    alike = [pair for pair in pairs if pair[2] >= 0.8]
    assert len(alike) > 200
    assert len([pair for pair in joined if pair[2] >= 0.8]) / len(alike) >= 0.95
    # Precision over everything that was dropped, by sets: rows of groups of two are alike themselves.
    sizes = Counter(groups.kept.tolist())
    dropped = [(row, kept) for row, kept in enumerate(groups.kept.tolist()) if row != kept and sizes[kept] == 2]
    assert len(dropped) > 200
    assert sum(jaccard(texts[row], texts[kept]) >= 0.8 for row, kept in dropped) / len(dropped) >= 0.95


def test_same_groups_in_little_memory_and_a_refusal_in_less(monkeypatch):
    rng = random.Random(2)
    base = ["".join(rng.choices("甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳午未申酉", k=40)) for _ in range(1500)]
    texts = base + [text[:20] + "换" + text[21:] for text in base[:300]] + base[:50]
    wide = find_duplicates(texts, near=0.7)
    monkeypatch.setattr("xinglin.data.dedup.CANDIDATE_BYTES", 1 << 16)  # forces several passes over each band
    monkeypatch.setattr("xinglin.data.dedup.MOST_PAIRS", 7)
    narrow = find_duplicates(texts, near=0.7, memory_mb=1)
    assert narrow.kept.tolist() == wide.kept.tolist()
    with pytest.raises(InputError, match="give 4 or more"):
        find_duplicates((str(number) for number in range(20_000)), near=0, memory_mb=1)


def test_a_huge_bucket_of_one_text_stays_linear():
    texts = [f"{TEXT}{number:05d}" for number in range(3000)]
    groups = find_duplicates(texts, near=0.8)
    assert set(groups.kept.tolist()) == {0} and groups.compared < 20 * len(texts)


def test_memory_does_not_hold_the_texts():
    rng = random.Random(3)
    chars = [chr(0x4E00 + number) for number in range(3000)]

    def texts(count):
        return ("".join(rng.choices(chars, k=500)) for _ in range(count))

    peaks = []
    for count in (500, 4000):
        tracemalloc.start()
        find_duplicates(texts(count), near=0.8)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 3,500 more texts are 7 MB of code points; at most 1,024 of them are in memory together.
    assert peaks[1] - peaks[0] < 16e6


@pytest.mark.parametrize("near", [0.1, 1.5, -1])
def test_thresholds_that_cannot_be(near):
    with pytest.raises(InputError, match="allowed: 0"):
        find_duplicates(["甲"], near=near)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    write_records(
        tmp_path / "a.jsonl",
        [talk(1, "感冒怎么办？", "多休息。"), talk(2, "感冒怎么办", "多喝水。"), talk(3, TEXT, "好。")],
    )
    write_records(
        tmp_path / "b.jsonl",
        [talk(4, "感冒，怎么办", "多休息"), talk(5, TEXT + "一", "好。"), talk(6, "头痛？", "多喝水。")],
    )
    return tmp_path / "a.jsonl", tmp_path / "b.jsonl"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("options", "kept", "rejected"),
    [
        ((), ["c1", "c2", "c3", "c6"], {"exact duplicate": 1, "near duplicate": 1}),
        (("--near", 0), ["c1", "c2", "c3", "c5", "c6"], {"exact duplicate": 1, "near duplicate": 0}),
        (("--on", "question"), ["c1", "c3", "c6"], {"exact duplicate": 2, "near duplicate": 1}),
        (("--on", "answer"), ["c1", "c2", "c3"], {"exact duplicate": 3, "near duplicate": 0}),
        (("--keep", "longest"), ["c1", "c2", "c5", "c6"], {"exact duplicate": 1, "near duplicate": 1}),
    ],
)
def test_dedup_command(files, tmp_path, options, kept, rejected):
    result = run("dedup", *files, "--out", tmp_path / "out", "--json", *options)
    assert result.exit_code == 0, result.exception
    summary = json.loads(result.stdout)
    assert (summary["read"], summary["accepted"], summary["rejected"]) == (6, len(kept), rejected)
    assert summary["equal"] == {"question": 2, "answer": 3, "pair": 1}
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["a.jsonl", "b.jsonl", "duplicates.jsonl", "manifest.json"]
    assert [record.id for name in ("a.jsonl", "b.jsonl") for record in read_any(out / name)] == kept
    aside = [json.loads(line) for line in (out / "duplicates.jsonl").read_text("utf-8").splitlines()]
    assert sorted(kept + [row["record"]["id"] for row in aside]) == [f"c{number}" for number in range(1, 7)]
    assert Counter(row["reason"] for row in aside) == Counter({k: v for k, v in rejected.items() if v})
    assert all(row["kept"] in kept for row in aside)


def test_two_workers_write_what_one_writes(files, tmp_path):
    for workers in (1, 2):
        dedup_files(files, tmp_path / f"out{workers}", workers=workers)
    for path in (tmp_path / "out1").iterdir():
        assert path.read_bytes() == (tmp_path / "out2" / path.name).read_bytes()


def test_input_errors_in_one_line(files, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(files[0].read_text("utf-8") + '{"type":"conversation"}\n', encoding="utf-8")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "more").mkdir()
    (tmp_path / "more/a.jsonl").write_bytes(files[0].read_bytes())
    cases = [
        ((bad, "--out", tmp_path / "o1"), "bad.jsonl:4: field"),
        ((bad, "--out", tmp_path / "o2", "--workers", 2), "bad.jsonl:4: field"),
        ((tmp_path / "none.jsonl", "--out", tmp_path / "o3"), "no such file"),
        ((tmp_path / "empty.jsonl", "--out", tmp_path / "o4"), "no records"),
        ((files[0], tmp_path / "more/a.jsonl", "--out", tmp_path / "o5"), "name is taken"),
        ((files[0], "--out", tmp_path), "not empty"),
        ((files[0], "--out", tmp_path / "o6", "--on", "title"), "question, answer, pair"),
        ((files[0], "--out", tmp_path / "o7", "--near", 7), "near is 7"),
    ]
    for arguments, words in cases:
        result = run("dedup", *arguments)
        assert isinstance(result.exception, InputError) and words in str(result.exception), (words, result.exception)
        assert "\n" not in str(result.exception) and TEXT not in str(result.exception)
    assert not list(tmp_path.rglob("manifest.json")) and not list(tmp_path.rglob(".dedup-*"))


@pytest.mark.parametrize(
    "file",
    ["llamafactory_demo/alpaca_zh_demo.json", "huatuo_bencao/llama_data.json", "zhongjing/huatuo26M_test_0-3999.json"],
)
def test_equal_rows_of_public_sets_against_a_dictionary(file, tmp_path):
    if not (PUBLIC / file).is_file():
        pytest.skip("shared/data/public is not beside the project")
    records = list(import_file(PUBLIC / file))
    write_records(tmp_path / "set.jsonl", records)
    summary = dedup_files([tmp_path / "set.jsonl"], tmp_path / "out", near=0)
    questions = Counter(
        "".join(c for c in unicodedata.normalize("NFKC", m.content).casefold() if c.isalnum())
        for record in records
        for m in (record.messages if isinstance(record, Conversation) else record.prompt)
        if m.role == "user"
    )
    assert summary["equal"]["question"] == sum(questions.values()) - len(questions) - max(0, questions[""] - 1)
