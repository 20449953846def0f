import numpy as np
import torch

from xinglin.models.packing import Group, in_order, micro_batches, pack


def text(name: str, ids: list[int], learned: list[int] | None = None) -> Group:
    mask = np.ones(len(ids), bool) if learned is None else np.array(learned, bool)
    return Group(name, np.zeros(0, np.int64), (np.array(ids, np.int64),), (mask,))


def group(name: str, prompt: list[int], *answers: list[int], ranks: tuple[int, ...] = ()) -> Group:
    return Group(
        name,
        np.array(prompt, np.int64),
        tuple(np.array(a, np.int64) for a in answers),
        tuple(np.ones(len(a), bool) for a in answers),
        ranks,
    )


def test_labels_are_shifted_inside_each_row() -> None:
    batch = pack([text("a", [10, 11, 12]), text("b", [20, 21, 22, 23], [1, 0, 1, 1])])
    assert batch.input_ids.tolist() == [[10, 11, 12, 20, 21, 22, 23]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 2, 3]]
    assert batch.targets.tolist() == [0, 1, 4, 5]  # the first token of a row is predicted by nothing
    assert batch.labels.tolist() == [11, 12, 22, 23]
    assert batch.answer.tolist() == [0, 0, 1, 1]
    assert batch.last.tolist() == [2, 6]
    assert batch.ids == ("a", "b")


def test_answers_share_their_prompt() -> None:
    batch = pack([group("a", [1, 2, 3], [4, 5], [6], ranks=(1, 2)), group("b", [7], [8, 9], [8, 9, 9], ranks=(2, 1))])
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 9, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 0, 1, 2, 1, 2, 3]]
    assert batch.targets.tolist() == [2, 3, 2, 6, 7, 6, 9, 10]  # both first answer tokens from the prompt's last
    assert batch.labels.tolist() == [4, 5, 6, 8, 9, 8, 9, 9]
    assert batch.answer.tolist() == [0, 0, 1, 2, 2, 3, 3, 3]
    assert batch.last.tolist() == [4, 5, 8, 11]
    assert batch.ranks.tolist() == [1, 2, 2, 1]
    assert batch.groups.tolist() == [0, 0, 1, 1]


def test_a_batch_moved_to_where_it_is_stays_whole() -> None:
    batch = pack([text("a", [1, 2, 3])])
    assert batch.to("cpu") is batch
    moved = batch.to("meta")
    assert moved.input_ids.device == torch.device("meta")
    assert moved.paths.order.device == torch.device("meta")
    assert moved.ids == ("a",)


def rows() -> list[Group]:
    rng = np.random.default_rng(0)
    return [text(str(i), rng.integers(5, 99, rng.integers(2, 60)).tolist()) for i in range(100)]


def test_micro_batches_hold_every_row_once_and_are_nearly_full() -> None:
    batches = micro_batches(rows(), 128)
    assert sorted(name for batch in batches for name in batch.ids) == sorted(row.id for row in rows())
    sizes = [batch.input_ids.shape[1] for batch in batches]
    total = sum(row.num_tokens for row in rows())
    assert max(sizes) <= 128
    assert sum(sizes) == total
    assert len(sizes) <= 11 / 9 * -(-total // 128) + 1  # the bound of first-fit-decreasing (Dosa 2007)


def test_a_row_over_the_limit_is_alone_not_lost() -> None:
    batches = micro_batches([text("long", [5] * 50), text("a", [5] * 4), text("b", [5] * 4)], 10)
    assert [batch.ids for batch in batches] == [("long",), ("a", "b")]


def test_in_order_keeps_the_order_and_the_limit() -> None:
    batches = list(in_order(rows(), 128))
    assert [name for batch in batches for name in batch.ids] == [row.id for row in rows()]
    assert max(batch.input_ids.shape[1] for batch in batches) <= 128
    assert list(in_order([], 128)) == []
