from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tokenizer, user

from xinglin.data.batches import (
    encode_conversations,
    encode_documents,
    encode_preferences,
    encode_prompt,
    plan_steps,
    training_texts,
)
from xinglin.models.packing import pack
from xinglin.models.template import TEMPLATES, encode_text
from xinglin.records import Answer, Conversation, Document, InputError, Message, Preference, write_records

CHATML = TEMPLATES["chatml"]


def talk(name: str, *turns: str) -> Conversation:
    roles = ("user", "assistant")
    return Conversation(name, tuple(Message(roles[i % 2], text) for i, text in enumerate(turns)))  # type: ignore[arg-type]


def conversations(records, max_seq_len: int, on_long: str, counts: Counter[str]):
    return encode_conversations(records, tokenizer(), CHATML, max_seq_len, on_long, counts)  # type: ignore[arg-type]


def preferences(records, max_seq_len: int, on_long: str, counts: Counter[str], **options: bool):
    return encode_preferences(records, tokenizer(), CHATML, max_seq_len, on_long, counts, **options)  # type: ignore[arg-type]


# --- documents -------------------------------------------------------------------------------------------------------


def test_a_document_is_bos_text_and_end() -> None:
    counts: Counter[str] = Counter()
    (row,) = encode_documents([Document("d", "头痛</s>")], tokenizer(), 99, counts)
    assert row.answers[0].tolist() == [1, *encode_text(tokenizer(), "头痛</s>"), tokenizer().eos_token_id]
    assert row.learned[0].all()
    assert counts["documents cut into several rows"] == 0


def test_a_long_document_is_cut_and_none_of_it_is_lost() -> None:
    counts: Counter[str] = Counter()
    rows = encode_documents([Document("d", "头痛三天" * 30), Document("e", "感冒")], tokenizer(), 16, counts)
    pieces = [row.answers[0] for row in rows if row.id == "d"]
    assert max(map(len, pieces)) <= 16
    expected = [1, *encode_text(tokenizer(), "头痛三天" * 30), tokenizer().eos_token_id]
    assert np.concatenate(pieces).tolist() == expected
    assert (counts["documents"], counts["documents cut into several rows"]) == (2, 1)


def test_a_last_token_alone_is_counted() -> None:
    counts: Counter[str] = Counter()
    length = len(encode_text(tokenizer(), "头痛三天"))
    rows = encode_documents([Document("d", "头痛三天")], tokenizer(), length + 1, counts)
    assert [len(row.answers[0]) for row in rows] == [length + 1]
    assert counts["last tokens left alone by a cut"] == 1


# --- conversations ---------------------------------------------------------------------------------------------------


def test_only_assistant_turns_are_learned() -> None:
    (row,) = conversations([talk("c", "头痛", "多喝水", "谢谢", "不客气")], 99, "error", Counter())
    learned = row.answers[0][row.learned[0]].tolist()
    assert tokenizer().decode(learned) == "多喝水<|im_end|>不客气<|im_end|>"
    assert [tokenizer().decode([i]) for i in pack([row]).labels.tolist()].count("<|im_end|>") == 2


def test_a_conversation_over_the_limit_is_cut_dropped_or_refused_and_counted() -> None:
    records = [talk("long", "头痛", "多喝水" * 20), talk("short", "头痛", "休息")]
    for on_long, kept in (("truncate", ["long", "short"]), ("drop", ["short"])):
        counts: Counter[str] = Counter()
        rows = conversations(records, 24, on_long, counts)
        assert [row.id for row in rows] == kept
        assert max(row.num_tokens for row in rows) <= 24
        assert counts == {"conversations": 2, f"rows over max_seq_len ({on_long})": 1}
    with pytest.raises(InputError, match="row 'long' has .* tokens, max_seq_len is 24; raise it, or set on_long"):
        conversations(records, 24, "error", Counter())


def test_a_row_with_nothing_left_to_learn_is_counted_not_trained() -> None:
    counts: Counter[str] = Counter()
    assert conversations([talk("c", "头痛" * 50, "好")], 16, "truncate", counts) == []
    assert counts["rows with nothing left to learn"] == 1
    assert counts["rows over max_seq_len (truncate)"] == 1


# --- preferences -----------------------------------------------------------------------------------------------------

THREE = Preference("p", user("头痛"), (Answer("差"), Answer("好"), Answer("中")), (3, 1, 2))


def test_answers_stand_best_first() -> None:
    (row,) = preferences([THREE], 99, "error", Counter())
    assert [tokenizer().decode(answer) for answer in row.answers] == ["好<|im_end|>", "中<|im_end|>", "差<|im_end|>"]
    assert row.ranks == (1, 2, 3)
    assert row.prompt.tolist() == encode_prompt(user("头痛"), tokenizer(), CHATML).tolist()
    assert tokenizer().decode(row.prompt) == "<|im_start|>user\n头痛<|im_end|>\n<|im_start|>assistant\n"
    assert all(learned.all() for learned in row.learned)


def test_extremes_are_the_best_and_the_worst() -> None:
    (row,) = preferences([THREE], 99, "error", Counter(), extremes=True)
    assert [tokenizer().decode(answer[:-1]) for answer in row.answers] == ["好", "差"]
    assert row.ranks == (1, 3)


def test_ties_alone_are_counted() -> None:
    counts: Counter[str] = Counter()
    tied = Preference("t", user("头痛"), (Answer("甲"), Answer("乙")), (1, 1))
    assert preferences([tied], 99, "error", counts) == []
    assert counts == {"preferences": 1, "preferences that are ties alone": 1}


def test_a_preference_over_the_limit_keeps_the_end_of_its_question() -> None:
    long = Preference("p", user("血压" * 40 + "头痛"), (Answer("好" * 40), Answer("差")), (1, 2))
    counts: Counter[str] = Counter()
    (row,) = preferences([long], 40, "truncate", counts)
    whole = encode_prompt(long.prompt, tokenizer(), CHATML)
    assert row.prompt.tolist() == whole[-20:].tolist()
    assert "头痛<|im_end|>\n<|im_start|>assistant\n" in tokenizer().decode(row.prompt)
    assert [len(answer) for answer in row.answers][0] == 20
    assert tokenizer().decode(row.answers[1]) == "差<|im_end|>"
    assert counts["rows over max_seq_len (truncate)"] == 1
    assert preferences([long], 40, "drop", counts) == []


# --- steps -----------------------------------------------------------------------------------------------------------


def test_every_epoch_sees_every_row_once_and_none_is_skipped() -> None:
    steps = plan_steps(10, 4, 3, seed=5)
    assert [len(step) for step in steps] == [4] * 7 + [2]
    order = np.concatenate(steps)
    for epoch in range(3):
        assert sorted(order[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert order[:10].tolist() != order[10:20].tolist()


def test_the_plan_is_a_function_of_its_arguments() -> None:
    first = plan_steps(50, 8, 1.5, seed=1)
    assert [step.tolist() for step in plan_steps(50, 8, 1.5, seed=1)] == [step.tolist() for step in first]
    assert [step.tolist() for step in plan_steps(50, 8, 1.5, seed=2)] != [step.tolist() for step in first]
    assert sum(map(len, first)) == 75
    assert [step.tolist() for step in plan_steps(50, 8, 1.5, 1, max_steps=3)] == [step.tolist() for step in first[:3]]
    assert sum(map(len, plan_steps(50, 8, 0.001, seed=1))) == 1


def test_no_rows_is_an_error_that_says_where_to_look() -> None:
    with pytest.raises(InputError, match="0 rows to train on; see the counts of the data stage"):
        plan_steps(0, 4, 1, seed=0)


def test_training_texts_are_those_that_are_trained_on(tmp_path: Path) -> None:
    write_records(tmp_path / "documents/train.jsonl", [Document("d", "甲")])
    for name, text in (("conversations", "乙"), ("general", "丙")):
        write_records(tmp_path / name / "train.jsonl", [talk(name, "问" + text, text)])
        write_records(tmp_path / name / "test.jsonl", [talk(name, "测试", "测试")])
    assert list(training_texts(tmp_path)) == ["甲", "问乙", "乙", "问丙", "丙"]
    write_records(tmp_path / "preferences/train.jsonl", [THREE])
    assert list(training_texts(tmp_path))[5:] == ["差", "好", "中"]
