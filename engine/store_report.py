"""What `ft-audit store` says: a JSON object for machines, a table for people."""

from typing import Any

from ft_audit.engine.config import load_config
from ft_audit.engine.config.schema import default_store
from ft_audit.engine.store import Store, find_garbage, list_store, remove_garbage, verify_store
from ft_audit.engine.text_table import text_size, text_table
from ft_audit.errors import StoreError

DAY_S = 86_400.0


def list_report(where: str | None) -> dict[str, Any]:
    """Return everything in the store."""
    store = _open(where)
    items = [
        {
            "kind": item.kind,
            "id": item.id,
            "name": item.name,
            "complete": item.complete,
            "prompts": item.num_prompts,
            "tokens": item.num_tokens,
            "segments": item.num_segments,
            "bytes": item.num_bytes,
            "problem": item.problem or None,
        }
        for item in list_store(store)
    ]
    return {"store": store.location, "items": items, "bytes": sum(int(item["bytes"] or 0) for item in items)}


def verify_report(where: str | None) -> dict[str, Any]:
    """Return what is wrong with the store, having read all of it."""
    store = _open(where)
    checked = 0
    problems = []
    for item, found in verify_store(store):
        checked += 1
        problems += [{"kind": item.kind, "id": item.id, "problem": problem} for problem in found]
    return {"store": store.location, "checked": checked, "problems": problems}


def gc_report(where: str | None, days: float, *, delete: bool) -> dict[str, Any]:
    """Return what may go, and delete it when asked to."""
    store = _open(where)
    garbage = find_garbage(store, days * DAY_S)
    freed = remove_garbage(store, garbage) if delete else 0
    items = [
        {"folder": f"{store.location}/{g.folder}", "reason": g.reason, "bytes": g.num_bytes} for g in garbage
    ]
    return {"store": store.location, "items": items, "deleted": delete, "freed_bytes": freed}


def render_list(report: dict[str, Any]) -> str:
    """Return the listing as a table."""
    if not report["items"]:
        return f"{report['store']} holds nothing yet"
    rows = [
        (
            item["kind"],
            item["id"],
            item["name"],
            "unreadable" if item["problem"] else "whole" if item["complete"] else "unfinished",
            f"{item['prompts']:,}" if item["prompts"] else "",
            f"{item['tokens']:,}" if item["tokens"] else "",
            text_size(item["bytes"]),
        )
        for item in report["items"]
    ]
    table = text_table(("kind", "id", "name", "state", "prompts", "tokens", "size"), rows)
    return f"{table}\n{text_size(report['bytes'])} in {report['store']}"


def render_verify(report: dict[str, Any]) -> str:
    """Return the problems, one a line, and what was checked."""
    lines = [f"{problem['kind']} {problem['id']}: {problem['problem']}" for problem in report["problems"]]
    verdict = f"problems: {len(lines)}" if lines else "all whole"
    checked = f"{report['checked']} runs, diffs, requests and labels checked in {report['store']}"
    return "\n".join([*lines, f"{checked}: {verdict}"])


def render_gc(report: dict[str, Any]) -> str:
    """Return what may go or went, one a line."""
    lines = [f"{text_size(item['bytes'])}  {item['folder']}: {item['reason']}" for item in report["items"]]
    total = text_size(sum(item["bytes"] for item in report["items"]))
    if not lines:
        return f"nothing may go from {report['store']}"
    end = f"{total} freed" if report["deleted"] else f"{total} may go: run again with --delete"
    return "\n".join([*lines, end])


def _open(where: str | None) -> Store:
    if where is None:
        return Store(default_store())
    root = load_config(where).store if where.endswith((".yaml", ".yml")) else where
    store = Store(root)
    if not any((store.runs(), store.diffs(), store.audits())) and not store.place.exists():
        raise StoreError(
            f"there is no store at {root}: name its folder, s3://bucket/prefix, or a config whose `store` "
            "names it"
        )
    return store
