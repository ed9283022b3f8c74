"""A small text embedding: hashed words and letter groups, weighted by tf-idf, projected and reduced by latent semantic analysis.

It knows no language; it knows which words occur together in the texts it was made from. Equal texts give equal vectors.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import defaultdict
from functools import cache

import numpy as np

BUCKETS = 1 << 16
"""Features are filed under their hash modulo this."""
WIDE = 2048
"""Dimensions of the random projection, before the analysis picks those that matter."""
SAMPLE = 8192
"""The analysis looks at no more texts than this."""
LINE_WEIGHTS = (3.0, 2.0, 1.0)
"""A text's first line is its name and its second the headline; they say more than the rest."""
GROUP_SHARE = 0.25
"""What a group of letters counts, if its word counts 1."""
STOP_WORDS = frozenset(
    "a an and are as at be by can for from has have in into is it its no not of on or other that the their them then there "
    "these this to use used uses using via was which will with you your also allows any all provides package contains".split()
)


def words(text: str) -> list[str]:
    """The words of a text, in lower case and without endings."""
    return [_stem(word) for word in re.findall(r"[a-z][a-z+#]+", text.lower()) if word not in STOP_WORDS]


@cache
def _stem(word: str) -> str:
    for ending in ("ing", "ers", "er", "ors", "or", "ion", "ies", "es", "ed", "s", "y", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 4 - (len(ending) == 1):
            word = word.removesuffix(ending)
            break
    return word[:-1] if len(word) > 4 and word[-1] == word[-2] else word


@cache
def _buckets(word: str) -> list[int]:
    """The hash bucket of the word, then those of its groups of four letters: `zip` and `unzip` have something in common."""
    marked = f"<{word}>"
    names = [word, *(f"#{marked[start : start + 4]}" for start in range(len(marked) - 3))]
    return [zlib.crc32(name.encode()) % BUCKETS for name in names]


def _features(text: str) -> dict[int, float]:
    """Hash bucket -> weight, before idf."""
    weights: defaultdict[int, float] = defaultdict(float)
    for number, line in enumerate(text.splitlines()):
        weight = LINE_WEIGHTS[min(number, len(LINE_WEIGHTS) - 1)]
        for word in words(line):
            whole, *groups = _buckets(word)
            weights[whole] += weight
            for group in groups:
                weights[group] += GROUP_SHARE * weight
    # What is said ten times is not ten times as important.
    return {bucket: math.log1p(weight) for bucket, weight in weights.items()}


class TextEmbedding:
    """Fitted to `texts`; call it to embed."""

    def __init__(self, texts: list[str], dims: int, seed: int = 1) -> None:
        counts = np.zeros(BUCKETS)
        features = [_features(text) for text in texts]
        for each in features:
            counts[list(each)] += 1
        random = np.random.default_rng(seed)
        self._idf = np.log((1 + len(texts)) / (1 + counts)).astype(np.float32)
        bits = np.frombuffer(random.bytes(BUCKETS * WIDE // 8), np.uint8)
        self._signs = (np.unpackbits(bits).reshape(BUCKETS, WIDE) * 2 - 1).view(np.int8)
        sample = random.permutation(len(texts))[:SAMPLE]
        wide = np.stack([self._wide(features[row]) for row in sample])
        values, axes = _strongest(wide.T @ wide, dims, random)
        # The strongest directions are what all texts share: they are damped, or every text would resemble every other.
        self._axes = axes / np.maximum(values, 1e-6) ** 0.125

    def __call__(self, texts: list[str]) -> np.ndarray:
        """`[len(texts), dims]` float32, unit length."""
        vectors = np.stack([self._wide(_features(text)) for text in texts]) @ self._axes
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def _wide(self, features: dict[int, float]) -> np.ndarray:
        buckets = list(features)
        weights = np.fromiter(features.values(), np.float32, len(buckets)) * self._idf[buckets]
        vector = weights @ self._signs[buckets]
        return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _strongest(gram: np.ndarray, dims: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The `dims` largest eigenvalues and their vectors, nearly, by subspace iteration: far cheaper than all of them."""
    axes = random.standard_normal((len(gram), dims), dtype=np.float32)
    for _ in range(3):
        axes, _ = np.linalg.qr(gram @ (gram @ axes))
    values, turn = np.linalg.eigh(axes.T @ gram @ axes)
    return values, axes @ turn
