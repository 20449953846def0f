"""One hand-made row for each shape of exam, preference and span, and for each of their defects."""

import json
from itertools import product

import pytest

from xinglin.data.sources import import_file, judged_preferences
from xinglin.records import ExamQuestion, InputError, Preference, Rollout


def load(tmp_path, *rows, name="data.jsonl", text=None):
    path = tmp_path / name
    path.write_text(text or "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    job = import_file(path)
    records = list(job)
    assert job.accepted + sum(job.rejected.values()) == job.read
    return job, records


@pytest.mark.parametrize(
    ("prompt", "wrap"),
    list(
        product(
            [
                {"prompt": "甲"},
                {"question": "甲"},
                {"instruction": "甲", "input": ""},
                {"conversations": [{"from": "human", "value": "甲"}]},
                {"prompt": [{"role": "user", "content": "甲"}]},
            ],
            [
                lambda text: text,
                lambda text: {"from": "gpt", "value": text},
                lambda text: [{"role": "assistant", "content": text}],
            ],
        )
    ),
)
def test_preferences_in_every_form(tmp_path, prompt, wrap):
    _, (record,) = load(tmp_path, {**prompt, "chosen": wrap("好"), "rejected": wrap("坏")})
    assert isinstance(record, Preference) and record.ranks == (1, 2)
    assert [message.content for message in record.prompt] == ["甲"]
    assert [answer.text for answer in record.answers] == ["好", "坏"]


def test_preferences_that_teach_nothing(tmp_path):
    whole = [{"role": "user", "content": "甲"}, {"role": "assistant", "content": "好"}]
    job, (record,) = load(
        tmp_path,
        {"prompt": "甲", "chosen": "好", "rejected": " 好 "},
        {"prompt": "甲", "chosen": "好", "rejected": ""},
        {"prompt": "", "chosen": "好", "rejected": "坏"},
        {"chosen": whole, "rejected": [whole[0], {"role": "assistant", "content": "坏"}]},
        {"question": "甲", "response_chosen": "", "response_rejected": ""},
    )
    assert job.rejected == {"equal_answers": 1, "empty_answer": 2, "empty_question": 1}
    assert [answer.text for answer in record.answers] == ["好", "坏"] and record.prompt[0].content == "甲"


def test_titles_ranked_by_label(tmp_path):
    def row(*labels):
        titles = [{"url": "u", "label": label, "title": f":题{i}`"} for i, label in enumerate(labels)]
        return {"query": "牙痛", "documents": titles}

    job, (record,) = load(tmp_path, row("1", "4"), row("2", "2"))
    assert record.ranks == (2, 1) and [answer.text for answer in record.answers] == ["题0", "题1"]
    assert job.rejected == {"all_answers_tied": 1}


def test_rankings_and_contradictions(tmp_path):
    text = "id\tquery\thistory\trank1\trank2\trank3\n0\t甲\t[['早', '好']]\t一\t二\t一\n1\t甲\t[]\t一\t二\t三\n"
    job, records = load(tmp_path, text=text, name="r.tsv")
    assert job.rejected == {"equal_answers": 1}  # the text at places 1 and 3 says nothing; one answer is left
    assert records[0].ranks == (1, 2, 3)
    task = {"0": {"query": "甲", "history": [["早", "好"]], "response_0": "一", "response_1": "二"}}
    _, records = load(tmp_path, text=json.dumps(task), name="t.json")
    assert [(r.question_id, r.answer.text, len(r.prompt)) for r in records] == [("0", "一", 3), ("0", "二", 3)]


def test_labelled_answers_by_question(tmp_path):
    long = "请到正规医院就诊检查，明确诊断以后再进行治疗，平时注意休息，饮食清淡，不要熬夜，保持心情舒畅，祝早日康复。"
    rows = [("1", "甲", "好" + long), ("0", "甲", "坏" + long), ("0", "乙", long)]
    rows += [("1", "丙", f"{i}{long}") for i in range(3)] + [("1", "丁", long)]
    text = "".join("\t".join(row) + "\n" for row in rows)
    job, (record,) = load(tmp_path, text=text, name="dev.txt")
    assert record.ranks == (1, 2) and record.answers[0].text.startswith("好")
    assert (job.read, job.accepted, job.records) == (7, 2, 1)
    assert job.rejected == {
        "question_without_positive": 1,
        "question_with_3_or_more_positives": 3,
        "question_without_negative": 1,
    }


def test_question_pairs_and_classes_become_choices(tmp_path):
    _, (first, second) = load(tmp_path, text="1\t头痛怎么办\t头疼咋办\n0\t头痛\t腹痛\n", name="qq.txt")
    assert (first.answer, second.answer) == ("A", "B") and "头疼咋办" in first.question
    _, records = load(tmp_path, text="0\t买浴巾\n2\t头痛\n1\t头痛怎么办\n", name="ic.txt")
    assert [record.answer for record in records] == ["A", "C", "B"] and records[0].meta["label"] == "0"


@pytest.mark.parametrize(
    ("row", "options", "answer"),
    [
        ({"Question": "甲", "Options": "A 一\\nB 二\\nC 三", "Answer": "CA"}, "ABC", "AC"),
        ({"Question": "甲", "Options": "A 一\nB 二\n续行\nD 三", "Answer": "D", "Explanation": "nan"}, "ABD", "D"),
        ({"question": "甲", "option": {"A": "一", "B": "二", "C": ""}, "answer": "B"}, "AB", "B"),
        ({"question": "甲", "options": ["一", "二"], "answer": 0}, "AB", "A"),
        ({"question": "甲", "options": ["一", "二"], "answer": "1"}, "AB", "B"),
        ({"question": "甲", "options": ["一", "二"], "answer": "二"}, "AB", "B"),
        ({"question": "甲", "options": [{"key": k, "value": k * 2} for k in "AB"], "answer": "Ａ、Ｂ"}, "AB", "AB"),
        ({"question": "甲", "options": {"A": "x", "B": "y"}, "answer": "y", "answer_idx": "B"}, "AB", "B"),
        ({"Question": "甲", "A": "一", "B": "二", "C": "三", "D": "四", "E": "五", "Answer": "e"}, "ABCDE", "E"),
        ({"Question": "甲", "Options": "A．A型\nB．B型", "Answer": "B"}, "AB", "B"),
    ],
)  # fmt: skip
def test_exam_shapes(tmp_path, row, options, answer):
    _, (record,) = load(tmp_path, row)
    assert isinstance(record, ExamQuestion)
    assert "".join(record.options) == options and record.answer == answer and record.explanation == ""


def test_exam_defects_are_counted_apart(tmp_path):
    job, records = load(
        tmp_path,
        {"Question": "甲", "Options": "A 一\\nB 二", "Answer": "nan"},
        {"Question": "甲", "Options": "A 一\\nB 二", "Answer": "E"},
        {"Question": "甲", "Options": "A 一", "Answer": "A"},
        {"Question": "", "Options": "A 一\\nB 二", "Answer": "A"},
        {"Question": "甲", "Options": "A 一\\nC 二", "Answer": "C"},
        {"Question": "甲", "Options": ["一", "二"]},
        {"Question": "甲", "Options": ["一", "二"], "Answer": 2},
    )
    assert job.rejected == {
        "invalid_key": 1,
        "key_not_among_options": 2,
        "fewer_than_two_options": 1,
        "empty_question": 1,
        "no_answer_key": 1,
    }
    assert records[0].meta["flags"] == {"letter_gap": 1} and records[0].options == {"A": "一", "C": "二"}


def test_cmmlu_csv_takes_its_subject_from_the_file(tmp_path):
    text = ",Question,A,B,C,D,Answer\n0,甲,一,二,三,四,D\n1,乙,一,二,三,四,A\n"
    _, records = load(tmp_path, text=text, name="anatomy.csv")
    assert [(record.subject, record.answer) for record in records] == [("anatomy", "D"), ("anatomy", "A")]


def test_answers_in_a_file_beside_are_joined(tmp_path):
    (tmp_path / "answers_zh.json").write_text('{"7": {"category": "Ethics", "answer": 1}}', encoding="utf-8")
    rows = [{"id": n, "category": "Ethics", "question": "可以吗", "options": ["是", "否"]} for n in (7, 8)]
    job, (record,) = load(tmp_path, text=json.dumps(rows), name="test.json")
    assert record.answer == "B" and record.subject == "Ethics"
    assert job.rejected == {"no_answer_key": 1}
    answers = import_file(tmp_path / "answers_zh.json")
    assert list(answers) == [] and answers.rejected == {"answer_key_without_question": 1}


def test_spans_with_start_only_and_case(tmp_path):
    row = {
        "text": "做tct后头痛，头痛",
        "mention_data": [
            {"mention": "TCT", "type": "test", "offset": "1"},
            {"mention": "头痛", "type": "symptom", "offset": "5"},
            {"mention": "头痛", "type": "symptom", "offset": "6"},
        ],
    }
    job, (record,) = load(tmp_path, row)
    assert [(e.start, e.end, e.text) for e in record.entities] == [(1, 4, "tct"), (5, 7, "头痛")]
    assert job.flags == {"span_mismatches": 2, "spans_left_out": 1}


def test_ends_are_told_from_the_file(tmp_path):
    def row(end):
        return {"text": "房室结消融", "entities": [{"start_idx": 0, "end_idx": end, "type": "bod", "entity": "房室结"}]}

    for end in (2, 3):
        _, records = load(tmp_path, row(end), row(end))
        assert [(e.start, e.end) for r in records for e in r.entities] == [(0, 3), (0, 3)]
    with pytest.raises(InputError, match=r"exclusive in rows \[2\] and inclusive in rows \[1\]"):
        load(tmp_path, row(2), row(3))
    ccks = {"originalText": "肝炎两年", "entities": [{"label_type": "疾病和诊断", "start_pos": 0, "end_pos": 2}]}
    job, (record,) = load(tmp_path, ccks)
    assert record.entities[0].text == "肝炎" and job.flags == {"ends_taken_as_exclusive": 1}
    assert load(tmp_path, {"text": "肝炎两年", "label": [[0, 2, "病"]]})[1][0].entities[0].type == "病"


def test_tag_strings(tmp_path):
    job, records = load(
        tmp_path,
        {"text": "孩子咳嗽", "label": "O O B-sym I-sym"},
        {"text": "孩子咳嗽", "tags": "OOBI"},
        {"tokens": ["头", "痛"], "tags": ["B-s", "E-s"]},
        {"text": "孩子咳嗽", "tags": "OO"},
    )
    assert [e.text for record in records for e in record.entities] == ["咳嗽", "咳嗽", "头痛"]
    assert job.rejected == {"tags_and_characters_differ_in_number": 1}


def score_row(item, model, score, answer):
    prompt = f"Rate.\n[start of conversation]\n\npatient: 甲\ndoctor: {answer}\n[end of conversation]"
    scores = f"Proactivity: {score}\nAccuracy: 4\nHelpfulness: 4\nLinguistic Quality: 5"
    return {"id": item, "model": model, "source": "CMD", "scores": scores, "prompt": prompt}


def test_judge_scores_and_margin(tmp_path):
    job, rollouts = load(
        tmp_path,
        score_row("q1", "m1", 5, "一"),
        score_row("q1", "m2", 2, "二"),
        score_row("q2", "m1", 5, "一"),
        score_row("q2", "m2", 4, "二"),
        {**score_row("q3", "m1", 5, "一"), "scores": "very good"},
    )
    assert job.rejected == {"scores_do_not_parse": 1}
    assert isinstance(rollouts[0], Rollout) and rollouts[0].answer.text == "一"
    assert [score.value for score in rollouts[1].scores] == [2.0, 4.0, 4.0, 5.0]
    assert rollouts[0].scores[3].criterion == "linguistic_quality" and rollouts[0].scores[0].source == "llm"
    talks = [
        {"id": q, "model": m, "conversation": [{"role": "patient", "content": "甲"}, {"role": "doctor", "content": a}]}
        for q, (m, a) in product(("q1", "q2"), (("m1", "一"), ("m2", "二")))
    ]
    _, dialogues = load(tmp_path, *talks, name="talks.jsonl")
    # means: q1 4.5 and 3.75, q2 4.5 and 4.25: only q1 is 0.5 apart
    found, counts = judged_preferences(dialogues, rollouts, margin=0.5)
    assert counts == {"preferred": 1, "tied": 1}
    assert found[0].ranks == (1, 2) and [answer.source for answer in found[0].answers] == ["m1", "m2"]
    assert judged_preferences(dialogues, rollouts, margin=0.25)[1] == {"preferred": 2}
    assert judged_preferences([], rollouts)[1] == {"score_without_dialogue": 4}
