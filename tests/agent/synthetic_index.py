"""The synthetic diff's copy sorted by feature, its coverage, and labels of some features in the store."""

from typing import Any

import numpy as np

from ft_audit.engine.store import DecoderNeighbor, LabelScore, LabelText, Store, TokenEffect, encode_bf16
from ft_audit.engine.store.feature_index_reader import SIDES, feature_folder, suite_path

NUM_FEATURES, NUM_PROMPTS, PROMPT_TOKENS, FIRINGS, NUM_PEAKS = 400, 20, 30, 24, 4
VOCABULARY = [f" word{i}" for i in range(50)]


def coverage(seen: float) -> dict[str, np.ndarray]:
    """What a dictionary sees: its leading features less than its strongest directions."""
    steps_M = 1 - np.exp(-np.arange(1, 17) / 6)
    curves = {"leading": 0.3, "strongest": 0.45, "random": 0.06, "best": 0.8}
    scalars = {"seen": seen, "seen_low": seen - 0.08, "seen_high": seen + 0.07}
    energies = {"sq_moved_P": np.full(12, 4.0), "sq_missed_P": np.full(12, 4.0 * (1 - seen))}
    shares = {f"{name}_M": height * steps_M for name, height in curves.items()}
    return {name: np.array([value]) for name, value in scalars.items()} | shares | energies


def write_index(writer: Any, sae: str, suite: str, rng: np.random.Generator) -> None:
    """Each feature fires on as many tokens, harder in the tuned model; the last one fires nowhere."""
    num_tokens = NUM_PROMPTS * PROMPT_TOKENS
    put(writer, suite_path(suite, "prompt_indptr_P1"), np.arange(0, num_tokens + 1, PROMPT_TOKENS), np.int64)
    put(writer, suite_path(suite, "token_id_T"), rng.integers(0, 60, num_tokens), np.int32)
    for side in SIDES:
        # Each model leaves one massive token out: the first of a prompt.
        mask_T = np.arange(num_tokens) != SIDES.index(side) * PROMPT_TOKENS
        put(writer, suite_path(suite, f"mask_{side}_T"), mask_T, np.uint8)
    for side, strength in zip(SIDES, (1.0, 2.5), strict=True):
        folder = feature_folder(sae, suite, side)
        tokens = [np.sort(rng.choice(num_tokens, FIRINGS, replace=False)) for _ in range(NUM_FEATURES - 1)]
        values = [strength * rng.gamma(2.0, 1.0, FIRINGS) for _ in tokens]
        indptr = np.concatenate([[0], np.cumsum([*map(len, tokens), 0])])
        put(writer, f"{folder}/feature_indptr_F1", indptr, np.int64)
        put(writer, f"{folder}/token_N", np.concatenate(tokens), np.uint32)
        put(writer, f"{folder}/value_N", encode_bf16(np.concatenate(values).astype(np.float32)), np.uint16)
        peaks = [strongest_of_prompts(t, v) for t, v in zip(tokens, values, strict=True)]
        put(writer, f"{folder}/peak_FK", np.concatenate([*peaks, np.full(NUM_PEAKS, 0xFFFFFFFF)]), np.uint32)


def strongest_of_prompts(token_N: np.ndarray, value_N: np.ndarray) -> np.ndarray:
    order = np.argsort(-value_N, kind="stable")
    _, first = np.unique(token_N[order] // PROMPT_TOKENS, return_index=True)
    return np.asarray(order[np.sort(first)][:NUM_PEAKS])


def put(writer: Any, path: str, values: np.ndarray, dtype: type) -> None:
    sink = writer.array_sink(path, dtype)
    sink.append(values.astype(dtype))
    sink.close()


def write_labels(location: str, sae_sha256: str, base_sha256: str, text: str) -> None:
    """Labels of features 0 and 7, and for 0 its tokens and neighbours: one near with a label, one far."""
    store = Store(location)
    labels = store.labels(sae_sha256)
    mine = LabelText(0, "contexts", "", "a diff", text)
    near = LabelText(7, "neuronpedia", "some-model", "its source", "questions about the sky")
    labels.add([mine, near])
    labels.add(
        [
            LabelScore(0, mine.label_id, "lexical", "", 0.61, 0.5, 0.7, "bootstrap", 20, 20, 10, 0, "a diff"),
            LabelScore(0, mine.label_id, "detection", "judge", 0.82, 0.71, 0.9, "Wilson", 20, 20, 10, 0, "d"),
        ]
    )
    labels.add([TokenEffect(0, " obey", 1.25, base_sha256), TokenEffect(0, " refuse", -0.75, base_sha256)])
    labels.add([DecoderNeighbor(0, 7, 0.64)])
    store.put_vocabulary(base_sha256, VOCABULARY)
