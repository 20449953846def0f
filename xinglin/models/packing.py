"""Packed batches: many rows in one forward pass, a shared prompt computed once.

A `Group` is a prompt and the answers that follow it; plain text is a group with an empty prompt and one answer. The
prompt of a group is packed once, whatever the number of its answers. `labels` are shifted here: `targets[m]` is the
position whose output predicts `labels[m]`.

Legend: T tokens of the packed row, M supervised tokens, A answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from xinglin.models.attention import Paths, plan_paths


@dataclass(frozen=True, slots=True)
class Group:
    """`answers[i]` and `learned[i]`: token ids of an answer and which of them are supervised."""

    id: str
    prompt: np.ndarray
    answers: tuple[np.ndarray, ...]
    learned: tuple[np.ndarray, ...]
    ranks: tuple[int, ...] = ()

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + sum(map(len, self.answers))


@dataclass(frozen=True, slots=True)
class Batch:
    """One packed row and what is to be learned from it."""

    input_ids: Tensor  # (1, T)
    position_ids: Tensor  # (1, T)
    paths: Paths
    targets: Tensor  # (M,) position whose output predicts labels[m]
    labels: Tensor  # (M,)
    answer: Tensor  # (M,) which answer of the batch each supervised token is of
    last: Tensor  # (A,) position of each answer's last token
    ranks: Tensor  # (A,)
    groups: Tensor  # (A,) which group each answer is of
    ids: tuple[str, ...] = field(default=())

    def inputs(self) -> dict[str, object]:
        """What a model's forward call takes."""
        return {"input_ids": self.input_ids, "position_ids": self.position_ids, "paths": self.paths}

    def to(self, device: torch.device | str) -> Batch:
        if str(device) == "cpu":
            return self
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("input_ids", "position_ids", "targets", "labels", "answer", "last", "ranks", "groups")
        }
        return Batch(**moved, paths=self.paths.to(torch.device(device)), ids=self.ids)


def micro_batches(rows: Sequence[Group], max_tokens: int) -> list[Batch]:
    """The rows of one step packed into as few rows of `max_tokens` as first-fit-decreasing finds."""
    bins: list[tuple[int, list[Group]]] = []
    for row in sorted(rows, key=lambda row: -row.num_tokens):
        for index, (used, members) in enumerate(bins):
            if used + row.num_tokens <= max_tokens:
                bins[index] = (used + row.num_tokens, [*members, row])
                break
        else:
            bins.append((row.num_tokens, [row]))
    return [pack(members) for _, members in bins]


def pack(rows: Sequence[Group]) -> Batch:
    """One packed row out of several groups."""
    ids: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    paths: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    sizes: list[int] = []
    last: list[int] = []
    offset = 0
    for row in rows:
        prompt_path = np.arange(offset, offset + len(row.prompt))
        ids.append(row.prompt)
        positions.append(np.arange(len(row.prompt)))
        offset += len(row.prompt)
        for answer, learned in zip(row.answers, row.learned, strict=True):
            path = np.concatenate([prompt_path, np.arange(offset, offset + len(answer))])
            ids.append(answer)
            positions.append(np.arange(len(row.prompt), len(path)))
            paths.append(path)
            index = np.flatnonzero(learned) + len(row.prompt)
            index = index[index > 0]  # the first token of a row has nothing before it
            targets.append(path[index - 1])
            labels.append(answer[index - len(row.prompt)])
            sizes.append(len(index))
            last.append(path[-1])
            offset += len(answer)
    per_group = [len(row.answers) for row in rows]
    ranks = [rank for row in rows for rank in (row.ranks or [1] * len(row.answers))]
    return Batch(
        input_ids=torch.from_numpy(np.concatenate(ids))[None],
        position_ids=torch.from_numpy(np.concatenate(positions))[None],
        paths=plan_paths(paths, offset),
        targets=torch.from_numpy(np.concatenate(targets)),
        labels=torch.from_numpy(np.concatenate(labels)),
        answer=torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes)),
        last=torch.tensor(last),
        ranks=torch.tensor(ranks),
        groups=torch.from_numpy(np.repeat(np.arange(len(rows)), per_group)),
        ids=tuple(row.id for row in rows),
    )


def in_order(rows: Sequence[Group], max_tokens: int) -> Iterator[Batch]:
    """All rows once, in their order: for validation and scoring."""
    members: list[Group] = []
    used = 0
    for row in rows:
        if members and used + row.num_tokens > max_tokens:
            yield pack(members)
            members, used = [], 0
        members.append(row)
        used += row.num_tokens
    if members:
        yield pack(members)
