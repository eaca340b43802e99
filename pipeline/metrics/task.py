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


def spearman_of_scores(rows: Array, scores: Array) -> list[float]:
    """Spearman correlation, times 100, of each output of a model's numbers [rows] or [rows, outputs] with given ones of
    as many values. ValueError on other shapes, or if all given numbers of an output are equal."""
    if rows.size != scores.size or len(rows) != len(scores):
        raise ValueError(f"outputs {rows.shape} need as many numbers, not {scores.shape}")
    found, wanted = rows.reshape(len(rows), -1), scores.reshape(len(scores), -1)
    if any(np.unique(column).size < 2 for column in wanted.T):
        raise ValueError("all scores are equal: there is no order to compare with")
    return [100.0 * spearman(a, b) for a, b in zip(found.T, wanted.T, strict=True)]


def label_f1(found: Array, wanted: Array) -> dict[str, float]:
    """Percentages of bool decisions [rows, labels] against the true ones: `micro_f1` over all decisions, `macro_f1` the
    mean over the labels that occur. ValueError if the shapes differ or no sample has a label."""
    if found.shape != wanted.shape:
        raise ValueError(f"decisions {found.shape} need as many labels, not {wanted.shape}")
    if not wanted.any():
        raise ValueError("no sample has any label")
    of_label = [_f1(a, b) for a, b in zip(found.T, wanted.T, strict=True) if b.any()]
    return {"micro_f1": 100.0 * _f1(found, wanted), "macro_f1": 100.0 * float(np.mean(of_label))}


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
