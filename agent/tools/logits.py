"""Where the two models' next-token distributions part."""

from typing import Annotated

import numpy as np
from pydantic import Field

from ft_audit.agent.tools.answer import Answer, Untrusted, finite
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.overview import Limit
from ft_audit.agent.tools.registry import ToolError, tool

GROUP = "logits/"


class MovedToken(Answer):
    token: Untrusted = Field(description="What it stands for.")
    count: int = Field(description="Positions at which it is among the few that moved most in probability.")


class Diverging(Answer):
    prompt: int = Field(description="Its place in the suite.")
    kl_max: float | None = Field(description="The largest KL(tuned || base) at one of its tokens, in nats.")
    preview: Untrusted | None = Field(description="How it begins.")


class LogitFindings(Answer):
    suite: str = Field(description="The suite.")
    num_tokens: int = Field(description="Tokens at which the two were compared.")
    kl_mean: float | None = Field(description="Mean KL(tuned || base) a token, in nats.")
    kl_p99: float | None = Field(description="Its 99th percentile over tokens.")
    kl_max: float | None = Field(description="The largest.")
    most_diverging: list[Diverging] = Field(description="The prompts with the largest KL at one token.")
    raised: list[MovedToken] = Field(description="Tokens that the fine-tune made likelier most often.")
    lowered: list[MovedToken] = Field(description="Tokens that it made less likely most often.")


@tool("logits")
def logit_findings(
    auditor: Auditor,
    suite: Annotated[str, Field(description="A suite's name, as health lists them.", max_length=100)],
    limit: Limit = 10,
) -> LogitFindings:
    """Say how far the next-token distributions of base and tuned part on a suite, and where most."""
    evidence = auditor.evidence
    group = GROUP + suite
    if group not in evidence.groups():
        known = [name.removeprefix(GROUP) for name in evidence.groups() if name.startswith(GROUP)]
        raise ToolError(f"no distributions were compared on {suite!r}; on: {', '.join(known) or 'no suite'}")

    def one(name: str) -> float:
        return float(np.asarray(evidence.array(group, name)).ravel()[0])

    peak_P = np.nan_to_num(evidence.array(group, "kl_max_P").astype(np.float64), nan=-1.0)
    columns = evidence.prompts_of(suite)
    previews = dict(zip(columns["prompt"], columns["text_preview"], strict=True))
    leading = np.argsort(-peak_P, kind="stable")[:limit].tolist()
    return LogitFindings(
        suite=suite,
        num_tokens=int(one("tokens")),
        kl_mean=finite(one("kl_mean")),
        kl_p99=finite(one("kl_p99")),
        kl_max=finite(one("kl_max")),
        most_diverging=[
            Diverging(
                prompt=p,
                kl_max=finite(float(peak_P[p])),
                preview=Untrusted(previews[p]) if p in previews else None,
            )
            for p in leading
        ],
        raised=_moved(auditor, group, "raised_V", limit),
        lowered=_moved(auditor, group, "lowered_V", limit),
    )


def _moved(auditor: Auditor, group: str, name: str, limit: int) -> list[MovedToken]:
    count_V = auditor.evidence.array(group, name)
    leading = [int(i) for i in np.argsort(-count_V, kind="stable")[:limit] if count_V[i] > 0]
    words = auditor.evidence.words(leading)
    return [
        MovedToken(token=Untrusted(word), count=int(count_V[i]))
        for i, word in zip(leading, words, strict=True)
    ]
