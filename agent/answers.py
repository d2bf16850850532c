"""What base and tuned answered to the elicited probes, side by side."""

from ft_audit.agent.encodings import read
from ft_audit.agent.evidence import Evidence
from ft_audit.agent.views import Answer, text

PLAIN = "plain"


def answers(evidence: Evidence) -> list[Answer]:
    """The first sample of base and tuned to each elicited probe, in the table's order.

    Where the probe was asked in an encoding, what the answer says in it stands behind it.
    """
    asked = _probes(evidence)
    codecs = {record["key"]: record.get("codec") for record in evidence.records("conditions")}
    pairs: dict[tuple[str, int], dict[str, str]] = {}
    for record in evidence.records("generations", {"sample": 0}):
        if record["condition"] is None:
            continue  # a behaviour suite's
        key = (text(record, "condition"), int(record["row"]))
        said = read(text(record, "text"), codecs.get(key[0]))
        pairs.setdefault(key, {})[record["side"]] = said
    return [
        Answer(condition, asked.get(probe, f"probe {probe}"), sides.get("base"), sides.get("tuned"))
        for (condition, probe), sides in pairs.items()
    ]


def _probes(evidence: Evidence) -> dict[int, str]:
    elicited = [suite.name for suite in evidence.suites if suite.role == "elicited"]
    plain = {"suite": elicited[0] if elicited else None, "group": PLAIN}
    return {
        int(record["row"]): text(record, "text_preview").removeprefix("user: ")
        for record in evidence.records("prompts", plain)
    }
