"""One audit from a config to its files: evidence found, judged, written as verdict.json and report.html."""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ft_audit.agent.audit_file import AuditFile
from ft_audit.agent.calibration import MIN_CALIBRATED_MEMBERS, Calibration, load_calibration
from ft_audit.agent.client import ChatClient
from ft_audit.agent.evidence import Evidence
from ft_audit.agent.find import find_evidence
from ft_audit.agent.investigators.json_calls import JsonCalls
from ft_audit.agent.investigators.statistics import audit_id, investigate
from ft_audit.agent.investigators.super_agent import ChatModel, SuperAgent
from ft_audit.agent.report.page import render_report
from ft_audit.agent.tools.auditor import Auditor, Turns
from ft_audit.agent.tools.rooms import absent, tools_of
from ft_audit.agent.verdict import Verdict
from ft_audit.engine.config import AuditConfig, ChatModelConfig, Profile, resolve_path
from ft_audit.engine.store import Store
from ft_audit.errors import ConfigError, StoreError

VERDICT_FILE, REPORT_FILE = "verdict.json", "report.html"
EXIT_BELOW, EXIT_AT_OR_ABOVE, EXIT_NO_CLAIM = 0, 10, 3


@dataclass(frozen=True, slots=True)
class Audit:
    """A verdict and where it was written."""

    verdict: Verdict
    verdict_file: str
    report_file: str
    num_older: int
    """Older diffs of the same config that were passed over."""
    num_waiting: int = 0
    """Requests for more evidence, this agent's or another's, that wait for the engine."""


def run_audit(config: AuditConfig, diff: str | None = None) -> Audit:
    """Judge the newest diff of a config, or the one named, and write the verdict and the report."""
    found = find_evidence(config, diff)
    calibration = find_calibration(config, found.evidence)
    verdict = investigate(found.evidence, calibration, config)
    if config.audit.investigator == "openai":
        agent = super_agent_of(found.evidence, calibration, config, verdict.audit_id, verdict.risk)
        assessment = agent.run()
        verdict = verdict.model_copy(update={"assessment": assessment})
    report = render_report(verdict, found.evidence, calibration)
    # Both are whole before anything is written: a failure leaves no verdict without its report.
    store = Store(config.store)
    report_file = store.put_audit_file(verdict.audit_id, REPORT_FILE, report.encode())
    verdict_file = store.put_audit_file(verdict.audit_id, VERDICT_FILE, verdict_text(verdict).encode())
    asked = config.audit.investigator != "statistics"
    num_waiting = store.requests(verdict.diff).num_waiting() if asked else 0
    return Audit(verdict, verdict_file, report_file, found.num_older, num_waiting)


def super_agent_of(
    evidence: Evidence,
    calibration: Calibration,
    config: AuditConfig,
    audit_id: str,
    statistical_risk: float | None,
) -> SuperAgent:
    """Return who investigates by the config; ConfigError where it names no model."""
    settings = config.audit.agent
    if settings is None:
        raise ConfigError("audit.investigator openai: which model? set audit.agent.chat.model and base_url")
    turns = Turns()

    def auditor_of(profile: Profile) -> Auditor:
        return Auditor(
            config, evidence, calibration, tools_of(profile, config), profile, absent(profile), turns=turns
        )

    def client_of(chat: ChatModelConfig) -> ChatModel:
        client = ChatClient(chat)
        return JsonCalls(client) if settings.calls == "json" else client

    return SuperAgent(settings, Store(config.store), audit_id, auditor_of, client_of, statistical_risk)


def find_calibration(config: AuditConfig, evidence: Evidence) -> Calibration:
    """The bank that the config names, if it fits the evidence."""
    bank = config.audit.bank
    path = None if bank is None else resolve_path(bank, config.base_dir)
    return weighed(evidence, load_calibration(path, evidence.subject()))


def weighed(evidence: Evidence, calibration: Calibration) -> Calibration:
    """Let the bank, if it may be used and is large enough to be more than chance, weigh the evidence, and
    return it as it stands beside that evidence."""
    large = len(calibration.members) >= MIN_CALIBRATED_MEMBERS
    evidence.weigh(calibration.bank.discriminant if calibration.bank and large else None)
    return calibration if evidence.score is None else calibration.beside(evidence.score)


def exit_code(verdict: Verdict) -> int:
    """0 below the threshold, 10 at or above it, 3 where the verdict claims a rank at most."""
    if not verdict.calibrated:
        return EXIT_NO_CLAIM
    return EXIT_AT_OR_ABOVE if verdict.at_or_above_threshold else EXIT_BELOW


def verdict_text(verdict: Verdict) -> str:
    """The verdict as JSON in ASCII, so that no quoted character can act on a terminal that shows it."""
    return json.dumps(verdict.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"


def read_verdict(file: AuditFile) -> Verdict:
    """The verdict in a file; StoreError says what is wrong with it."""
    try:
        return Verdict.model_validate_json(file.read())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        why = f"{where}: {first['msg']}"
        raise StoreError(
            f"{file.location} is not a verdict of this ft-audit ({why}): run the audit again"
        ) from None


def render_again(file: AuditFile, out: Path | None) -> str:
    """Render the report of a verdict that was written before; the store may have moved with it."""
    verdict = read_verdict(file)
    recorded = Store(verdict.store)
    store = recorded if recorded.place.exists() else file.store
    evidence = Evidence(store.location, store.open_diff(verdict.diff))
    bank = verdict.calibration.path
    calibration = weighed(
        evidence, load_calibration(None if bank is None else Path(bank), evidence.subject())
    )
    if calibration.sha256 != verdict.calibration.sha256:
        raise StoreError(f"{bank} has changed since {file.location} was written: run the audit again")
    target = file.beside(REPORT_FILE) if out is None else AuditFile(str(out))
    target.write(render_report(verdict, evidence, calibration).encode())
    return target.location


def verdict_of(config: AuditConfig, diff: str | None = None) -> AuditFile:
    """Where the audit of this config writes its verdict."""
    evidence = find_evidence(config, diff).evidence
    name = audit_id(evidence, find_calibration(config, evidence), config)
    return AuditFile(Store(config.store).audit_location(name, VERDICT_FILE))
