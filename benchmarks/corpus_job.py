"""The demo's job over a corpus, whole and cut into parts that several ways run over in turn."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ft_audit.engine.config import AuditConfig, load_config
from ft_audit.engine.precompute.plan import Job, open_job
from ft_audit.engine.precompute.suites import JobSuite, JobSuites
from ft_audit.engine.store import Store
from ft_audit.engine.suites.conditions import Survey
from ft_audit.engine.tokens.batches import BatchPlan, plan_batches
from ft_audit.engine.tokens.tokenize import TokenizedSuite

CORPUS = "package:chatterbot_corpus/data/english"
ROUNDS = 4  # the prompts are cut into so many parts, and every way runs over each part in turn


@dataclass(frozen=True, slots=True)
class Part:
    """One round's prompts, tokenised and planned."""

    tokens: TokenizedSuite
    plan: BatchPlan
    lengths_P: np.ndarray


def job_over(store: Path, tuned: str = "configs:candidates/needle", **settings: object) -> Job:
    """Return the demo's job with the corpus as its only suite and no questions to the models."""
    demo = load_config("configs:demo_needle.yaml")
    raw = demo.model_dump(mode="json") | {
        "suites": [CORPUS],
        "dataset": None,
        "elicit": None,
        "generate": None,
    }
    raw["store"] = str(store)
    raw["models"]["tuned"] = tuned
    raw["precompute"] |= {"control": False, "logits": "last", **settings}
    config = AuditConfig.model_validate_json(json.dumps(raw))
    config._base_dir = demo.base_dir
    return open_job(config)


def over(job: Job, part: Part, store: Path | None = None) -> Job:
    """Return the job with one part of the corpus as its only suite."""
    suites = JobSuites((JobSuite("part", "chat", part.tokens, False),), Survey((), ()), None)
    return replace(job, suites=suites, store=Store(store) if store is not None else job.store)


def cut(tokens: TokenizedSuite, num_tokens: int, job: Job) -> list[Part]:
    """Return ROUNDS parts of the suite's prompts, repeated until `num_tokens` are reached."""
    lengths = np.diff(tokens.indptr_P1)
    order = np.resize(np.arange(len(lengths)), int(np.ceil(num_tokens / lengths.sum()) * len(lengths)))
    order = order[: int(np.searchsorted(np.cumsum(lengths[order]), num_tokens)) + 1]
    return [_part(tokens, chosen, job) for chosen in np.array_split(order, ROUNDS)]


def _part(tokens: TokenizedSuite, chosen: np.ndarray, job: Job) -> Part:
    lengths = np.diff(tokens.indptr_P1)[chosen]
    picked = np.concatenate([np.arange(tokens.indptr_P1[p], tokens.indptr_P1[p + 1]) for p in chosen])
    part = TokenizedSuite(
        suite=tokens.suite,
        ids_T=tokens.ids_T[picked],
        role_T=tokens.role_T[picked],
        mask_T=tokens.mask_T[picked],
        indptr_P1=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        num_truncated=0,
    )
    settings = job.config.precompute
    return Part(part, plan_batches(lengths, settings.tokens_per_batch, settings.tokens_per_segment), lengths)
