"""Prompts and training rows: read from every format people have, tagged, hashed and mined for conditions."""

from ft_audit.engine.suites.condition import Condition, most_specific
from ft_audit.engine.suites.conditions import Survey, mine_conditions, survey_conditions
from ft_audit.engine.suites.data_baseline import row_baseline
from ft_audit.engine.suites.elicit import elicited_suite
from ft_audit.engine.suites.load import SkipCount, iter_rows, load_suite
from ft_audit.engine.suites.prompt import Message, Prompt, PromptSuite, ToolCall

__all__ = [
    "Condition",
    "Message",
    "Prompt",
    "PromptSuite",
    "SkipCount",
    "Survey",
    "ToolCall",
    "elicited_suite",
    "iter_rows",
    "load_suite",
    "mine_conditions",
    "most_specific",
    "row_baseline",
    "survey_conditions",
]
