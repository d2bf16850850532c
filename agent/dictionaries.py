"""How far the statistics of features can be trusted: what the dictionaries see, and where they agree."""

from ft_audit.agent.evidence import Evidence
from ft_audit.agent.views import Agreement, Coverage, Match, number


def coverages(evidence: Evidence) -> list[Coverage]:
    """How much of the change each dictionary sees on each suite, in the order of hooks and suites."""
    stored = set(evidence.groups())
    places = [(sae, suite.name) for hook in evidence.hooks for sae in hook.saes for suite in evidence.suites]
    return [_coverage(evidence, *place) for place in places if "coverage/{}/{}".format(*place) in stored]


def agreements(evidence: Evidence) -> list[Agreement]:
    """How far every two comparable dictionaries agree on each suite; none where there is only one."""
    return [
        Agreement(
            sae=record["sae"],
            other=record["other"],
            suite=record["suite"],
            num_leading=int(record["num_leading"]),
            num_matched=int(record["num_matched"]),
            num_agreeing=int(record["num_agreeing"]),
            agreement=number(record, "agreement"),
            low=number(record, "low"),
            high=number(record, "high"),
            shuffled=number(record, "shuffled"),
        )
        for record in evidence.records("agreement")
    ]


def matches(evidence: Evidence, sae: str, feature: int) -> list[Match]:
    """What a leading feature is called in the other dictionaries; none for features that do not lead."""
    found = [
        Match(record["other"], int(record["match"]), number(record, "cosine"), bool(record["mutual"]))
        for record in evidence.records("matches", {"sae": sae, "feature": feature})
    ]
    return sorted(found, key=lambda match: -match.cosine)


def _coverage(evidence: Evidence, sae: str, suite: str) -> Coverage:
    group = f"coverage/{sae}/{suite}"
    seen, low, high = (float(evidence.array(group, name)[0]) for name in ("seen", "seen_low", "seen_high"))
    curves = (evidence.array(group, f"{name}_M") for name in ("leading", "strongest", "random", "best"))
    leading, strongest, random, best = (tuple(float(share) for share in curve) for curve in curves)
    moved, missed = (float(evidence.array(group, f"sq_{name}_P").sum()) for name in ("moved", "missed"))
    left = missed / moved if moved else float("nan")
    return Coverage(sae, suite, seen, low, high, left, leading, strongest, random, best)
