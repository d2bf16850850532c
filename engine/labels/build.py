"""`labels build`: our own labels of a diff's features, from its contexts and the base's unembedding alone."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from ft_audit.engine.config import AuditConfig
from ft_audit.engine.labels.contexts import MakingContexts
from ft_audit.engine.labels.open_labels import LabelJob, open_job
from ft_audit.engine.labels.own_label import own_label
from ft_audit.engine.labels.published_contexts import open_published, published_contexts
from ft_audit.engine.labels.unembedding import RESIDUAL_SITES, token_effects
from ft_audit.engine.models.load import load_tokenizer
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.engine.store import Context, DecoderNeighbor, DictionaryLabels, LabelText, TokenEffect
from ft_audit.errors import ModelError
from ft_audit.sae.examples import Examples
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.load import find_sae
from ft_audit.sae.neighbors import nearest_neighbors

SOURCE = "contexts"
# The author of a label of this source: which contexts made it.
OWN, PUBLISHED = "those of a diff", "its published examples"
# Features between two commits: what is lost at most when the verb is killed.
BLOCK = 256
NUM_TOKENS = 10  # promoted, and as many suppressed


def run_labels_build(
    config: AuditConfig, diff: str | None = None, features: str | None = None, *, progress: bool = True
) -> dict[str, Any]:
    """Store a label, its tokens and its neighbours for each feature asked for, and return what was done.

    A dictionary beside which its publisher put examples (Gemma Scope 2) gives each feature a second label,
    made of those.

    What the store has already is not made again, so that the verb goes on where it was interrupted.

    Raises:
        ConfigError, ModelError, SaeError, StoreError: no such diff or feature, a base or dictionary that is
            not the diff's, or a diff without a feature index.
    """
    job = open_job(config, diff, features)
    base = resolve_model(config.models.base, config.base_dir)
    if base.weights_sha256 != job.base_sha256:
        raise ModelError(
            f"models.base {base.ref!r} is not the model that diff {job.diff_id} was computed with: give that "
            "one, or run `ft-audit precompute` again"
        )
    vocabulary = _vocabulary(job, base)
    contexts = MakingContexts(job.diff)
    others = contexts.others(vocabulary)
    done = {}
    for reference, sae in job.dictionaries():
        labels = job.store.labels(sae.spec.sha256)
        with open_published(find_sae(reference.reference, config.base_dir)) as examples:
            builder = _Builder(job, sae, base, vocabulary, contexts, others, labels, examples)
            done[sae.spec.name] = builder.run(progress)
    return {"diff": job.diff_id, "store": job.store.location, "dictionaries": done}


def _vocabulary(job: LabelJob, base: ModelSource) -> list[str]:
    """Return what each token id stands for, stored when it was not yet."""
    known = job.store.vocabulary(job.base_sha256)
    if known is not None:
        return known
    tokenizer = load_tokenizer(base)
    found = [str(tokenizer.decode([token])) for token in range(len(tokenizer))]
    job.store.put_vocabulary(job.base_sha256, found)
    return found


@dataclass(frozen=True, slots=True)
class _Builder:
    """Labels of one dictionary's features."""

    job: LabelJob
    sae: JumpReluSae
    base: ModelSource
    vocabulary: Sequence[str]
    contexts: MakingContexts
    others: Sequence[str]
    labels: DictionaryLabels
    examples: Examples | None

    def run(self, progress: bool) -> dict[str, int]:
        name = self.sae.spec.name
        asked = self.job.features(name, self.sae.spec.width)
        counts = {"features": len(asked), "labels": 0, "too_few_contexts": 0, "tokens": 0, "neighbors": 0}
        with tqdm(total=len(asked), desc=f"labels of {name}", disable=not progress, file=sys.stderr) as bar:
            for block in _blocks(asked):
                counts["tokens"] += self._add_tokens(block)
                counts["neighbors"] += self._add_neighbors(block)
                made = [label for feature in block for label in self._missing_labels(feature)]
                found = [label for label in made if label is not None]
                self.labels.add(found)
                counts["labels"] += len(found)
                counts["too_few_contexts"] += len(made) - len(found)
                bar.update(len(block))
        return counts

    def _missing_labels(self, feature: int) -> Iterator[LabelText | None]:
        """The feature's labels that are not stored yet, None in the place of one that cannot be made."""
        made_from, name = self.job.diff_id, self.sae.spec.name
        known = {(text.author, text.made_from) for text in self.labels.of(LabelText, feature)}
        if (OWN, made_from) not in known:
            yield self._label(feature, OWN, made_from, self.contexts.of(name, feature))
        if self.examples is not None and (PUBLISHED, name) not in known:
            yield self._label(feature, PUBLISHED, name, published_contexts(self.examples, feature))

    def _label(
        self, feature: int, author: str, made_from: str, contexts: Sequence[Context]
    ) -> LabelText | None:
        effects = [row for row in self._tokens(feature) if row.effect > 0]
        promoted = [row.token for row in sorted(effects, key=lambda row: -row.effect)]
        text = own_label(contexts, self.others, self.vocabulary, promoted)
        return None if text is None else LabelText(feature, SOURCE, author, made_from, text)

    def _tokens(self, feature: int) -> list[TokenEffect]:
        known = self.labels.of(TokenEffect, feature)
        return [row for row in known if row.base_sha256 == self.job.base_sha256]

    def _add_tokens(self, block: Sequence[int]) -> int:
        """Store the tokens that directions move; none where they do not lie in the residual stream."""
        spec, sha256 = self.sae.spec, self.job.base_sha256
        todo = [feature for feature in block if not self._tokens(feature)]
        if not todo or spec.outputs[-1].partition("/")[0] not in RESIDUAL_SITES:
            return 0
        # A crosscoder's last hook is the nearest to the head.
        width = self.sae.d_out // len(spec.outputs)
        found = token_effects(self.base, self.sae.w_dec_FD[todo, -width:], len(self.vocabulary), NUM_TOKENS)
        rows = []
        for place, feature in enumerate(todo):
            up = zip(found.promoted_FK[place].tolist(), found.promoted_effect_FK[place].tolist(), strict=True)
            down = zip(
                found.suppressed_FK[place].tolist(), found.suppressed_effect_FK[place].tolist(), strict=True
            )
            rows += [
                TokenEffect(feature, self.vocabulary[token], effect, sha256) for token, effect in (*up, *down)
            ]
        self.labels.add(rows)
        return len(todo)

    def _add_neighbors(self, block: Sequence[int]) -> int:
        known = self.labels.features(DecoderNeighbor)
        todo = [feature for feature in block if feature not in known]
        self.labels.add(
            [
                DecoderNeighbor(near.feature, index, cosine)
                for near in nearest_neighbors(self.sae.w_dec_FD, todo)
                for index, cosine in zip(near.index_K.tolist(), near.cosine_K.tolist(), strict=True)
            ]
        )
        return len(todo)


def _blocks(features: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(features), BLOCK):
        yield features[start : start + BLOCK]
