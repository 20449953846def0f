from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import model, save, shake, tokenizer, user
from transformers import AutoModelForSequenceClassification

from xinglin.config import Lora
from xinglin.models.adapters import Critic, new_head, save_critic, with_new_adapter
from xinglin.models.load import save_tokenizer
from xinglin.models.packing import Group
from xinglin.models.template import TEMPLATES
from xinglin.rollout.reward import load_reward, score_groups

RNG = np.random.default_rng(0)


def random_group(name: str, prompt: int, *answers: int) -> Group:
    ids = [RNG.integers(5, 320, n) for n in (prompt, *answers)]
    return Group(name, ids[0], tuple(ids[1:]), tuple(np.ones(len(a), bool) for a in ids[1:]))


GROUPS = [
    random_group("a", 5, 3, 9, 1),
    random_group("b", 1, 2),
    random_group("c", 20, 4, 4),
    random_group("d", 0, 7, 6),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = save(tmp_path / "base")
    backbone = with_new_adapter(model(), "reward", Lora(rank=4), seed=0).eval()
    shake(backbone, seed=3, only="lora_")
    head = new_head(64, torch.zeros(1))
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    critic = Critic(backbone, "reward", head)
    save_critic(tmp_path / "whole", Critic(model(), None, head), base, False)
    save_critic(tmp_path / "reward", critic, base, False)
    for name in ("whole", "reward"):
        save_tokenizer(tmp_path / name, tokenizer(), TEMPLATES["chatml"])
    return tmp_path


def test_scores_are_transformers_classifiers_on_each_answer_alone(folder: Path) -> None:
    found = load_reward(folder / "whole").score(GROUPS)
    plain = AutoModelForSequenceClassification.from_pretrained(folder / "whole", local_files_only=True).eval()
    assert [len(scores) for scores in found] == [3, 1, 2, 2]
    for group, scores in zip(GROUPS, found, strict=True):
        for answer, value in zip(group.answers, scores, strict=True):
            row = torch.from_numpy(np.concatenate([group.prompt, answer]))[None]
            with torch.no_grad():
                assert abs(float(plain(row).logits) - value) < 1e-5


def test_scores_do_not_depend_on_company(folder: Path, monkeypatch) -> None:
    reward = load_reward(folder / "reward")
    together = reward.score(GROUPS)
    monkeypatch.setattr("xinglin.rollout.reward.PACKED_TOKENS", 20)  # one group a batch
    for alone, expected in zip(score_groups(reward.critic, GROUPS), together, strict=True):
        np.testing.assert_allclose(alone, expected, atol=1e-5)
    assert reward.score([]) == []


def test_text_is_scored_as_it_is_trained(folder: Path) -> None:
    reward = load_reward(folder / "reward")
    prompt, answers = user("头痛怎么办"), ["多喝水", "休息"]
    rendered = reward.tokenizer.apply_chat_template(
        [{"role": "user", "content": "头痛怎么办"}], add_generation_prompt=True, tokenize=False
    )
    ids = [np.array(reward.tokenizer.encode(rendered + a + "<|im_end|>", add_special_tokens=False)) for a in answers]
    none = np.zeros(0, np.int64)
    expected = [reward.score([Group("", none, (row,), (np.ones(len(row), bool),))])[0][0] for row in ids]
    np.testing.assert_allclose(reward.score_texts(prompt, answers), expected, atol=1e-5)
