"""The report: what stands in the run's files stands on the page, none of it is live, and nothing missing breaks it."""

import json
import math
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from xinglin.report import figures, words, write_report
from xinglin.report import scores as report_scores

EVIL = "<script>alert('x')</script><img src=http://evil.example/x.png>"
LORA = {"rank": 8, "alpha": 32, "dropout": 0.0, "targets": ["q_proj", "v_proj"]}


def put(path: Path, body: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    path.write_text(text, "utf-8")


def put_lines(path: Path, lines: list[dict]) -> None:
    put(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def manifest(folder: Path, kind: str, **facts: object) -> None:
    body = {"stage": folder.name[3:], "key": "0123456789abcdef", "kind": kind, "inputs": {"data": "3b990fd6"}}
    body |= {"seconds": 61.0, "versions": {}, "outputs": {"model/model.safetensors": "ab" * 32}, "synthetic": True}
    put(folder / "manifest.json", {"config": {}, **body, **facts})


def causal_log(steps: int = 60) -> list[dict]:
    lines: list[dict] = [{"step": 0, "valid_loss": 5.25}]
    for step in range(1, steps + 1):
        loss = 1.2 + 4 * math.exp(-step / 15) + 0.1 * math.sin(step)
        lines.append({"step": step, "loss": loss, "grad_norm": 1.0, "lr": 1e-3 * (1 - step / steps), "count": 900})
        if step % 10 == 0:
            lines.append({"step": step, "valid_loss": 1.31 + abs(step - 40) / 50})
    return lines


def preference_log(steps: int = 40) -> list[dict]:
    lines = [{"step": 0, "valid_loss": 0.6931, "valid_accuracy": 0.5, "valid_margin": 0.0}]
    for step in range(1, steps + 1):
        right = min(1.0, 0.5 + step / 50)
        lines.append({"step": step, "loss": 0.69 - step / 80, "accuracy": right, "margin": step / 20, "lr": 1e-4})
        if step % 10 == 0:
            lines.append({"step": step, "valid_loss": 0.6 - step / 200, "valid_accuracy": 0.8, "valid_margin": 0.9})
    return lines


def policy_log() -> list[dict]:
    lines: list[dict] = [
        {
            **{"step": 4 * (i + 1), "iteration": i, "score": -0.5 + i / 4, "score_std": 0.3, "kl": 0.4 * i * i},
            **{"kl_weight": 0.05, "length": 60.0 + 3 * i, "ratio": 1 + i / 50, "entropy": 1.5 - i / 12},
            **{"sampler_gap": 1e-4, "finished": 0.9, "loss": 0.1, "lr": 1e-4},
        }
        for i in range(10)
    ]
    return [*lines, {"step": 40, "stopped": "KL per answer 32.4 is over max_kl 30.0"}]


def diagnostics(accuracy: float, raised: bool) -> dict:
    sources = ["complete", "good", "poor"]
    pairs = [(a, b) for i, a in enumerate(sources) for b in sources[i + 1 :]]
    return {
        "accuracy": accuracy,
        "num_pairs": 321,
        "by_source": [{"better": a, "worse": b, "accuracy": accuracy, "n": 107} for a, b in pairs],
        "by_length": {
            "better is longer": {"accuracy": 0.9375, "n": 200},
            "better is not longer": {"accuracy": 0.6125, "n": 121},
        },
        "score_length_correlation": 0.4375,
        "score_mean": 0.125,
        "score_std": 1.5,
        "overfit_alarm": {"raised": raised, "training_accuracy_passed_95_at_step": 23 if raised else None},
    }


def score(
    checkpoint: str, evaluation: str, metric: str | None, value: float | None, half: float, **more: object
) -> dict:
    low, high = (None, None) if value is None else (value - half, value + half)
    line = {"checkpoint": checkpoint, "evaluation": evaluation, "metric": metric, "value": value, "n": 100}
    return {**line, "low": low, "high": high, "chance": None, "notes": {"warnings": ["n = 100 < 200: wide"]}, **more}


def scores(names: list[str]) -> list[dict]:
    lines: list[dict] = []
    for i, name in enumerate(names):
        lines.append(score(name, "documents", "bits_per_character", 4.875 - i / 2, 0.125))
        for metric, value in {
            "bleu": 10 + i,
            "similarity": 70 + i,
            "length": 60 + 5 * i,
            "overall": 0.3125 + i / 10,
        }.items():
            lines.append(score(name, "dialogue", metric, value, 0.05 * value))
        lines.append(score(name, "exam_generate", "accuracy", 0.25, 0.0625, chance=0.25, parse_failure_rate=0.375))
        lines.append(score(name, "safety", "safe", 0.5, 0.1))
        notes = {"not_run": "entities/test.jsonl is not in the data folder"}
        lines.append({**score(name, "entities", None, None, 0), "n": 0, "notes": notes})
    return lines


def comparison(new: str, old: str, evaluation: str, metric: str, a: float, diff: float, half: float, better) -> dict:
    line = {"checkpoint": new, "against": old, "evaluation": evaluation, "metric": metric, "a": a, "b": a + diff}
    return {**line, "diff": diff, "low": diff - half, "high": diff + half, "n": 100, "num_differ": 40, "better": better}


def comparisons(names: list[str]) -> list[dict]:
    lines = []
    for old, new in zip(names, names[1:], strict=False):
        lines += [
            comparison(new, old, "documents", "bits_per_character", 4.875, -0.5, 0.0625, True),
            comparison(new, old, "dialogue", "overall", 0.3125, 0.125, 0.03125, True),
            comparison(new, old, "dialogue", "length", 60.0, 5.0, 2.0, None),
            comparison(new, old, "exam_generate", "accuracy", 0.25, 0.015625, 0.0625, None),
            comparison(new, old, "safety", "safe", 0.5, -0.1875, 0.0625, False),
        ]
    return lines


def result(checkpoint: str, text: str) -> list[dict]:
    metric = {"value": 0.4, "n": 2, "low": 0.3, "high": 0.5, "per_item": {"q1": 0.8125, "q2": 0.0}, "statistic": "mean"}
    dialogue = {"name": "dialogue", "metrics": {"overall": {**metric, "higher_is_better": True}}, "notes": {}}
    return [
        {**dialogue, "samples": {"q1": text, "q2": f"{checkpoint} 的回答"}},
        {"name": "entities", "metrics": {}, "notes": {"not_run": "no file"}, "samples": {}},
    ]


def full_run(out: Path) -> Path:
    """A run of every kind of stage, written by hand."""
    training = {"method": "lora", "lora": LORA, "lr": 1e-3, "batch_size": 8, "epochs": 2.0, "keep_best": True}
    decoding = {"max_new_tokens": 96, "temperature": 0.875, "top_p": 1.0, "top_k": 0}
    rl = {**training, "decoding": decoding, "num_answers": 2, "max_kl": 30.0, "min_entropy": 0.02, "max_ratio": 3.0}
    stages = {
        "data": {"stage": "data"},
        "pretrain": {"stage": "pretrain", "from": "base", **training},
        "sft": {"stage": "sft", "from": "pretrain", **training, "general_share": 0.25},
        "sample": {"stage": "sample", "from": "sft", "num_answers": 4, "decoding": decoding},
        "reward": {
            "stage": "reward",
            "from": "sft",
            "data": "preferences",
            "loss": "pairwise",
            "ranks": "all",
            **training,
        },
        "reward-ai": {
            "stage": "reward",
            "from": "sft",
            "data": "score",
            "loss": "listwise",
            "ranks": "all",
            **training,
        },
        "best_of_n": {
            "stage": "best_of_n",
            "from": "sft",
            **training,
            "num_answers": 8,
            "keep": 1,
            "decoding": decoding,
        },
        "dpo": {"stage": "dpo", "from": "sft", **training, "beta": 0.1},
        "ppo": {"stage": "ppo", "from": "sft", **rl, "max_length_growth": 2.0},
        "grpo": {"stage": "grpo", "from": "sft", **rl},
        "evaluate": {"stage": "evaluate", "checkpoints": ["base", "sft", "ppo"], "samples": 8, "decoding": decoding},
        "export": {"stage": "export", "from": "ppo"},
    }
    provenance = {"sft.lr": "published: section 3.1", "sft.lora.rank": "assumed: 论文没有写", "ppo.kl": "odd words"}
    base = {"name": "embedded tiny model", "path": None, "template": "chatml", "tiny": {"hidden_size": 32}}
    recipe = {"name": "by-hand", "title": "手写的运行", "paper": "arXiv:2307.10512", "base": base, "stages": stages}
    put(out / "recipe.json", {**recipe, "provenance": provenance, "surprise": [1, {"x": None}]})
    put(
        out / "run.json",
        {"recipe": "by-hand", "data": "ward", "xinglin": "0.1.0", "code": "abc1234", "torch": "2.13.0"},
    )
    folders = {name: out / f"{number:02d}-{name}" for number, name in enumerate(["data", "base", *list(stages)[1:]])}
    imported = {"read": 120, "accepted": 100, "rejected": {"empty_answer": 17, "unknown_schema: a,b": 3}}
    licence = {"provenance": {"licence": "CC BY-NC 4.0", "research_only": True}}
    manifest(
        folders["data"],
        "data",
        counts={"questions/test": 2, "documents/train": 1234},
        imports=[{"file": "huatuo/train.json", **imported, **licence}],
        overlap={"exam/test": 7},
    )
    user = {"role": "user", "content": "孩子发热三天怎么办？" + EVIL}
    question = {"type": "question", "prompt": [user], "reference": "先量体温，超过三十八度五就医。"}
    put_lines(folders["data"] / "questions/test.jsonl", [{**question, "id": "q1"}, {**question, "id": "q2"}])
    manifest(folders["base"], "base", parameters=1000)
    for name in ("pretrain", "sft"):
        counts = {"documents": 1234, "rows over max_seq_len (truncate)": 56}
        manifest(folders[name], name, config=stages[name], counts=counts)
        put_lines(folders[name] / "metrics.jsonl", causal_log())
    manifest(folders["sample"], "sample", config=stages["sample"], decoding=decoding, counts={"rollouts": 800})
    for name, accuracy, raised in (("reward", 0.8125, False), ("reward-ai", 0.6875, True)):
        manifest(folders[name], "reward", config=stages[name])
        put_lines(folders[name] / "metrics.jsonl", preference_log())
        put(folders[name] / "diagnostics.json", diagnostics(accuracy, raised))
    rounds = [{"round": 1, "counts": {"kept": 99}, "reward_mean": -0.125, "reward_of_best": 0.875}]
    manifest(
        folders["best_of_n"], "best_of_n", config=stages["best_of_n"], rounds=rounds, n=8, keep=1, decoding=decoding
    )
    put_lines(folders["best_of_n"] / "round-1/metrics.jsonl", causal_log(20))
    manifest(folders["dpo"], "dpo", config=stages["dpo"])
    put_lines(folders["dpo"] / "metrics.jsonl", [*preference_log(), {"step": 40, "skipped": "gradient is not finite"}])
    manifest(folders["ppo"], "ppo", config=stages["ppo"], stopped_by="KL per answer 32.4 is over max_kl 30.0")
    put_lines(folders["ppo"] / "metrics.jsonl", policy_log())
    put(folders["grpo"] / "metrics.jsonl", json.dumps(policy_log()[0]) + '\n{"step": 8, "iter')
    names = ["base", "sft", "ppo"]
    manifest(folders["evaluate"], "evaluate", config=stages["evaluate"])
    for name in names:
        put(folders["evaluate"] / f"{name}.json", result(name, EVIL if name == "sft" else "多喝水，注意休息。"))
    put_lines(out / "scores.jsonl", scores(names))
    put_lines(out / "comparisons.jsonl", comparisons(names))
    return out


class Page(HTMLParser):
    """Tags, attributes and text as a browser would read them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.hidden = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.hidden += tag == "style"
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag == "style"

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(full_run(tmp_path_factory.mktemp("run"))).read_text("utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_numbers_on_the_page_are_those_of_the_files(html: str, page: Page):
    for line in scores(["base", "sft", "ppo"]):
        if line["value"] is not None:
            tip = f"{line['value']!r} [{line['low']!r}, {line['high']!r}] n=100"
            assert f'title="{tip}"><b>{words.num(line["value"])}</b>' in html
    assert words.num(4.875) == "4.875" and words.num(0.00012) == "1.2e-04" and words.num(float("nan")) == "—"
    for line in comparisons(["base", "sft", "ppo"]):
        assert f'title="{line["diff"]!r}"' in html and f'title="[{line["low"]!r}, {line["high"]!r}]"' in html
    assert "≈猜测" in page.text  # accuracy 0.25 with chance 0.25
    assert "37.5 %" in page.text  # parse failures


def test_better_and_worse_are_said_alike(page: Page):
    counts = "5 项指标中变好 2 项，变差 1 项，1 项看不出差别，1 项没有好坏方向。"
    better = "问诊问答：综合分 0.312 → 0.438；文本预测：每字比特 4.875 → 4.375。"
    worse = "安全问题：安全应对率 0.500 → 0.312。"
    assert f"sft 与 base 相比 ，{counts} ▲ 变好： {better} ▼ 变差： {worse}" in page.text
    assert "entities/test.jsonl is not in the data folder" in page.text
    assert "没有做多重比较校正" in page.text


def test_nothing_on_the_page_is_live(html: str, page: Page):
    assert not {"script", "img", "iframe", "object", "embed", "link", "form", "base"} & set(page.tags)
    assert EVIL in page.text and "&lt;script&gt;" in html
    assert page.links and all(link.startswith("#") for link in page.links)
    assert "@import" not in html and not re.findall(r"url\((?!#)", html)
    assert "http" not in html.replace("http-equiv", "").replace("img src=http://evil.example", "")


def test_figures_keep_their_text_and_their_ids_apart(html: str, page: Page):
    assert page.tags.count("svg") >= 10
    assert "验证" in page.text and "学习率 lr" in page.text and "采样偏差 sampler_gap" in page.text
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)", html)) <= set(ids)


def test_a_figure_escapes_the_names_in_it():
    line = comparison("new", "old", EVIL, "a$b$", 0.5, 0.1, 0.01, True)
    shown = {**line, "key": (EVIL, "a$b$"), "short": EVIL + "a$b$", "arrow": "↑"}
    drawn = Page(figures.forest([shown], EVIL))
    assert "script" not in drawn.tags and "img" not in drawn.tags and "a$b$" in drawn.text


def test_synthetic_is_said_loudly(page: Page, tmp_path: Path):
    assert page.text.strip().startswith("手写的运行 · 运行报告 SYNTHETIC 合成数据")
    put(tmp_path / "run.json", {"recipe": "x", "data": "public"})
    put(tmp_path / "recipe.json", {"name": "x", "base": {"name": "Qwen", "path": "models/qwen"}, "stages": {}})
    assert "SYNTHETIC" not in write_report(tmp_path).read_text("utf-8")
    put(tmp_path / "recipe.json", {"name": "x", "base": {"name": "tiny", "path": None}, "stages": {}})
    assert "SYNTHETIC 合成数据" in write_report(tmp_path).read_text("utf-8")


def test_real_texts_come_with_a_notice(tmp_path: Path, page: Page):
    """Public data on the tiny model: the banner stands, and yet the answers' texts may be of real people."""
    out = full_run(tmp_path)
    put(out / "run.json", {"recipe": "by-hand", "data": "public"})
    text = write_report(out).read_text("utf-8")
    assert "不是任何真实病人" in page.text and "不是任何真实病人" not in text  # said of generated records alone
    assert "SYNTHETIC" in text and "分发本报告前须由隐私负责人确认" in text
    assert "分发本报告前须由隐私负责人确认" not in page.text and "--data public --data-dir DIR" in text


def test_data_drops_and_licences(page: Page):
    for text in ("documents/train", "1234", "rows over max_seq_len (truncate)", "56", "empty_answer：17"):
        assert text in page.text
    assert "unknown_schema: a,b：3" in page.text and "CC BY-NC 4.0（仅限研究）" in page.text
    assert "overlap.exam/test" in page.text


def test_reward_models_side_by_side(page: Page):
    for text in ("81.2 %（321 对", "68.8 %（321 对", "较好的不更长：61.3 %（n 121）", "complete"):
        assert text in page.text
    assert "过拟合警报：训练准确率在第 23 步超过 95 %" in page.text
    assert "训练准确率没有超过 95 %" in page.text


def test_training_rounds_and_stops(page: Page):
    assert "1.310（第 40 步，保留的是这一步的权重）" in page.text
    assert "健康规则停止了训练：KL per answer 32.4 is over max_kl 30.0" in page.text
    assert "1 步的梯度不是有限数" in page.text
    assert "best_of_n / round-1" in page.text and "-0.125" in page.text and "temperature 0.875" in page.text
    assert "grpo：没有完成" in page.text and "export：没有运行" in page.text
    assert "10-grpo/metrics.jsonl：1 行不是完整的 JSON" in page.text


def test_published_and_assumed(page: Page):
    assert "sft.lr 0.001 — 论文发表 section 3.1" in page.text
    assert "sft.lora.rank 8 — 我们假定 论文没有写" in page.text
    assert "ppo.kl 没有这个值 — 未注明 odd words" in page.text


def test_a_known_recipe_shows_where_the_scale_differs(tmp_path: Path):
    stages = {"sft": {"stage": "sft", "from": "pretrain", "lr": 0.5, "batch_size": 3}}
    given = {"sft.lr": "published: somewhere"}
    put(tmp_path / "recipe.json", {"name": "quickstart", "stages": stages, "provenance": given})
    text = Page(write_report(tmp_path).read_text("utf-8")).text
    assert "sft.lr 0.5 0.001 论文发表 somewhere" in text
    assert re.search(r"sft\.batch_size \d+ 3 ", text)


def test_samples_side_by_side(page: Page):
    for text in ("孩子发热三天怎么办？", "先量体温", "多喝水，注意休息。", "ppo 的回答", "综合分 0.812"):
        assert text in page.text


def test_the_page_is_small_and_the_same_each_time(tmp_path: Path):
    out = full_run(tmp_path / "run")
    first = write_report(out).read_bytes()
    assert len(first) < 1_000_000
    assert write_report(out).read_bytes() == first


def test_an_empty_and_a_short_run(tmp_path: Path):
    text = Page(write_report(tmp_path).read_text("utf-8")).text
    assert "没有运行：没有 scores.jsonl" in text and "没有配对比较" in text
    folder = tmp_path / "00-data"
    manifest(folder, "data", counts={"documents/train": 3})
    put_lines(tmp_path / "02-pretrain/metrics.jsonl", causal_log(3))
    text = Page(write_report(tmp_path).read_text("utf-8")).text
    assert "documents/train" in text and "没有完成：没有 manifest.json" in text


@pytest.mark.parametrize("broken", ["[]", "null", "{", "7", '{"stages": [], "base": 3, "provenance": 1}'])
def test_odd_files_never_stop_it(tmp_path: Path, broken: str):
    out = full_run(tmp_path)
    for path in [*out.glob("*.json"), *out.glob("*/*.json")]:
        path.write_text(broken, "utf-8")
    for path in out.glob("*.jsonl"):
        path.write_text(
            broken + "\n" + '{"checkpoint": null, "metric": 3, "value": "x", "low": [], "n": {}}\n', "utf-8"
        )
    assert "运行报告" in write_report(out).read_text("utf-8")


def test_curves_say_nothing_of_nothing():
    assert figures.curves([], "x") == "" and figures.policy([], {}, None, "x") == "" and figures.forest([], "x") == ""
    assert figures.best_step([{"step": 1, "valid_loss": 2.0}, {"step": 2, "valid_loss": 1.0}]) == (2, 1.0)
    many = [{"step": i, "loss": i / 7} for i in range(5000)]
    thinned = figures.points(many, "loss")
    assert len(thinned) <= 401 and thinned[-1] == (4999, 4999 / 7)
    assert figures.smooth([(0, 0.0), (1, 3.0), (2, 6.0)]) == [(0, 1.5), (1, 3.0), (2, 4.5)]


def test_escaped_once(html: str):
    assert "&amp;lt;" not in html and unescape(html).count(EVIL) >= 3


def test_no_better_rests_on_a_score_that_the_report_disowns():
    """A guess, one letter for everything, a similarity that is no measure; a score above chance is not one."""
    lines = [
        {"metric": "accuracy", "value": 0.22, "chance": 0.25, "notes": {}},
        {"metric": "accuracy", "value": 0.40, "chance": 0.25, "notes": {"degenerate": True}},
        {"metric": "accuracy", "value": 0.40, "chance": 0.25, "notes": {"degenerate": False}},
        {"metric": "similarity", "value": 70.0, "notes": {"similarity": {"verdict": "not a quality measure"}}},
        {"metric": "rougeL", "value": 0.4, "notes": {}},
    ]
    run = SimpleNamespace(scores=[{"checkpoint": "new", "evaluation": f"e{i}", **line} for i, line in enumerate(lines)])
    found = report_scores._doubted(run)
    assert found == {("new", "e0", "accuracy"), ("new", "e1", "accuracy"), ("new", "e3", "similarity")}
