"""The investigator that needs no model and no key: it ranks what was measured among benign fine-tunes."""

from ft_audit import __version__
from ft_audit.agent.calibration import Calibration, risk_of, status_of
from ft_audit.agent.cost import cost_of
from ft_audit.agent.evidence import Evidence
from ft_audit.agent.investigators.findings import collect_findings
from ft_audit.agent.investigators.wording import explain, headline
from ft_audit.agent.query import ask
from ft_audit.agent.verdict import Calibrator, Figure, Model, Part, Verdict
from ft_audit.engine.config import AuditConfig, config_json
from ft_audit.engine.store import content_id

PARTS = 12
"""Scalars of a score that a verdict names."""


def investigate(evidence: Evidence, calibration: Calibration, config: AuditConfig) -> Verdict:
    """The verdict on one diff: the primary figure's rank as the risk, and what stands out beside it."""
    figures = rank_figures(evidence, calibration)
    standing = next((figure.standing for figure in figures if figure.primary), None)
    status = status_of(standing)
    risk = None if standing is None else risk_of(standing)
    threshold = config.audit.threshold
    at_or_above = None if risk is None else risk >= threshold
    findings = collect_findings(evidence, calibration, config.audit.top)
    no_finding = not at_or_above and all(finding.level == "measured_change" for finding in findings)
    return Verdict(
        schema_version=1,
        audit_id=audit_id(evidence, calibration, config),
        name=config.name,
        ft_audit_version=__version__,
        investigator=config.audit.investigator,
        store=evidence.store,
        diff=evidence.diff_id,
        base=_model(evidence, "base"),
        tuned=_model(evidence, "tuned"),
        declared_purpose=config.declared_purpose,
        status=status,
        calibrated=status == "calibrated",
        risk=risk,
        threshold=threshold,
        at_or_above_threshold=at_or_above,
        p_value=None if standing is None else standing.p_value,
        primary=evidence.primary,
        no_finding=no_finding,
        headline=headline(calibration, standing, no_finding),
        explanation=explain(evidence, calibration, standing, status, no_finding),
        findings=findings,
        figures=figures,
        parts=[
            Part(name=part.name, units=part.units, weight=part.weight)
            for part in evidence.contributions[:PARTS]
        ],
        calibration=Calibrator(
            path=calibration.path,
            sha256=calibration.sha256,
            num_members=len(calibration.members),
            num_personas=sum(member.kind == "persona" for member in calibration.members),
            refusal=calibration.refusal,
        ),
        cost=cost_of(evidence.ledger(), config.audit.price_per_hour),
        config=config_json(config),
    )


def rank_figures(evidence: Evidence, calibration: Calibration) -> list[Figure]:
    """Every figure with its standing, the primary one first, then from the most to the least unusual."""
    figures = [
        Figure(
            name=name,
            value=value,
            primary=name == evidence.primary,
            standing=calibration.standing(name, value),
            evidence=ask(evidence, "summary", f"figures/{name}"),
        )
        for name, value in evidence.figures.items()
    ]
    return sorted(figures, key=_order)


def audit_id(evidence: Evidence, calibration: Calibration, config: AuditConfig) -> str:
    """The hash of everything that determines a verdict."""
    identity = {
        "diff": evidence.diff_id,
        "bank": calibration.sha256,
        "investigator": config.audit.investigator,
        "config": config_json(config),
        "ft_audit": __version__,
    }
    # The statistics read no requested evidence; whoever asks with tools does, and begins anew with more.
    if config.audit.investigator != "statistics" and (answered := evidence.answered_requests()):
        identity["requests"] = answered
    return content_id(identity)


def _model(evidence: Evidence, side: str) -> Model:
    entry = evidence.summary["models"][side]
    return Model(name=str(entry["ref"]), sha256=str(entry["sha256"]))


def _order(figure: Figure) -> tuple[bool, float, float, str]:
    standing = figure.standing
    if standing is None or figure.value is None:
        return (not figure.primary, 2.0, 0.0, figure.name)
    spread = standing.bank_max - standing.bank_min or 1.0
    return (
        not figure.primary,
        standing.p_value,
        -(figure.value - standing.bank_median) / spread,
        figure.name,
    )
