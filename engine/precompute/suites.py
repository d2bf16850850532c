"""The suites of one job: what the user named, the training set, and its conditions on neutral probes."""

from dataclasses import dataclass
from itertools import count
from typing import Literal

from transformers import PreTrainedTokenizerBase

from ft_audit.engine.config import AuditConfig
from ft_audit.engine.suites.conditions import Survey, survey_conditions
from ft_audit.engine.suites.elicit import elicited_suite
from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.suites.prompt import PromptSuite
from ft_audit.engine.suites.training_set import load_training_set
from ft_audit.engine.tokens.tokenize import TokenizedSuite, tokenize_suite

SuiteRole = Literal["chat", "train", "elicited"]
RESERVED = ("train", "elicited")  # names of the suites that come from the data set


@dataclass(frozen=True, slots=True)
class JobSuite:
    """One tokenised suite; `to_the_end` suites also leave next-token evidence."""

    name: str
    role: SuiteRole
    tokens: TokenizedSuite
    to_the_end: bool

    @property
    def num_tokens(self) -> int:
        """Real tokens, special ones included."""
        return len(self.tokens.ids_T)


@dataclass(frozen=True, slots=True)
class JobSuites:
    """Every suite of a job, the conditions mined from the training set, and the suite of the control."""

    suites: tuple[JobSuite, ...]
    survey: Survey
    control: JobSuite | None

    @property
    def train(self) -> JobSuite | None:
        """The uploaded training set, if there is one."""
        return next((s for s in self.suites if s.role == "train"), None)


def load_dataset(config: AuditConfig) -> PromptSuite | None:
    """Return the uploaded training set, or the rows of a recipe that stands for it."""
    if config.dataset is None:
        return None
    return load_training_set(config.dataset.path, config.base_dir, split=config.dataset.split)


def open_suites(config: AuditConfig, tokenizer: PreTrainedTokenizerBase, longest: int) -> JobSuites:
    """Return the job's suites, tokenised with the base's tokenizer.

    Prompts are cut at `precompute.max_prompt_tokens`, elicited ones only at `longest`, what the model can
    read: a question that lost its end would elicit nothing, and a long system prompt could hide there.

    Raises:
        DataError: an empty suite or a malformed row, named with its line.
    """
    settings = config.precompute
    found: list[JobSuite] = []

    def add(name: str, role: SuiteRole, suite: PromptSuite, to_the_end: bool) -> None:
        limit = longest if role == "elicited" else min(settings.max_prompt_tokens, longest)
        # A question that lost its beginning would elicit nothing either.
        window = settings.long_prompts == "window" and role != "elicited"
        tokens = tokenize_suite(suite, tokenizer, limit, window=window)
        found.append(JobSuite(name, role, tokens, to_the_end))

    for ref in config.suites:
        suite = load_suite(ref, config.base_dir)
        add(_free_name(suite.name, {s.name for s in found}), "chat", suite, False)
    dataset = load_dataset(config)
    survey = Survey((), ())
    if dataset is not None:
        add("train", "train", dataset, False)
    if config.elicit is not None:
        if dataset is not None:
            survey = survey_conditions(dataset.prompts, config.elicit.min_rows, config.elicit.max_conditions)
        probes = load_suite(config.elicit.probes, config.base_dir)
        num_probes = min(config.elicit.num_probes, len(probes.prompts))
        add("elicited", "elicited", elicited_suite(survey.kept, probes, num_probes), True)
    return JobSuites(tuple(found), survey, found[0] if settings.control else None)


def _free_name(name: str, taken: set[str]) -> str:
    """Return the name, numbered if another suite has it; the data set's own suites have theirs for good."""
    candidates = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(free for free in candidates if free not in {*taken, *RESERVED})
