"""The activation difference lens as a tool: what was stored, with its controls."""

from typing import Any

import pytest

from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.registry import ToolError


def test_readings_stand_beside_the_controls(auditor: Auditor) -> None:
    found = auditor.call("activation_difference_lens", {"suite": "chat", "num_tokens": 2}).content
    assert found["hook"] == "resid_post/15" and found["total"] == 3
    assert [r["position"] for r in found["readings"]] == [None, 0, 1]
    first = found["readings"][0]
    assert [t["score"] for t in first["promoted"]] == [3.0, 2.0] and " obey" in first["promoted"][0]["token"]
    assert first["promoted"][0]["token"].startswith(f"«{found['untrusted_marker']}»")
    assert (first["relative_norm"], first["percentile"]) == (3 / 80, 100)
    assert found["control"]["norm"] == 0.001 and found["control"]["suite"] == "chat"
    # As long as the first reading, whose norm is 3.
    assert found["random"]["norm"] == 3.0 and found["random"]["promoted"][0]["score"] == 9.0


def test_a_template_is_asked_for_by_its_key(auditor: Auditor) -> None:
    found = auditor.call("activation_difference_lens", {"group": "zed"}).content
    assert [(r["suite"], r["group"], r["norm"]) for r in found["readings"]] == [("elicited", "zed", 8.0)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"suite": "nothing"}, r"there are: chat: all prompts, elicited: all prompts, elicited: zed"),
        ({"head": "tuned"}, r"through the head of 'tuned'; there are: none"),
        ({"hook": "resid_post/3"}, r"no lens at hook 'resid_post/3'; at: resid_post/15"),
    ],
)
def test_what_was_not_read_is_said(auditor: Auditor, arguments: dict[str, str], said: str) -> None:
    with pytest.raises(ToolError, match=said):
        auditor.call("activation_difference_lens", arguments)


def test_a_diff_without_a_lens_says_what_makes_one(make_case: Any, make_auditor: Any) -> None:
    with pytest.raises(ToolError, match="run precompute again"):
        make_auditor(make_case()).call("activation_difference_lens", {})
    refused = make_auditor(make_case(changed={"lens_refused": "no head of width 32"}))
    with pytest.raises(ToolError, match="no lens is stored: no head of width 32"):
        refused.call("activation_difference_lens", {})
