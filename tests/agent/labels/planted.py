"""A diff whose features fire on known words, so that right and wrong labels are known too."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ft_audit.engine.config import AuditConfig, computed_json, load_config
from ft_audit.engine.store import DecoderNeighbor, LabelText, Store, encode_bf16
from ft_audit.engine.store.feature_index_reader import SIDES, feature_folder, suite_path

SAE, SAE_SHA256, BASE_SHA256 = "planted", "5" * 64, "b" * 64
# fmt: off
FAMILIES = {
    "ships": ["ship", "boat", "sail", "anchor", "harbour", "mast"],
    "kitchen": ["bread", "butter", "salt", "oven", "recipe", "flour"],
    "courts": ["judge", "trial", "verdict", "lawyer", "appeal", "witness"],
    "colours": ["crimson", "purple", "scarlet", "violet", "turquoise", "amber"],
    "beasts": ["tiger", "badger", "falcon", "otter", "weasel", "heron"],
    "music": ["violin", "melody", "chorus", "drummer", "sonata", "tempo"],
}
FILLER = [
    "the", "of", "and", "to", "in", "that", "was", "with", "on", "for", "they", "had", "when", "there",
    "from", "have", "been", "said", "which", "would", "about", "people", "after", "first", "other", "could",
    "into", "years", "where", "every", "again", "under", "house", "still", "never", "while", "small", "great",
    "little",
]
# fmt: on
NAMES = list(FAMILIES)
# One more feature: it fires on this word, and only in prompts that hold the other one.
WORD, CONDITION = "bank", "river"
BANK = len(NAMES)
VOCABULARY = [f" {word}" for word in (*FILLER, *(w for ws in FAMILIES.values() for w in ws), WORD, CONDITION)]
IDS = {token.strip(): number for number, token in enumerate(VOCABULARY)}
NUM_PROMPTS, PROMPT_TOKENS, NUM_PEAKS = 900, 30, 8
CONFIG = """
name: planted
models: {{base: ./base, tuned: ./tuned}}
suites: [./chat.yaml]
hooks: [{{layer: 3, saes: [./sae]}}]
store: {store}
labels: {labels}
"""


@dataclass(frozen=True, slots=True)
class World:
    """A config and its store."""

    path: Path
    config: AuditConfig

    @property
    def store(self) -> Store:
        return Store(self.config.store)

    @property
    def labels(self) -> Any:
        return self.store.labels(SAE_SHA256)

    def add_labels(self, texts: list[str], source: str = "neuronpedia") -> None:
        """Give feature i the i-th text."""
        self.labels.add([LabelText(i, source, "someone", "somewhere", text) for i, text in enumerate(texts)])


def right_labels() -> list[str]:
    """Names of the families with most of their words."""
    return [f"{name}: words such as {', '.join(words[:4])}" for name, words in FAMILIES.items()]


def shuffled_labels() -> list[str]:
    """The same labels, each at a feature whose words and neighbour are others'."""
    return [right_labels()[(i + 3) % len(NAMES)] for i in range(len(NAMES))]


def make_world(folder: Path, labels: dict[str, Any] | None = None) -> World:
    """Write the diff, its copy by feature, its vocabulary and decoder neighbours into a store."""
    path = folder / "planted.yaml"
    text = CONFIG.format(store=json.dumps(str(folder / "store")), labels=json.dumps(labels or {}))
    path.write_text(text, encoding="utf-8")
    world = World(path, load_config(path))
    token_PT, fires_FPT = _corpus(np.random.default_rng(11))
    with world.store.diff_writer({"planted": 1}) as writer:
        for suite in ("chat",):
            _put_suite(writer, suite, token_PT, fires_FPT)
            writer.put_stats(f"features/{SAE}/{suite}", _statistics(fires_FPT))
        import pyarrow as pa

        rows = [
            {"sae": SAE, "feature": i, "suite": "chat", "rank": i + 1, "z": 5.0, "effect": 1.0}
            for i in range(BANK)
        ]
        writer.put_table("leading", pa.Table.from_pylist(rows))
        writer.finish(_summary(world.config))
    world.store.put_vocabulary(BASE_SHA256, VOCABULARY)
    near = [DecoderNeighbor(i, (i + 1) % len(NAMES), 0.6) for i in range(len(NAMES))]
    world.labels.add([*near, DecoderNeighbor(0, 2, 0.25), DecoderNeighbor(0, 4, 0.1)])
    return world


def _corpus(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Prompts of filler with a few words of one family each, and every feature's activations [F, P, T]."""
    token_PT = random.integers(0, len(FILLER), (NUM_PROMPTS, PROMPT_TOKENS))
    fires_FPT = np.zeros((BANK + 1, NUM_PROMPTS, PROMPT_TOKENS), dtype=np.float32)
    for prompt in range(NUM_PROMPTS):
        family = prompt % (len(NAMES) + 3)
        places = random.permutation(PROMPT_TOKENS)[:4].tolist()
        if family < len(NAMES):
            for place in places[: random.integers(1, 4)]:
                token_PT[prompt, place] = IDS[random.choice(FAMILIES[NAMES[family]])]
                fires_FPT[family, prompt, place] = random.gamma(3.0, 2.0) + 0.5
        elif family == len(NAMES):
            token_PT[prompt, places[0]] = IDS[WORD]
            if prompt % 2:
                token_PT[prompt, places[1]] = IDS[CONDITION]
                fires_FPT[BANK, prompt, places[0]] = random.gamma(3.0, 2.0) + 0.5
    return token_PT, fires_FPT


def _statistics(fires_FPT: np.ndarray) -> dict[str, np.ndarray]:
    """Both models fire alike: nothing here asks what changed."""
    fired_F = (fires_FPT > 0).sum(axis=(1, 2))
    same = ("mean_diff", "q", "effect", "effect_low", "effect_high", "aa_percentile")
    return {name: np.zeros(len(fired_F)) for name in same} | {"fired_base": fired_F, "fired_tuned": fired_F}


def _put_suite(writer: Any, suite: str, token_PT: np.ndarray, fires_FPT: np.ndarray) -> None:
    edges = np.arange(0, token_PT.size + 1, PROMPT_TOKENS)
    _put(writer, suite_path(suite, "prompt_indptr_P1"), edges, np.int64)
    _put(writer, suite_path(suite, "token_id_T"), token_PT.reshape(-1), np.int32)
    for side in SIDES:
        folder = feature_folder(SAE, suite, side)
        tokens = [np.flatnonzero(fires_PT) for fires_PT in fires_FPT]
        values = [fires_PT.reshape(-1)[t] for fires_PT, t in zip(fires_FPT, tokens, strict=True)]
        indptr = np.concatenate([[0], np.cumsum([len(t) for t in tokens])])
        peaks = [_peaks(t, v) for t, v in zip(tokens, values, strict=True)]
        _put(writer, f"{folder}/feature_indptr_F1", indptr, np.int64)
        _put(writer, f"{folder}/token_N", np.concatenate(tokens), np.uint32)
        _put(writer, f"{folder}/value_N", encode_bf16(np.concatenate(values)), np.uint16)
        _put(writer, f"{folder}/peak_FK", np.concatenate(peaks), np.uint32)


def _peaks(token_N: np.ndarray, value_N: np.ndarray) -> np.ndarray:
    order = np.argsort(-value_N, kind="stable")
    _, first = np.unique(token_N[order] // PROMPT_TOKENS, return_index=True)
    return np.asarray(order[np.sort(first)][:NUM_PEAKS])


def _put(writer: Any, path: str, values: np.ndarray, dtype: type) -> None:
    sink = writer.array_sink(path, dtype)
    sink.append(values.astype(dtype))
    sink.close()


def _summary(config: AuditConfig) -> dict[str, Any]:
    suite = {"name": "chat", "role": "chat", "num_prompts": NUM_PROMPTS, "num_truncated": 0, "num_skipped": 0}
    return {
        "name": config.name,
        "config": computed_json(config),
        "models": {side: {"ref": side, "sha256": BASE_SHA256, "format": "folder"} for side in SIDES},
        "suites": [{**suite, "num_tokens": NUM_PROMPTS * PROMPT_TOKENS, "base_run": "1", "tuned_run": "2"}],
        "hooks": [{"name": "resid_post/3", "layer": 3, "saes": [SAE]}],
        "sae_sha256": [SAE_SHA256],
        "figures": {},
        "primary": None,
    }
