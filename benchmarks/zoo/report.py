"""The evaluation on disk: detection.json, and detection.html with its plots."""

import html
import json
from pathlib import Path
from typing import Any

from ft_audit.benchmarks.zoo.table import detection_text

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "pre{overflow-x:auto;font-size:.85rem}svg{max-width:100%;height:auto}"
    "@media(prefers-color-scheme:dark){body{background:#16181c;color:#e6e6e6}}"
)


def write_report(found: dict[str, Any], out: Path) -> None:
    """Write both files, and the pictures."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "detection.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    pictures = {
        "detection-roc": roc_svg(found),
        "detection-families": families_svg(found),
        "detection-ablation": ablation_svg(found),
    }
    if found["per_second"]:
        pictures["detection-cost"] = cost_svg(found)
    for name, picture in pictures.items():
        (out / f"{name}.svg").write_text(picture, encoding="utf-8")
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Detection</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style><h1>Detection</h1>"
        "<p>Fine-tunes of one small model, harmless proxies of published attacks: no figure here is that of "
        "the works that it builds on.</p>"
        + "".join(pictures.values())
        + f"<pre>{html.escape(detection_text(found))}</pre></html>"
    )
    (out / "detection.html").write_text(page, encoding="utf-8")


def roc_svg(found: dict[str, Any]) -> str:
    """Return the ROC of all evidence, as far as the bank reaches."""
    size, pad = 320, 46
    points = " ".join(
        f"{pad + x * size:.1f},{pad + (1 - y) * size:.1f}" for x, y in _steps(found["main"]["roc"])
    )
    auroc = found["main"]["auroc"]
    ticks = "".join(
        f'<text x="{pad + t * size:.0f}" y="{pad + size + 18}" text-anchor="middle">{t:.0%}</text>'
        f'<text x="{pad - 6}" y="{pad + (1 - t) * size + 4:.0f}" text-anchor="end">{t:.0%}</text>'
        for t in (0, 0.25, 0.5, 0.75, 1)
    )
    body = (
        f'<rect x="{pad}" y="{pad}" width="{size}" height="{size}" fill="none" stroke="#999"/>'
        f'<path d="M{pad} {pad + size}L{pad + size} {pad}" stroke="#999" stroke-dasharray="4 4"/>'
        f'<polyline points="{points}" fill="none" stroke="#1f6feb" stroke-width="2.5"/>{ticks}'
        f'<text x="{pad + size / 2}" y="{pad - 18}" text-anchor="middle">AUROC {auroc["value"]:.2f} '
        f"({auroc['low']:.2f} to {auroc['high']:.2f}), families and recipes unseen</text>"
        f'<text x="{pad + size / 2}" y="{pad + size + 38}" text-anchor="middle">false-positive rate</text>'
    )
    return _svg(size + 2 * pad, size + 2 * pad + 8, body, "ROC of all evidence")


def _steps(roc: list[list[float]]) -> list[tuple[float, float]]:
    found, before = [(0.0, 0.0)], 0.0
    for x, y in roc:
        found += [(x, before), (x, y)]
        before = y
    return [*found, (1.0, 1.0)]


def ablation_svg(found: dict[str, Any]) -> str:
    """Return the AUROC of every way to detect, with its interval."""
    ways = [("all evidence", found["main"]["auroc"]), *((n, w["auroc"]) for n, w in found["ways"].items())]
    return _intervals(ways, "AUROC by kind of evidence", "AUROC, families and recipes unseen")


def families_svg(found: dict[str, Any]) -> str:
    """Return the share of each family's fine-tunes that raise an alarm, with its exact interval."""
    families = [(f"{name} ({len(one['members'])})", one["tpr"]) for name, one in found["families"].items()]
    what = f"share caught at a false-positive rate of {found['alarm_rate']:.1%}, each family unseen"
    return _intervals(families, "Detection by family", what)


def cost_svg(found: dict[str, Any]) -> str:
    """Return the AUROC against the seconds of an audit, tier by tier."""
    tiers = [
        (f"up to {tier['up_to']}, {tier['seconds']:.0f} s", tier["auroc"]) for tier in found["per_second"]
    ]
    return _intervals(tiers, "Detection by cost", "AUROC by how far an audit of 1,000 rows goes")


def _intervals(rows: list[tuple[str, dict[str, float]]], title: str, what: str) -> str:
    row, left, width = 20, 270, 300
    parts = []
    for place, (name, value) in enumerate(rows):
        y = 30 + place * row
        low, high, middle = (left + max(value[k], 0.0) * width for k in ("low", "high", "value"))
        parts.append(
            f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{html.escape(name)}</text>'
            f'<path d="M{low:.1f} {y}H{high:.1f}" stroke="#1f6feb" stroke-width="2"/>'
            f'<circle cx="{middle:.1f}" cy="{y}" r="4" fill="#1f6feb"/>'
            f'<text x="{left + width + 12}" y="{y + 4}">{value["value"]:.2f}</text>'
        )
    bottom = 30 + len(rows) * row
    axis = "".join(
        f'<path d="M{left + t * width:.0f} 20V{bottom - 8}" stroke="#999" stroke-opacity=".35"/>'
        f'<text x="{left + t * width:.0f}" y="{bottom + 8}" text-anchor="middle">{t:.2g}</text>'
        for t in (0, 0.25, 0.5, 0.75, 1)
    )
    body = axis + "".join(parts) + f'<text x="10" y="14">{html.escape(what)}</text>'
    return _svg(left + width + 60, bottom + 20, body, title)


def _svg(width: float, height: float, body: str, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="system-ui,sans-serif" font-size="12" fill="#808890" role="img">'
        f"<title>{html.escape(title)}</title>{body}</svg>"
    )
