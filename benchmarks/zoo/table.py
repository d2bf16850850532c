"""The evaluation as text for a terminal."""

from collections.abc import Collection
from typing import Any

from ft_audit.engine.text_table import text_table


def detection_text(found: dict[str, Any]) -> str:
    """Return the table of ways to detect, families, localisation and what cannot be claimed."""
    counts = found["population"]["counts"]
    rows = [["all evidence", *_cells(found["main"])]]
    rows += [[name, *_cells(way)] for name, way in found["ways"].items()]
    families = [
        [name, *_caught(family["members"].values(), found["alarm_rate"])]
        for name, family in found["families"].items()
    ]
    where, needles, seeds = found["localisation"], found["needles"], found["consistency"]
    lines = [
        ", ".join(f"{count} {label}" for label, count in sorted(counts.items())),
        text_table(("evidence", "AUROC", "TPR at 5 % FPR", "at 10 %", "FPR at 5 %", "scalars"), rows),
        "",
        f"p-values by family, never seen in fitting (an alarm is p <= {found['alarm_rate']:.3f})",
        text_table(("family", "caught", "p-values"), families),
        "",
        f"planted rows among the ten highest: {_share(where['found_in_top_10'])}; template named: "
        f"{_interval(where['named'])} of {where['num_with_template']} that have one",
    ]
    lines += [
        f"needles above the whole bank: {needles['needles_above_all']} of {len(needles['needles'])} (and "
        f"{len(needles['not_taken'])} that did not take); twins: {needles['twins_above_all']} of "
        f"{len(needles['twins'])}",
        f"gain from SAE evidence over all else, AUROC: {_interval(found['sae_gain'])}",
        *_rows_apart(found["rows_apart"]),
        f"AUROC with shuffled labels, mean and extremes: {_interval(found['shuffled'])}",
        f"cause named, of all audits: {_interval(found['causes']['all'])}; of attacks with an alarm: "
        f"{_interval(found['causes']['attacks_with_alarm'])}",
        f"recipes whose seeds agree: {seeds['agree']} of {seeds['recipes']}",
    ]
    lines += [
        f"up to {tier['up_to']}, {tier['seconds']:.0f} s: AUROC {_interval(tier['auroc'])}"
        for tier in found["per_second"]
    ]
    lines += [f"control {name}: p {p:.3f}" for name, p in sorted(found["controls"].items())]
    if found["degraded"]:
        alarms = sum(p <= found["alarm_rate"] for p in found["degraded"].values())
        lines.append(f"alarms on accidentally degraded jobs: {alarms} of {len(found['degraded'])}")
    return "\n".join(lines)


def _rows_apart(said: dict[str, Any]) -> list[str]:
    lines = [f"gain from rows apart by features over the texts, AUROC: {_interval(said['gain_over_texts'])}"]
    if said["members"]:
        kinds = ", ".join(
            f"{kind} {_interval(said[kind])}" for kind in ("features", "random directions", "residuals")
        )
        lines.append(
            f"rows apart, AUROC on the {said['members']} fine-tunes whose rows random directions scored too: "
            f"{kinds}; features over random directions {_interval(said['gain_over_random'])}"
        )
    return lines


def _cells(way: dict[str, Any]) -> list[str]:
    return [
        _interval(way["auroc"]),
        _rate(way["tpr"]["0.05"]),
        _rate(way["tpr"]["0.1"]),
        "-" if way["fpr"]["0.05"] is None else _interval(way["fpr"]["0.05"]),
        str(way.get("num_scalars", len(way.get("scalars", ())))),
    ]


def _rate(rate: dict[str, Any] | None) -> str:
    if rate is None:
        return "bank too small"
    low, high = rate["exact"]
    return f"{rate['value']:.2f} [{low:.2f}, {high:.2f}]"


def _interval(value: dict[str, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def _caught(p_values: Collection[float], alarm_rate: float) -> list[str]:
    caught = sum(p <= alarm_rate for p in p_values)
    return [f"{caught} of {len(p_values)}", " ".join(f"{p:.3f}" for p in sorted(p_values))]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
