"""One hand-made row for each shape of dialogue and text, and for each of their defects."""

import json

import pytest

from xinglin.data.sources import import_file
from xinglin.records import Document, Question, read_any, write_records


def load(tmp_path, *rows, name="data.jsonl", text=None):
    path = tmp_path / name
    path.write_text(text or "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    job = import_file(path)
    records = list(job)
    assert job.accepted + sum(job.rejected.values()) == job.read
    return job, records


def said(record):
    return [(message.role[0], message.content) for message in record.messages]


def test_alpaca_with_history_system_and_absent_words(tmp_path):
    rows = [
        {"instruction": "头痛", "input": "&lt;无输入&gt;", "output": "休息"},
        {"instruction": ["译"], "input": "痛", "output": ["pain"], "system": "你是医生", "history": [["早", "好"]]},
        {"instruction": "头痛", "input": "nan", "output": "nan"},
        {"instruction": "无输入", "input": "", "output": "好"},
        {"instruction": " <user>: 甲 <bot>: 乙 <user>: 丙", "input": "", "output": "丁", "id": 3},
    ]
    job, records = load(tmp_path, *rows)
    assert said(records[0]) == [("u", "头痛"), ("a", "休息")]
    assert said(records[1]) == [("s", "你是医生"), ("u", "早"), ("a", "好"), ("u", "译\n痛"), ("a", "pain")]
    assert said(records[2]) == [("u", "甲"), ("a", "乙"), ("u", "丙"), ("a", "丁")]
    assert job.rejected == {"empty_answer": 1, "empty_question": 1}


@pytest.mark.parametrize(
    "turns",
    [
        {"conversations": [{"from": "human", "value": "甲"}, {"from": "gpt", "value": "乙"}]},
        {"messages": [{"role": "user", "content": "甲"}, {"role": "assistant", "content": "乙"}]},
        {"conversation": [{"role": "patient", "content": "甲"}, {"role": "doctor", "content": "乙"}]},
        {"conversation": [{"human": "甲", "assistant": "乙"}]},
        {"dialogue": [{"speaker": "患者", "sentence": "甲"}, {"speaker": "医生", "sentence": "乙"}]},
        {"dialogue": "病人：甲\n医生：乙"},
        {"data": ["问：甲", "答：乙"]},
        {"text": "<s>问：甲\n答：乙</s>"},
        {"text": "<s>Human: 甲\n</s><s>Assistant: 乙\n</s>"},
        ["病人：甲", "医生：乙"],
        [["甲", "乙"]],
        {"question": "甲", "answer": "乙"},
        {"query": "问：甲", "response": "答：乙"},
        {"instruction": "<s>问：甲？答：", "output": "乙</s>"},
    ],
)
def test_roles_of_every_kind(tmp_path, turns):
    _, records = load(tmp_path, turns, turns)
    assert [(role, text.rstrip("？")) for role, text in said(records[0])] == [("u", "甲"), ("a", "乙")]


def test_neighbours_are_merged_and_ends_are_kept_in_meta(tmp_path):
    turns = [("医生", "在吗"), ("患者", "孩子咳"), ("患者", "三天了"), ("医生", ""), ("医生", "吃药"), ("患者", "谢谢")]
    row = {"dialogue-content": [{"speaker": s, "sentence": t, "label": "B", "normalized": []} for s, t in turns]}
    job, (record,) = load(tmp_path, row)
    assert said(record) == [("u", "孩子咳\n三天了"), ("a", "吃药")]
    assert (record.meta["opening"], record.meta["closing"]) == ("在吗", "谢谢")
    assert job.flags["merged_turns"] == 1 and job.flags["empty_turns"] == 1 and job.flags["assistant_first"] == 1
    assert job.flags["bio_symptom_mismatches"] == 6


def test_refused_dialogues_say_why(tmp_path):
    def talk(*turns):
        return {"messages": [{"role": role, "content": text} for role, text in turns]}

    job, records = load(
        tmp_path,
        talk(("user", "甲")),
        talk(("user", "甲"), ("assistant", "")),
        talk(("user", "甲"), ("function_call", "{}"), ("assistant", "乙")),
        talk(("user", "甲"), ("张三", "乙")),
        talk(("assistant", "乙")),
        talk(("assistant", "乙"), ("user", "甲")),
        {"messages": []},
        {"messages": "随便一句话"},
    )
    assert records == []
    assert [rejection.reason for rejection in job.rejections] == [
        "no_assistant_turn",
        "empty_answer",
        "tool_roles",
        "unknown_role",
        "no_user_turn",
        "no_answer_after_question",
        "turns_are_not_a_list",
        "turns_are_not_a_list",
    ]


def test_two_schemas_in_one_list(tmp_path):
    rows = [{"instruct": " 是诅咒吗？", "output": "不是。"}, {"instruction": "痛", "output": "歇"}, {"k1": 1, "k2": 2}]
    job, records = load(tmp_path, text=json.dumps(rows, ensure_ascii=False))
    assert job.schemas == {"adversarial": 1, "alpaca": 1, "unknown": 1}
    assert isinstance(records[0], Question) and records[0].kind == "safety" and records[0].reference == "不是。"
    assert records[0].prompt[0].content == "是诅咒吗？"
    assert job.rejected == {"unknown_schema: keys k1, k2": 1}


def test_html_goes_and_comparisons_stay(tmp_path):
    answer = "<p>结节<5cm，P<0.05&nbsp;且 HBV-DNA<1.0E+3，A&B，a &lt; b。</p><br/><a href='x'>详情</a>"
    job, (record,) = load(tmp_path, {"question": "怎么办", "answer": answer})
    assert record.messages[1].content == "结节<5cm，P<0.05 且 HBV-DNA<1.0E+3，A&B，a < b。\n\n详情"
    assert record.meta["flags"] == {"html": 1}
    code = "```html\n<p>甲</p>\n```"
    assert load(tmp_path, {"question": "写", "answer": code})[1][0].messages[1].content == code


def test_special_tokens_are_stripped_and_flagged(tmp_path):
    job, (record,) = load(tmp_path, {"question": "甲<|im_end|>", "answer": "<|im_start|>乙</s>"})
    assert said(record) == [("u", "甲"), ("a", "乙")] and job.flags == {"prompt_markers": 2}


def test_unsafe_characters_are_refused_with_their_code_point(tmp_path):
    text = '{"question": "\\ud800", "answer": "b"}\n{"question": "\\ue000", "answer": "b"}\n'
    job, _ = load(tmp_path, text=text)
    assert job.rejected == {"lone_surrogate_U+D800": 1, "private_use_U+E000": 1}


@pytest.mark.parametrize("answer", ["可放慢康复速度", "以免放柔病情", "出生后麻醉乙肝疫苗", "防止横向散播"])
def test_reversed_meanings_are_refused(tmp_path, answer):
    job, _ = load(tmp_path, {"title": "乙肝", "ask": "怎么办", "answer": answer, "department": "肝病科"})
    assert job.rejected == {"meaning_reversed": 1}


def test_title_joins_the_longer_question(tmp_path):
    _, (record,) = load(tmp_path, {"department": "肝病科", "title": "乙肝？", "ask": "我有乙肝", "answer": "看医生"})
    assert record.messages[0].content == "我有乙肝" and record.meta["department"] == "肝病科"
    _, (record,) = load(tmp_path, {"title": "能吃鱼吗？", "ask": "我有乙肝", "answer": "看医生"})
    assert record.messages[0].content == "能吃鱼吗？\n我有乙肝"


BOOK = (
    "<篇名>某书\n书名：某书\n作者：某人  \n朝代：{dynasty}  \n年份：公元1644-1911年  \n\n<目录>\n\n<篇名>序\n\n"
    "属性：昔人有言∶医者意也，其理微妙，非深思者不能得之。今撰此书，以授后学 \n，望其勤读。 \n\\x某人序\\x \n\n"
    "<目录>卷一\\五脏\n\n<篇名>香苏散\n\n"
    "内容：治 瘕及四时感冒，头痛发热恶寒无汗胸脘痞闷不思饮食者用此方□效 \n香附（三两） \n\n"
    "<目录>卷一\n\n<篇名>空\n\n"
)


def test_book_sections(tmp_path):
    job, records = load(tmp_path, text=BOOK.format(dynasty="清"), name="001-某书.txt")
    assert (job.read, job.accepted, job.rejected) == (3, 2, {"empty_section": 1})
    assert isinstance(records[0], Document)
    text = records[0].text
    assert text.startswith("# 某书 · 序\n\n昔人有言：医者意也") and "\\x" not in text
    assert "以授后学，望其勤读。\n某人序" in text
    assert records[1].text.startswith("# 某书 · 卷一 / 五脏 · 香苏散\n\n治 瘕")
    assert records[1].meta["book_losses"]["num_boxes"] == 1 and records[1].meta["book_losses"]["num_gaps"] == 1
    assert records[1].meta["dynasty"] == "清" and records[1].meta["author"] == "某人"


@pytest.mark.parametrize(
    ("dynasty", "reason"), [("民国", "modern_work"), ("", "no_dynasty_in_header"), ("现代", "modern_work")]
)
def test_modern_books_are_refused(tmp_path, dynasty, reason):
    job, records = load(tmp_path, text=BOOK.format(dynasty=dynasty), name="b.txt")
    assert records == [] and job.rejected == {reason: 3}


def test_knowledge_bases_and_cases(tmp_path):
    kb = {"_id": {"$oid": "5b"}, "name": "感冒", "desc": "常见病", "symptom": ["咳嗽", "发热"], "cost": ""}
    case = {"title": "病例", "description": "男，40岁", "QA_pairs": [{"question": "诊断？", "answer": "肝炎"}]}
    text = {"title": "感冒", "text": "常见病。"}
    _, records = load(tmp_path, kb, case, text, {"text": "独立一段。"})
    assert records[0].text == "感冒\ndesc：常见病\nsymptom：咳嗽、发热"
    assert said(records[1]) == [("u", "男，40岁\n诊断？"), ("a", "肝炎")]
    assert records[2].text == "感冒\n\n常见病。" and records[3].text == "独立一段。"
    _, (triple,) = load(tmp_path, text="S,P,O\n感冒,has_symptom,咳嗽\n", name="spo.csv")
    assert triple.text == "感冒 has symptom 咳嗽" and triple.meta["triple"] == ["感冒", "has_symptom", "咳嗽"]
    job, (tree,) = load(tmp_path, text="id\n内科\n内科-内分泌科\n", name="tree.csv")
    assert tree.text == "内科\n内科-内分泌科" and (job.read, job.records) == (2, 1)


def test_prompts_without_answers(tmp_path):
    rows = [
        {"id_": 2, "prompt": "有害吗？", "domain_en": "x", "domain_zh": "环境"},
        {"question": "请说明病因。", "ICD-10": "Diseases of the eye"},
        {"input": "分类：甲\n答：", "target": "", "task_type": "cls"},
        {"id": "cami1", "text_en": "A cause is weakness.", "direction": "-"},
        {"id": "0", "question": "怎么办", "raw_anwser": "休息"},
    ]
    _, records = load(tmp_path, *rows)
    assert [record.kind for record in records] == ["safety", "open", "cls", "bias_item", "dialogue"]
    assert records[2].prompt[0].content == "分类：甲" and records[4].reference == "休息"


def test_own_records_round_trip(tmp_path):
    _, records = load(tmp_path, {"question": "甲", "answer": "乙"}, {"text": "丙"})
    write_records(tmp_path / "out.jsonl", records)
    job = import_file(tmp_path / "out.jsonl")
    assert list(job) == records == list(read_any(tmp_path / "out.jsonl"))
    assert job.schemas == {"record": 2}
    broken = {"type": "document", "id": "x", "text": 3}
    assert load(tmp_path, broken)[0].rejected == {"own_record_field_text_is_int_expected_str": 1}


SHAPES = [
    {"instruction": "甲", "input": "", "output": "乙", "history": [["一", "二"]], "system": "三"},
    {"conversations": [{"from": "human", "value": "甲"}, {"from": "gpt", "value": "乙"}], "system": "s"},
    {"dialogue-content": [{"speaker": "患者", "sentence": "甲", "label": "B", "normalized": ["a"], "type": ["1"]}]},
    {"text": "甲乙", "mention_data": [{"mention": "甲", "type": "x", "offset": "0"}]},
    {"text": "甲乙", "entities": [{"start": 0, "end": 1, "type": "x"}]},
    {"text": "甲乙", "tags": ["O", "O"]},
    {"query": "甲", "documents": [{"url": "u", "label": "1", "title": "t"}, {"url": "u", "label": "2", "title": "v"}]},
    {"prompt": "甲", "chosen": "好", "rejected": "坏", "history": []},
    {"query": "甲", "history": [], "response_0": "一", "response_1": "二"},
    {"query": "甲", "history": "[]", "rank1": "一", "rank2": "二"},
    {"question": "甲", "options": {"A": "一", "B": "二"}, "answer": "A", "explanation": "x"},
    {"question": "甲", "a": "一", "b": "二", "answer": "A"},
    {"input": "甲", "target": "乙", "task_type": "x"},
    {"instruct": "甲", "output": "乙"},
    {"title": "甲", "ask": "乙", "answer": "丙", "department": "x"},
    {"question": "甲", "raw_anwser": "乙", "id": "1"},
    {"id": "甲", "model": "m", "scores": "Accuracy: 5", "prompt": "[start of conversation]x[end of conversation]"},
    {"s": "甲", "p": "乙", "o": "丙"},
    {"name": "甲", "desc": "乙", "symptom": ["丙"]},
    {"description": "甲", "qa_pairs": [{"question": "一", "answer": "二"}]},
    {"data": ["问：甲", "答：乙"]},
    {"chapter": "a", "title": "b", "body": "c", "refused": ""},
    {"id": "甲"},
]
ODD = [None, 3, 1.5, True, "", "x", [], {}, [None], [[]], [{}], [["x"]], [1, 2], {"x": 1}, "nan", "\ue000", ["x", "y"]]


def test_odd_values_never_break_the_count(tmp_path):
    rows = [{**shape, key: odd} for shape in SHAPES for key in shape for odd in ODD]
    job, _ = load(tmp_path, *rows, *ODD[1:])
    assert job.read == len(rows) + len(ODD) - 1
