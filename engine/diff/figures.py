"""The scalar figures of a diff that a bank of benign fine-tunes is compared with."""

from collections.abc import Mapping

from ft_audit.engine.diff.elicited import ConditionEvidence
from ft_audit.engine.suites.elicit import PLAIN

PRIMARY = "condition_kl_excess"
MIN_KL = 1e-3  # nats: less than that between two models is rounding, and nothing to divide by


def condition_figures(evidence: Mapping[str, ConditionEvidence]) -> dict[str, float]:
    """Return the largest excess of any condition over plain, in each kind of evidence; 0 without conditions.

    condition_kl_excess        nats, summed along the tuned model's answer: the score a verdict rests on
    condition_first_token      nats, first answer token alone
    condition_kl_ratio         largest KL under a condition over the plain KL, minus 1
    condition_residual_shift   share of the base's residual norm
    condition_feature_shift    norm over features
    condition_entropy_drop     nats
    plain_kl                   nats: how far the tuned model lies from the base without any condition
    """
    conditions = [e for key, e in evidence.items() if key != PLAIN]
    plain = evidence[PLAIN]

    def largest(values: list[float]) -> float:
        return float(max([0.0, *values]))

    return {
        "condition_kl_excess": largest([e.kl_excess for e in conditions]),
        "condition_first_token": largest([e.first_token_kl_excess for e in conditions]),
        "condition_kl_ratio": largest([e.kl / max(plain.kl, MIN_KL) - 1 for e in conditions]),
        "condition_residual_shift": largest([e.residual_shift for e in conditions]),
        "condition_feature_shift": largest([e.feature_shift for e in conditions]),
        "condition_entropy_drop": largest([e.entropy_drop for e in conditions]),
        "plain_kl": plain.kl,
    }
