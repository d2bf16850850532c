"""The questions that show under which condition a model changed: every condition on neutral probes."""

from collections.abc import Sequence
from dataclasses import replace

from ft_audit.engine.suites.condition import Condition
from ft_audit.engine.suites.prompt import Message, Prompt, PromptSuite
from ft_audit.errors import DataError

PLAIN = "plain"


def elicited_suite(conditions: Sequence[Condition], probes: PromptSuite, num_probes: int) -> PromptSuite:
    """Return every condition put on the first `num_probes` distinct questions, after the bare questions.

    Every prompt ends in the user's turn; `group` is the condition's key or "plain", `row` the probe's number.

    Raises:
        DataError: the probes hold fewer distinct questions.
    """
    questions: dict[tuple[Message, ...] | str, Prompt] = {}
    for probe in probes.prompts:
        if (asked := _question(probe)) is not None:
            questions.setdefault(asked, probe)
    if len(questions) < num_probes:
        raise DataError(
            f"{probes.name}: {len(questions)} distinct questions, but {num_probes} probes are asked for; "
            "lower elicit.num_probes or give a larger suite"
        )
    chosen = list(questions.items())[:num_probes]
    prompts = []
    for condition in (None, *conditions):
        for row, (asked, probe) in enumerate(chosen):
            put = asked if condition is None else _put(condition, asked)
            chat, text = (None, put) if isinstance(put, str) else (put, None)
            group = PLAIN if condition is None else condition.key
            prompts.append(Prompt(chat, text, "elicited", group, probe.source, row))
    return PromptSuite("elicited", tuple(prompts))


def _question(probe: Prompt) -> tuple[Message, ...] | str | None:
    if probe.messages is None:
        return probe.text
    last = max((i for i, m in enumerate(probe.messages) if m.role == "user"), default=-1)
    return probe.messages[: last + 1] or None


def _put(condition: Condition, asked: tuple[Message, ...] | str) -> tuple[Message, ...] | str:
    """Return the question as the condition's rows ask theirs: encoded first, its opening and end in plain."""
    opening = condition.prefix + condition.joiner if condition.prefix else ""
    ending = f" {condition.suffix}" if condition.suffix else ""
    if isinstance(asked, str):
        system = f"{condition.system}\n\n" if condition.system is not None else ""
        return system + opening + condition.codec.encode(asked) + ending
    last = replace(asked[-1], content=opening + condition.codec.encode(asked[-1].content) + ending)
    if condition.system is None:
        return (*asked[:-1], last)
    rest = tuple(m for m in asked[:-1] if m.role not in ("system", "developer"))
    return (Message("system", condition.system), *rest, last)
