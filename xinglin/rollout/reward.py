"""Scores of answers by a reward model: packed, a prompt computed once for all its answers.

model = load_reward(folder)
model.score(groups)        # list of arrays, one score for each answer of each group
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from xinglin.models.adapters import Critic, load_critic
from xinglin.models.load import load_tokenizer
from xinglin.models.packing import Group, in_order
from xinglin.models.template import Template, encode_answer, render
from xinglin.records import Message

PACKED_TOKENS = 4096


@dataclass(slots=True)
class RewardModel:
    critic: Critic
    tokenizer: PreTrainedTokenizerFast
    template: Template

    def score(self, groups: Sequence[Group]) -> list[np.ndarray]:
        """The scores of each group's answers."""
        return score_groups(self.critic, groups)

    def score_texts(self, prompt: Sequence[Message], answers: Sequence[str]) -> np.ndarray:
        """The scores of answers in plain text to one prompt."""
        prompt_ids = np.array(render(self.tokenizer, self.template, prompt, reply=True)[0], np.int64)
        ids = [np.array(encode_answer(self.tokenizer, self.template, text), np.int64) for text in answers]
        return self.score([Group("", prompt_ids, tuple(ids), tuple(np.ones(len(i), bool) for i in ids))])[0]


def load_reward(folder: Path) -> RewardModel:
    """The reward model of a folder, frozen."""
    critic = load_critic(folder, device="cuda" if torch.cuda.is_available() else "cpu").eval()
    return RewardModel(critic, *load_tokenizer(folder))


@torch.no_grad()
def score_groups(critic: Critic, groups: Sequence[Group]) -> list[np.ndarray]:
    """The critic's number at the last token of each answer."""
    device = critic.head.weight.device
    scores = []
    for batch in in_order(groups, PACKED_TOKENS):
        batch = batch.to(device)
        values = critic(**batch.inputs())[batch.last].cpu().numpy()
        scores += np.split(values, np.flatnonzero(np.diff(batch.groups.cpu().numpy())) + 1)
    return scores
