"""Asks again for everything that a verdict cites, and compares."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ft_audit.agent.audit import weighed
from ft_audit.agent.calibration import load_calibration
from ft_audit.agent.evidence import Evidence
from ft_audit.agent.query import describe, execute
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.rooms import absent, tools_of
from ft_audit.agent.verdict import Verdict
from ft_audit.engine.config import AuditConfig, Profile
from ft_audit.engine.store import Store
from ft_audit.errors import StoreError, UserError

PROFILE: TypeAdapter[Profile] = TypeAdapter(Profile)


class Check(BaseModel):
    """One reading of a verdict, read again."""

    model_config = ConfigDict(extra="forbid")

    what: str = Field(description="The reading, in words.")
    holds: bool = Field(description="Whether it gives what the verdict says that it gave.")
    now: str = Field(
        description="What it gives now, where that is something else; the reason where it fails."
    )


def verify(verdict: Verdict, auditor: Auditor) -> list[Check]:
    """Return a check of every reading that the verdict's figures, findings and citations rest on.

    The auditor is one over the verdict's diff, with the tools that its agent had.
    """
    queries = [figure.evidence for figure in verdict.figures]
    queries += [query for finding in verdict.findings for query in finding.evidence]
    found = []
    for query in queries:
        try:
            now = execute(auditor.evidence, query)
        except (UserError, KeyError) as error:
            found.append(Check(what=describe(query), holds=False, now=str(error)))
            continue
        holds = now == query.value
        found.append(Check(what=describe(query), holds=holds, now="" if holds else repr(now)))
    for citation in verdict.assessment.citations if verdict.assessment else ():
        what = f"{citation.evidence_id}: {citation.tool}"
        tool = auditor.by_name.get(citation.tool)
        if tool is not None and tool.writes:
            # Not even asked: a verdict may come from anywhere, and checking one changes nothing.
            found.append(Check(what=what, holds=False, now="a tool that writes gives no evidence"))
            continue
        try:
            now_said = auditor.call(citation.tool, citation.arguments).citation
        except UserError as error:
            found.append(Check(what=what, holds=False, now=str(error)))
            continue
        holds = (now_said.sha256, now_said.evidence_id) == (citation.sha256, citation.evidence_id)
        found.append(Check(what=what, holds=holds, now="" if holds else "another answer"))
    return found


def auditor_of(verdict: Verdict) -> Auditor:
    """Return an auditor over what a verdict was drawn from.

    Raises:
        StoreError: the store no longer has the diff, or the bank has changed since.
    """
    evidence = Evidence(verdict.store, Store(verdict.store).open_diff(verdict.diff))
    bank = verdict.calibration.path
    calibration = weighed(
        evidence, load_calibration(None if bank is None else Path(bank), evidence.subject())
    )
    if calibration.sha256 != verdict.calibration.sha256:
        raise StoreError(f"{bank} has changed since the verdict was written: run the audit again")
    profile = PROFILE.validate_python(verdict.assessment.profile if verdict.assessment else "full")
    config = AuditConfig.model_validate_json(json.dumps(verdict.config))
    return Auditor(config, evidence, calibration, tools_of(profile), profile, absent(profile))
