"""The measures: pure functions on texts and numbers, numpy only, no torch.

intervals.py  Wilson and bootstrap intervals, paired differences
text.py       bits per character, character BLEU and ROUGE, length
entities.py   strict and relaxed entity F1
choices.py    letters out of an exam answer, choice accuracy, chance
embedding.py  a small skip-gram model, cosine similarity with floor and AUC
danger.py     small edits that make advice dangerous, and who notices them
overlap.py    overlap with the doctor's answer as a stand-in score where no truth is known
"""

from xinglin.metrics.choices import chance_level, choice_accuracy, parse_choice
from xinglin.metrics.danger import danger_pairs, unpunished_share
from xinglin.metrics.embedding import Embedding, roc_auc, similarity, similarity_report, split_words, train_embedding
from xinglin.metrics.entities import EntityScore, entity_counts, entity_f1
from xinglin.metrics.intervals import (
    STATISTICS,
    Interval,
    PairedDifference,
    bootstrap_interval,
    paired_difference,
    wilson_interval,
)
from xinglin.metrics.overlap import overlap_score
from xinglin.metrics.text import (
    answer_length,
    bits_per_character,
    bleu_signature,
    bleu_statistics,
    corpus_bleu,
    rouge,
    sentence_bleu,
)

__all__ = [
    "STATISTICS",
    "Embedding",
    "EntityScore",
    "Interval",
    "PairedDifference",
    "answer_length",
    "bits_per_character",
    "bleu_signature",
    "bleu_statistics",
    "bootstrap_interval",
    "chance_level",
    "choice_accuracy",
    "corpus_bleu",
    "danger_pairs",
    "entity_counts",
    "entity_f1",
    "overlap_score",
    "paired_difference",
    "parse_choice",
    "roc_auc",
    "rouge",
    "sentence_bleu",
    "similarity",
    "similarity_report",
    "split_words",
    "train_embedding",
    "unpunished_share",
    "wilson_interval",
]
