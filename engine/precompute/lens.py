"""The activation difference lens: which tokens the mean difference of the two residual streams points to.

A narrow fine-tune leaves readable traces in the mean of tuned - base over text that it is not about,
at the first positions above all (Minder, Dumas et al. 2025, arXiv 2510.13900): the mean is read through final
norm and unembedding as a feature's direction is. Two controls stand beside it: random directions, and the
base's own difference from itself in other batches.

Legend: D width of a hook, B positions, P prompts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ft_audit.engine.diff.pair_sums import SCALARS, total
from ft_audit.engine.diff.parts import SuitePair
from ft_audit.engine.labels.unembedding import RESIDUAL_SITES, TokenEffects, token_effects
from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.precompute.plan import Job
from ft_audit.engine.store import HookEntry, RunReader
from ft_audit.errors import ModelError

FloatArray = NDArray[np.float64]

NUM_TOKENS = 20
NUM_POSITIONS = 5
MEAN = -1  # in the place of a position: over all counted tokens
MAX_GROUPS = 32
NUM_RANDOM, SEED = 64, 20_251
ELICITED = "elicited"
SCHEMA = pa.schema(
    [
        ("hook", pa.string()),
        ("suite", pa.string()),
        ("group", pa.string()),  # of an elicited suite the template; null for the whole suite
        ("position", pa.int64()),
        ("kind", pa.string()),  # "tuned", "control" (the base against itself), "random" (of norm 1)
        ("head", pa.string()),  # whose final norm and unembedding: "base" or "tuned"
        ("num", pa.int64()),  # tokens, or prompts of a group or the control, that the mean is over
        ("norm", pa.float64()),
        ("base_norm", pa.float64()),  # the base's mean norm on the suite
        ("percentile", pa.float64()),  # of its strongest token per unit of norm among random directions
        ("promoted", pa.list_(pa.string())),
        ("promoted_effect", pa.list_(pa.float64())),
        ("suppressed", pa.list_(pa.string())),
        ("suppressed_effect", pa.list_(pa.float64())),
    ]
)


@dataclass(frozen=True, slots=True)
class Shift:
    """One mean difference, and what it is of."""

    hook: str
    suite: str | None
    group: str | None
    position: int
    kind: str
    num: int
    base_norm: float
    vector_D: FloatArray


def lens_table(
    job: Job, pairs: Sequence[SuitePair], control: tuple[str, RunReader, RunReader] | None
) -> tuple[pa.Table, str]:
    """Return the lens of every hook in the residual stream, and why a model's head could not be read, if so.

    The heads are the base's and, where the fine-tune is a whole checkpoint, its own: an adapter's is taken to
    be the base's. `control` is a suite's name and the base's two runs over it.
    """
    tokenizer = job.models.base_tokenizer
    heads = {"base": job.models.base} | ({} if job.models.tuned.adapter else {"tuned": job.models.tuned})
    records, refusal = [], ""
    for hook in job.hooks:
        if hook.site not in RESIDUAL_SITES:
            continue
        groups = {s.name: _groups(job, s.name) for s in job.suites.suites if s.role == ELICITED}
        shifts = [s for pair in pairs for s in pair_shifts(pair, hook, groups.get(pair.name, {}))]
        shifts += control_shift(hook, *control) if control is not None else []
        for head, model in heads.items():
            try:
                records += _read(shifts, head, model, job.models.shared_vocabulary)
            except ModelError as error:
                # What cannot be read here must not cost a finished job its diff.
                refusal = str(error)
    words: dict[int, str] = {}
    for record in records:
        for name in ("promoted", "suppressed"):
            record[name] = [words.setdefault(t, str(tokenizer.decode([t]))) for t in record[name]]
    return pa.Table.from_pylist(records, schema=SCHEMA), refusal


def pair_shifts(pair: SuitePair, hook: HookEntry, groups: Mapping[str, Sequence[int]]) -> Iterator[Shift]:
    """Yield a suite's mean differences: over all tokens, at each first position, and group by group."""
    prefix = f"pair/{hook.name}"
    sums = total(
        pair.together,
        [f"{prefix}/scalars", f"{prefix}/shift_W", f"{prefix}/start_BW", "pair/start_B"],
    )
    scalars = dict(zip(SCALARS, sums[f"{prefix}/scalars"].tolist(), strict=True))
    tokens = int(scalars["tokens"])
    if not tokens:
        return
    base_norm = scalars["norm_base"] / tokens

    def shift(group: str | None, position: int, num: int, vector_D: FloatArray) -> Shift:
        return Shift(hook.name, pair.name, group, position, "tuned", num, base_norm, vector_D)

    yield shift(None, MEAN, tokens, sums[f"{prefix}/shift_W"] / tokens)
    for position, num in enumerate(sums["pair/start_B"][:NUM_POSITIONS].tolist()):
        if num:
            yield shift(None, position, int(num), sums[f"{prefix}/start_BW"][position] / num)
    if groups:
        moved_PD = _moved(pair.base, pair.tuned, hook.name)
        for group, prompts in groups.items():
            known_PD = moved_PD[list(prompts)]
            known_PD = known_PD[np.isfinite(known_PD).all(1)]
            if len(known_PD):
                yield shift(group, MEAN, len(known_PD), known_PD.mean(0))


def control_shift(hook: HookEntry, suite: str, base: RunReader, again: RunReader) -> list[Shift]:
    """Return the base's mean difference from itself; none where it is not even rounding."""
    moved_PD = _moved(base, again, hook.name)
    known_P = np.isfinite(moved_PD).all(1)
    norm_P = base.dense(f"{hook.name}/norm_P").astype(np.float64)
    if not known_P.any():
        return []
    base_norm, vector_D = float(norm_P[known_P].mean()), moved_PD[known_P].mean(0)
    return [Shift(hook.name, suite, None, MEAN, "control", int(known_P.sum()), base_norm, vector_D)]


def _moved(base: RunReader, tuned: RunReader, hook: str) -> FloatArray:
    ours, theirs = (run.dense(f"{hook}/mean_PD").astype(np.float64) for run in (base, tuned))
    return theirs - ours


def _groups(job: Job, suite: str) -> dict[str, list[int]]:
    """Return the prompts of each template of an elicited suite, of the first so many."""
    found: dict[str, list[int]] = {}
    prompts = next(s.tokens.suite.prompts for s in job.suites.suites if s.name == suite)
    for place, prompt in enumerate(prompts):
        if prompt.group:
            found.setdefault(prompt.group, []).append(place)
    return dict(list(found.items())[:MAX_GROUPS])


def _read(shifts: Sequence[Shift], head: str, model: ModelSource, vocab_size: int) -> list[dict[str, Any]]:
    """Return a record of each shift as one model's final norm and head see it, and of a random direction."""
    if not shifts:
        return []
    width = len(shifts[0].vector_D)
    random_RD = np.random.default_rng(SEED).standard_normal((NUM_RANDOM, width))
    random_RD /= np.linalg.norm(random_RD, axis=1, keepdims=True)
    vector_FD = np.concatenate([np.stack([s.vector_D for s in shifts]), random_RD])
    found = token_effects(model, torch.from_numpy(vector_FD).float(), vocab_size, NUM_TOKENS)
    noise_R = np.sort(found.promoted_effect_FK[len(shifts) :, 0].double().numpy())
    first = Shift(shifts[0].hook, None, None, MEAN, "random", 0, 0.0, random_RD[0])
    records = []
    for place, shift in enumerate((*shifts, first)):
        norm = float(np.linalg.norm(shift.vector_D))
        strongest = float(found.promoted_effect_FK[place, 0]) / norm if norm else 0.0
        records.append(
            {
                **{n: getattr(shift, n) for n in ("hook", "suite", "group", "position", "kind", "num")},
                "head": head,
                "norm": norm,
                "base_norm": shift.base_norm,
                "percentile": 100 * float(np.searchsorted(noise_R, strongest)) / NUM_RANDOM,
                # A difference of nothing points nowhere.
                **(_tokens(found, place) if norm else {name: [] for name in TOKEN_COLUMNS}),
            }
        )
    return records


TOKEN_COLUMNS = ("promoted", "promoted_effect", "suppressed", "suppressed_effect")


def _tokens(found: TokenEffects, place: int) -> dict[str, list[Any]]:
    return {name: getattr(found, f"{name}_FK")[place].tolist() for name in TOKEN_COLUMNS}
