"""One audit from models to verdict: precompute and judgement in one call."""

import time
from collections.abc import Sequence
from typing import Any

from ft_audit.agent.audit import exit_code, run_audit
from ft_audit.agent.terminal import audit_text
from ft_audit.engine.config import load_config
from ft_audit.engine.precompute import run_precompute


def audit_of_config(
    ref: str, suites: Sequence[str], overrides: Sequence[str], *, progress: bool = True
) -> tuple[dict[str, Any], int, str]:
    """Return what an audit found and took, its exit code and its text for a terminal.

    `suites` take the place of the config's; relative ones are read as the config's own are.

    Raises:
        UserError: what `precompute` and `audit` raise.
    """
    chosen = [f"suites=[{', '.join(suites)}]"] if suites else []
    config = load_config(ref, [*overrides, *chosen])
    started = time.perf_counter()
    computed = run_precompute(config, progress=progress)
    middle = time.perf_counter()
    audit = run_audit(config)
    seconds = {"precompute": middle - started, "audit": time.perf_counter() - middle}
    verdict = audit.verdict.model_dump(mode="json", exclude={"config", "explanation"})
    found = {
        "verdict": verdict,
        "exit_code": exit_code(audit.verdict),
        "paths": {"verdict": audit.verdict_file, "report": audit.report_file},
        "precompute": computed,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }
    return found, exit_code(audit.verdict), audit_text(audit)
