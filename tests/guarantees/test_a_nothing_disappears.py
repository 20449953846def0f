"""Guarantee a: no row, turn or token disappears without a counter and a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from tiny_stages import conversations, documents, preferences, run_stage

from xinglin.data.batches import encode_conversations, encode_documents, encode_preferences, plan_steps
from xinglin.models.packing import Group, in_order, micro_batches
from xinglin.models.template import encode_text, template_named
from xinglin.records import Answer, Conversation, Document, InputError, Message, Preference

TOKENIZER = tiny_models.tokenizer()
TEMPLATE = template_named("chatml")


def encode_dialogues(records: list[Conversation], limit: int, on_long: str) -> tuple[list[Group], Counter[str]]:
    counts: Counter[str] = Counter()
    return encode_conversations(records, TOKENIZER, TEMPLATE, limit, on_long, counts), counts  # type: ignore[arg-type]


def encode_rankings(
    records: list[Preference], limit: int, on_long: str, extremes: bool = False
) -> tuple[list[Group], Counter[str]]:
    counts: Counter[str] = Counter()
    rows = encode_preferences(records, TOKENIZER, TEMPLATE, limit, on_long, counts, extremes=extremes)  # type: ignore[arg-type]
    return rows, counts


def longer(question: int, answer: int) -> Conversation:
    return Conversation(
        f"long-{question}-{answer}", (Message("user", "头" * question), Message("assistant", "痛" * answer))
    )


def test_documents_lose_no_token() -> None:
    """A long one is cut into rows; put together again they are the text and its end."""
    records = [Document("long", "头痛,休息。" * 20), *documents(5)]
    counts: Counter[str] = Counter()
    rows = encode_documents(records, TOKENIZER, 16, counts)
    assert counts["documents"] == 6 and counts["documents cut into several rows"] >= 1
    for record in records:
        joined = np.concatenate([row.answers[0] for row in rows if row.id == record.id]).tolist()
        whole = [TOKENIZER.bos_token_id, *encode_text(TOKENIZER, record.text), TOKENIZER.eos_token_id]
        # of a cut document only a last piece of one token may go: nothing stands before it to predict it from
        assert whole[: len(joined)] == joined and len(whole) - len(joined) <= (len(whole) % 16 == 1)
    assert all(row.learned[0].all() for row in rows)


@pytest.mark.parametrize("on_long", ["truncate", "drop"])
@pytest.mark.parametrize("limit", [12, 30, 60, 200])
def test_conversations_in_are_rows_out_and_reasons(on_long: str, limit: int) -> None:
    records = [*conversations(10), longer(2, 40), longer(40, 2), longer(40, 40)]
    rows, counts = encode_dialogues(records, limit, on_long)
    dropped = counts["rows over max_seq_len (drop)"]
    assert counts["conversations"] == len(records)
    assert len(rows) + dropped + counts["rows with nothing left to learn"] == len(records)
    whole, _ = encode_dialogues(records, 10_000, "error")
    too_long = sum(row.num_tokens > limit for row in whole)
    assert counts[f"rows over max_seq_len ({on_long})"] == too_long
    assert all(row.num_tokens <= limit for row in rows)


def test_a_conversation_cut_before_its_answer_is_counted_as_nothing_to_learn() -> None:
    rows, counts = encode_dialogues([longer(40, 2), longer(2, 2)], 30, "truncate")
    assert [row.id for row in rows] == ["long-2-2"]
    assert counts == {"conversations": 2, "rows over max_seq_len (truncate)": 1, "rows with nothing left to learn": 1}


def test_too_long_as_error_names_the_row_and_the_mend() -> None:
    with pytest.raises(InputError, match="row 'long-40-2' has .* tokens, max_seq_len is 30; raise it, or set on_long"):
        encode_dialogues([longer(40, 2)], 30, "error")
    with pytest.raises(InputError, match="row 'p0' has .* tokens, max_seq_len is 10"):
        encode_rankings(preferences(1), 10, "error")


def test_every_assistant_turn_is_learned() -> None:
    turns = tuple(Message(role, text) for role, text in zip(["user", "assistant"] * 3, "头痛感冒发热", strict=True))
    rows, _ = encode_dialogues([Conversation("many", turns)], 200, "error")
    stop = TOKENIZER.convert_tokens_to_ids("<|im_end|>")
    learned = rows[0].answers[0][rows[0].learned[0]].tolist()
    assert learned == [token for text in "痛冒热" for token in [*encode_text(TOKENIZER, text), stop]]


@pytest.mark.parametrize("on_long", ["truncate", "drop"])
@pytest.mark.parametrize("extremes", [False, True])
@pytest.mark.parametrize("limit", [24, 40, 200])
def test_preferences_in_are_rows_out_and_reasons(on_long: str, extremes: bool, limit: int) -> None:
    ask = (Message("user", "头痛?"),)
    tie = Preference("tie", ask, (Answer("休息。"), Answer("多喝水。")), (1, 1))
    long = Preference("long", ask, (Answer("休息。" * 20), Answer("多喝水。")), (1, 2))
    records = [*preferences(9), tie, long]
    rows, counts = encode_rankings(records, limit, on_long, extremes)
    assert counts["preferences"] == 11 and counts["preferences that are ties alone"] == 1
    assert len(rows) + 1 + counts["rows over max_seq_len (drop)"] == 11
    by_id = {record.id: record for record in records}
    for row in rows:
        assert len(row.answers) == (2 if extremes else len(by_id[row.id].answers))
        assert row.ranks[0] == min(by_id[row.id].ranks) and row.ranks[-1] == max(by_id[row.id].ranks)


@pytest.mark.parametrize("batch_size", [1, 4, 7])
@pytest.mark.parametrize("epochs", [1, 2, 2.5])
def test_the_plan_takes_every_row_once_an_epoch(batch_size: int, epochs: float) -> None:
    plan = np.concatenate(plan_steps(10, batch_size, epochs, seed=3))
    assert len(plan) == 10 * epochs
    for epoch in range(int(epochs)):
        assert sorted(plan[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert len(set(plan[10 * int(epochs) :])) == len(plan[10 * int(epochs) :])


@pytest.mark.parametrize("pack", [micro_batches, lambda rows, size: list(in_order(rows, size))])
def test_packing_keeps_every_row_and_every_supervised_token(pack) -> None:
    rows, _ = encode_dialogues(conversations(20), 200, "error")
    rankings, _ = encode_rankings(preferences(20), 200, "error")
    for found in (rows, rankings):
        batches = pack(found, 64)
        assert sorted(i for batch in batches for i in batch.ids) == sorted(row.id for row in found)
        assert sum(batch.input_ids.numel() for batch in batches) == sum(row.num_tokens for row in found)
        supervised = Counter(
            int(t) for row in found for a, m in zip(row.answers, row.learned, strict=True) for t in a[m]
        )
        assert Counter(int(t) for batch in batches for t in batch.labels) == supervised


def test_a_stage_writes_its_counts_into_the_manifest(tmp_path: Path, data: Path, model: Path) -> None:
    counts = run_stage("sft", tmp_path, data, model).manifest()["counts"]
    assert counts["conversations"] == 24 and counts["general conversations"] == 24
    # a quarter of the whole: 24 * 0.25 / 0.75 = 8 of the 24 general rows
    assert counts["general rows in the mixture"] == 8 and counts["general rows not drawn"] == 16
