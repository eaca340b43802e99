"""Scores against labels, in points (0-100). Pure functions on numpy arrays."""

from __future__ import annotations

import numpy as np

from pipeline.metrics.fidelity import Array, row_cosines, spearman


def spearman_of_pairs(emb_a: Array, emb_b: Array, scores: Array) -> float:
    """Spearman correlation, times 100, between the cosines of emb_a[i] and emb_b[i] and the labels scores[i].

    The STS benchmark's metric (Reimers & Gurevych, arXiv 1908.10084, sec. 4). `emb_a`, `emb_b` [pairs,
    features]; `scores` [pairs]. 0 if all cosines are equal; ValueError on other shapes or if all labels
    are equal.
    """
    if scores.shape != emb_a.shape[:1]:
        raise ValueError(f"{len(emb_a)} pairs need {len(emb_a)} scores, not shape {scores.shape}")
    if np.unique(scores).size < 2:
        raise ValueError("all scores are equal: there is no order to compare with")
    return 100.0 * spearman(row_cosines(emb_a, emb_b), scores)


def accuracy(logits: Array, labels: Array) -> float:
    """Percentage of rows with the top logit at the label. `logits` [rows, classes]; `labels` int [rows]."""
    if logits.ndim != 2 or logits.size == 0 or labels.shape != logits.shape[:1]:
        raise ValueError(f"expected logits [rows, classes] and labels [rows], not {logits.shape}, {labels.shape}")
    return 100.0 * float(np.mean(logits.argmax(axis=1) == labels))


def token_scores(logits: Array, labels: Array) -> dict[str, float]:
    """Percentages over the scored tokens (label not -100): `macro_f1`, the mean F1 of the classes that the labels have,
    and `token_accuracy`. `logits` [tokens, classes]; `labels` int [tokens].

    Macro F1 comes first, since most tokens of most sets are of one class (`O`). Micro F1 over all classes is the
    accuracy, as every token has one label. Entities are not put together. ValueError if no token is scored.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"expected logits [tokens, classes] and labels [tokens], not {logits.shape}, {labels.shape}")
    scored = labels >= 0
    if not scored.any():
        raise ValueError("no token has a label that is scored")
    found, wanted = logits[scored].argmax(axis=1), labels[scored]
    f1 = [_f1(found == number, wanted == number) for number in np.unique(wanted)]
    return {"macro_f1": 100.0 * float(np.mean(f1)), "token_accuracy": 100.0 * float(np.mean(found == wanted))}


def _f1(found: Array, wanted: Array) -> float:
    """2 TP / (2 TP + FP + FN), of bool vectors of which `wanted` is not all false."""
    return 2.0 * float(np.sum(found & wanted)) / float(np.sum(found) + np.sum(wanted))
