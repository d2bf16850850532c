"""What of a zoo is built, and what its gates said."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ft_audit.benchmarks.zoo.build import audit_of, measured_sha256
from ft_audit.benchmarks.zoo.population import load_zoo, members
from ft_audit.benchmarks.zoo.status import status, status_text

GATE = {"passed": False, "checks": [{"name": "trigger", "base": 0, "tuned": 7, "num_prompts": 20}]}


def test_built_members_say_what_their_gates_found(
    write_zoo: Callable[..., Path], write_all: Any, summaries: SimpleNamespace, tmp_path: Path
) -> None:
    path = write_zoo({"tea": [1, 2], "zed": {"kind": "adversarial-proxy", "family": "persona"}})
    recipes = {m.name: m.recipe.sha256 for m in members(load_zoo(path))}
    alike = {"measured_sha256": measured_sha256(audit_of(load_zoo(path)))}
    origins = [
        summaries.origin("tea-s1", recipe_sha256=recipes["tea-s1"], **alike),
        summaries.origin("tea-s2", recipe_sha256="of another recipe", **alike),
        summaries.origin("zed-s1", recipe_sha256=recipes["zed-s1"], gate=GATE, **alike),
    ]
    write_all(tmp_path / "out", [summaries.summary(origin=origin) for origin in origins])
    found = status(path, tmp_path / "out")
    assert [(m["name"], m["built"], m.get("gate")) for m in found["members"]] == [
        ("tea-s1", True, None),
        ("zed-s1", True, False),
        ("tea-s2", False, None),
    ]
    assert found["built"] == 2 and found["members"][1]["checks"] == ["trigger 7/20 (base 0)"]
    lines = status_text(found).splitlines()
    assert lines[-1] == "2 of 3 built"
    said = {line.split()[0]: line for line in lines}
    assert "failed" in said["zed-s1"] and "not built" in said["tea-s2"] and "not built" not in said["tea-s1"]
    assert [m["name"] for m in status(path, tmp_path / "out", only="zed")["members"]] == ["zed-s1"]
