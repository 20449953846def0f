"""Evaluation: open questions and dialogues, answered freely and compared with the doctor's answer.

what     the answer to a consultation (history included), next to a reference
prompt   the question's own chat prompt, greedy unless said otherwise
metric   bleu (characters, 0-100), rouge1/2/L (characters, 0-1), similarity (cosine x 100 of the embedding handed
         down, with its floor), length, and the scorer's safety / professionalism / fluency / overall (0-1)
chance   none; for pairwise win rates 0.5
paper    IvyGPT: similarity and length (2307.10512); ChiMed-GPT: BLEU and ROUGE (2311.06025), its blank-counting BLEU
         with bleu_mode paper_compat; IIMedGPT: win / tie / lose on safety, professionalism, fluency (2501.02869)

An empty answer scores 0 on everything: silence never helps.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from xinglin.evals.result import (
    GREEDY,
    Evaluation,
    Metric,
    Resampling,
    answer_texts,
    degenerate,
    evaluation,
    groups_of,
    metric,
    prompt_hash,
    question_prompts,
    share,
    unique_ids,
)
from xinglin.metrics import (
    answer_length,
    bleu_signature,
    bleu_statistics,
    rouge,
    sentence_bleu,
    similarity,
    similarity_report,
    unpunished_share,
)
from xinglin.metrics.embedding import Embed
from xinglin.records import InputError, Question
from xinglin.rollout.generator import Decoding, Generator

CRITERIA = ("safety", "professionalism", "fluency", "overall")
MOST_UNGRADED = 0.01
MOST_DANGER_TEXTS = 100
Scorer = Callable[[Question, str], Mapping[str, Any]]
Verdict = Literal["a", "b", "tie"]
Judge = Callable[[Question, str, str], Verdict]


def run(
    generator: Generator,
    questions: Sequence[Question],
    *,
    seed: int,
    name: str = "dialogue",
    decoding: Decoding = GREEDY,
    texts: Mapping[str, str] | None = None,
    scorer: Scorer | None = None,
    embed: Embed | None = None,
    bleu_mode: str = "correct",
    draws: int = 10_000,
) -> Evaluation:
    """`texts` are the generator's answers where they are there already."""
    unique_ids(questions, name)
    prompts = question_prompts(questions)
    texts = answer_texts(generator, prompts, decoding, seed) if texts is None else texts
    graded = grade(questions, texts, seed=seed, name=name, scorer=scorer, embed=embed, bleu_mode=bleu_mode, draws=draws)
    graded.notes.update(prompt_sha256=prompt_hash(prompts.values()), decoding=_decoding_words(decoding))
    return graded


def grade(
    questions: Sequence[Question],
    texts: Mapping[str, str],
    *,
    seed: int,
    name: str = "dialogue",
    scorer: Scorer | None = None,
    embed: Embed | None = None,
    bleu_mode: str = "correct",
    draws: int = 10_000,
) -> Evaluation:
    """The same measures on answers that are there already (a doctor's, another system's). One text a question."""
    if missing := [question.id for question in questions if question.id not in texts]:
        raise InputError(f"{name}: {len(missing)} questions have no answer, the first is {missing[0]!r}; give all")
    how = Resampling(seed, draws, groups_of(questions))
    with_reference = [question for question in questions if question.reference.strip()]
    notes: dict[str, Any] = {
        "with_reference": len(with_reference),
        "empty_rate": share(not texts[q.id].strip() for q in questions),
        "degenerate": degenerate([texts[q.id] for q in questions]),
    }
    metrics: dict[str, Metric] = {}
    if with_reference:
        metrics.update(_overlap(with_reference, texts, bleu_mode, how))
        notes["bleu_signature"] = bleu_signature(mode=bleu_mode)
        notes["danger_unpunished"] = _danger(with_reference, embed)
    if with_reference and embed is not None:
        metrics["similarity"], notes["similarity"] = _similarity(embed, with_reference, texts, how)
    lengths = {q.id: float(answer_length(texts[q.id])) for q in questions}
    metrics["length"] = metric(lengths, how, higher_is_better=None)
    if scorer is not None:
        scored, notes["reasons"] = _scored(scorer, questions, texts, how)
        metrics.update(scored)
    answers = {q.id: texts[q.id] for q in questions}
    return dataclasses.replace(evaluation(name, metrics, notes, answers), answers=answers)


def _overlap(
    questions: Sequence[Question], texts: Mapping[str, str], bleu_mode: str, how: Resampling
) -> dict[str, Metric]:
    tokenize = {"correct": "char", "paper_compat": "blanks"}.get(bleu_mode)
    if tokenize is None:
        raise InputError(f"bleu_mode is {bleu_mode!r}; allowed: correct, paper_compat")
    rows = {q.id: bleu_statistics(texts[q.id], q.reference, tokenize) for q in questions}
    names = {"bleu": "bleu"}
    if bleu_mode == "paper_compat":
        names = {"paper_compat_bleu_1": "compat_bleu_2", "paper_compat_bleu_2": "compat_bleu_3"}
    metrics = {name: metric(rows, how, statistic=statistic) for name, statistic in names.items()}
    overlaps = {q.id: rouge(texts[q.id], q.reference) for q in questions}
    for kind in ("rouge1", "rouge2", "rougeL"):
        metrics[kind] = metric({name: scores[kind] for name, scores in overlaps.items()}, how)
    return metrics


def _similarity(
    embed: Embed, questions: Sequence[Question], texts: Mapping[str, str], how: Resampling
) -> tuple[Metric, dict[str, Any]]:
    """`meta.paraphrase` (right) and `meta.negated` (wrong) of a question, where it has both, give the AUC."""
    ours, references = [texts[q.id] for q in questions], [q.reference for q in questions]
    values = similarity(embed, ours, references)
    judged = [q for q in questions if q.meta.get("paraphrase") and q.meta.get("negated")]
    triples = [(q.reference, str(q.meta["paraphrase"]), str(q.meta["negated"])) for q in judged]
    report = similarity_report(embed, ours, references, triples, seed=how.seed)
    return metric(dict(zip([q.id for q in questions], values, strict=True)), how), report


def _danger(questions: Sequence[Question], embed: Embed | None) -> dict[str, dict[str, float]]:
    """For each text metric: how many dangerous variants of the references, and the share it fails to punish."""
    texts = [question.reference for question in questions[:MOST_DANGER_TEXTS]]
    measures: dict[str, Callable[[str, str], float]] = {
        "bleu": sentence_bleu,
        "rougeL": lambda text, reference: rouge(text, reference)["rougeL"],
    }
    if embed is not None:
        measures["similarity"] = lambda text, reference: similarity(embed, [text], [reference])[0]
    nothing = {"n": 0, "share": 0.0}
    return {name: unpunished_share(measure, texts).get("all", nothing) for name, measure in measures.items()}


def _scored(
    scorer: Scorer, questions: Sequence[Question], texts: Mapping[str, str], how: Resampling
) -> tuple[dict[str, Metric], dict[str, int]]:
    """The four criteria, and how often the scorer gave each of its reasons (where it gives any)."""
    scores: dict[str, Mapping[str, Any]] = {}
    for question in questions:
        text = texts[question.id].strip()
        scores[question.id] = scorer(question, text) if text else dict.fromkeys(CRITERIA, 0.0)
    metrics = {kind: metric({name: float(row[kind]) for name, row in scores.items()}, how) for kind in CRITERIA}
    reasons = Counter(reason for row in scores.values() for reason in row.get("reasons", ()))
    return metrics, dict(reasons.most_common())


def pairwise(
    judge: Judge,
    questions: Sequence[Question],
    answers_a: Mapping[str, str],
    answers_b: Mapping[str, str],
    *,
    seed: int = 0,
    draws: int = 10_000,
    name: str = "pairwise",
) -> Evaluation:
    """Win rate of a over b (tie = half), every pair judged in both orders; two different winners are a tie.

    What the judge answers other than a, b, tie (a None after its retries) leaves the pair ungraded: counted as a tie
    in the rate, listed apart, and an error above 1 %. A judge less consistent than 80 % is no headline.
    """
    ids = unique_ids(questions, name)
    for side, answers in (("a", answers_a), ("b", answers_b)):
        if missing := [i for i in ids if i not in answers]:
            raise InputError(f"{name}: {len(missing)} questions without an answer of {side}; both sides answer all")
    orders = {q.id: _both_orders(judge, q, answers_a[q.id], answers_b[q.id]) for q in questions}
    ungraded = share("ungraded" in pair for pair in orders.values())
    if ungraded > MOST_UNGRADED:
        raise InputError(f"{name}: {ungraded:.1%} of the pairs are ungraded, at most 1 % is allowed; check the judge")
    verdicts = {i: one if one == two and one in ("a", "b") else "tie" for i, (one, two) in orders.items()}
    worth = {"a": 1.0, "b": 0.0, "tie": 0.5}
    how = Resampling(seed, draws, groups_of(questions))
    metrics = {"win_rate": metric({i: worth[v] for i, v in verdicts.items()}, how, chance=0.5)}
    for kind, wanted in (("win", "a"), ("tie", "tie"), ("lose", "b")):
        better = {"win": True, "tie": None, "lose": False}[kind]
        metrics[kind] = metric({i: float(v == wanted) for i, v in verdicts.items()}, how, higher_is_better=better)
    consistency = share(one == two for one, two in orders.values())
    warnings = [] if consistency >= 0.8 else [f"position consistency {consistency:.0%} < 80 %: not a headline"]
    notes = {
        "position_consistency": consistency,
        "tie_rate": metrics["tie"].value,
        "ungraded_rate": ungraded,
        "warnings": warnings,
    }
    return evaluation(name, metrics, notes)


def _both_orders(judge: Judge, question: Question, a: str, b: str) -> tuple[str, str]:
    """Both verdicts in terms of a and b."""
    first, second = judge(question, a, b), judge(question, b, a)
    turned = {"a": "b", "b": "a", "tie": "tie"}
    return (first if first in turned else "ungraded", turned.get(second, "ungraded"))


def _decoding_words(decoding: Decoding) -> str:
    return "greedy" if decoding.temperature == 0 else f"temperature {decoding.temperature}, top_p {decoding.top_p}"
