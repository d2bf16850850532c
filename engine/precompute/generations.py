"""Paired answers of base and tuned, under conditions and to behaviour suites, and what each makes of both."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from ft_audit.engine.config import AuditConfig
from ft_audit.engine.config.schema import GenerateConfig
from ft_audit.engine.models.load import DTYPES
from ft_audit.engine.precompute.answers import answer_logprobs
from ft_audit.engine.precompute.models import UNLIMITED, ModelPair
from ft_audit.engine.precompute.suites import JobSuites
from ft_audit.engine.runners.generate import Answer, end_ids, generate_answers
from ft_audit.engine.runners.vllm import VllmGenerator, open_vllm_generator
from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.suites.prompt import Prompt, PromptSuite
from ft_audit.engine.tokens.tokenize import TokenizedSuite, tokenize_suite
from ft_audit.errors import DataError

GENERATIONS_SCHEMA = pa.schema(
    [
        ("suite", pa.string()),
        ("condition", pa.string()),  # of an elicited prompt; null in a behaviour suite
        ("group", pa.string()),
        ("prompt", pa.int64()),  # its place in the suite
        ("row", pa.int64()),  # of the probe, or of the suite's file
        ("sample", pa.int64()),
        ("side", pa.string()),
        ("text", pa.string()),
        ("num_tokens", pa.int64()),
        ("mean_logprob", pa.float64()),  # nats a token, under the side's own model
        ("finish", pa.string()),  # "stop" at an end token, or "length"
        ("num_read", pa.int64()),  # tokens that both models know; the next two are sums over them
        ("logprob_base", pa.float64()),
        ("logprob_tuned", pa.float64()),
    ]
)


class TableWriter(Protocol):
    """What takes the table: a diff's writer, or whatever carries it there."""

    def put_table(self, name: str, table: pa.Table) -> None: ...


class _Asked(NamedTuple):
    """One prompt that both models answer."""

    suite: str
    condition: str | None
    group: str
    prompt: int
    row: int
    ids: list[int]


def put_generations(writer: TableWriter, config: AuditConfig, models: ModelPair, suites: JobSuites) -> None:
    """Write the table `generations`: answers to the first probes of every condition and plain, and to suites.

    Both sides draw with the same numbers, so that where they agree their samples agree. Each answer's
    `logprob_base` and `logprob_tuned` say how likely each model finds it, whichever gave it.

    Raises:
        DataError: a behaviour suite that `behaviour_suites` refuses.
    """
    settings = config.generate
    if settings is None:
        return
    asked = _elicited(suites, settings.num_probes)
    for tokens in behaviour_suites(config, models):
        asked += _prompts_of(tokens)
    if not asked:
        return
    tuned = _answers_of("tuned", models, settings, asked)
    base = _answers_of("base", models, settings, asked)
    paired = [row for pair in zip(base, tuned, strict=True) for row in pair]
    writer.put_table("generations", pa.Table.from_pylist(paired, schema=GENERATIONS_SCHEMA))


def behaviour_suites(config: AuditConfig, models: ModelPair) -> list[TokenizedSuite]:
    """Return the behaviour suites that a config asks answers to, every prompt up to its last question.

    A second suite of a name gets a number.

    Raises:
        DataError: a suite that cannot be read or asks nothing, or a prompt that leaves no room for an answer.
    """
    settings = config.generate
    names: Counter[str] = Counter()
    found = []
    for ref in settings.suites if settings is not None else ():
        assert settings is not None, "suites come from it"
        suite = load_suite(ref, config.base_dir)
        names[suite.name] += 1
        name = suite.name if names[suite.name] == 1 else f"{suite.name}-{names[suite.name]}"
        questions = PromptSuite(name, tuple(map(question_of, suite.prompts)), suite.num_skipped)
        tokens = tokenize_suite(questions, models.base_tokenizer, UNLIMITED)
        _check_room(tokens, models, settings.max_new_tokens)
        found.append(tokens)
    return found


def question_of(prompt: Prompt) -> Prompt:
    """Return the prompt without the answer that its suite may give; raw text is continued.

    Raises:
        DataError: nobody asks anything in it.
    """
    if prompt.messages is None:
        return prompt
    last = max((i for i, message in enumerate(prompt.messages) if message.role == "user"), default=None)
    if last is None:
        raise DataError(f"{prompt.source}: a behaviour prompt without a user's turn asks nothing; remove it")
    return replace(prompt, messages=prompt.messages[: last + 1])


def _check_room(tokens: TokenizedSuite, models: ModelPair, max_new_tokens: int) -> None:
    for prompt, length in zip(tokens.suite.prompts, tokens.length_P.tolist(), strict=True):
        if length + max_new_tokens > models.longest:
            raise DataError(
                f"{prompt.source}: {length} tokens leave no room for an answer of {max_new_tokens} in the "
                f"{models.longest} that {models.base.ref!r} reads; shorten it or lower "
                "generate.max_new_tokens"
            )


def _elicited(suites: JobSuites, num_probes: int) -> list[_Asked]:
    elicited = next((suite for suite in suites.suites if suite.role == "elicited"), None)
    if elicited is None:
        return []
    return [
        asked._replace(condition=asked.group)
        for asked in _prompts_of(elicited.tokens)
        if asked.row < num_probes
    ]


def _prompts_of(tokens: TokenizedSuite) -> list[_Asked]:
    return [
        _Asked(tokens.suite.name, None, prompt.group, p, prompt.row, ids)
        for p, (prompt, ids) in enumerate(zip(tokens.suite.prompts, tokens.prompt_ids(), strict=True))
    ]


def _answers_of(
    side: str, models: ModelPair, settings: GenerateConfig, asked: list[_Asked]
) -> list[dict[str, Any]]:
    """Return one side's rows of the table, prompt by prompt and sample by sample."""
    answers, ends = side_answers(side, models, settings, [one.ids for one in asked])
    flat = [
        (one, n, answer)
        for one, samples in zip(asked, answers, strict=True)
        for n, answer in enumerate(samples)
    ]
    found = answer_logprobs(models, [one.ids for one, _, _ in flat], [answer.ids for _, _, answer in flat])
    return [
        {
            **{name: value for name, value in one._asdict().items() if name != "ids"},
            "sample": sample,
            "side": side,
            **_said(answer, models, side, ends),
            "num_read": int(found.num_read_N[n]),
            "logprob_base": float(found.base_N[n]),
            "logprob_tuned": float(found.tuned_N[n]),
        }
        for n, (one, sample, answer) in enumerate(flat)
    ]


def side_answers(
    side: str, models: ModelPair, settings: GenerateConfig, prompts: Sequence[Sequence[int]]
) -> tuple[list[list[Answer]], set[int]]:
    """Return one side's samples for each prompt's token ids, by the config's runner, and its end tokens."""
    with models.alone(side) as model:
        ends = end_ids(model, models.base_tokenizer)
        draw = (settings.max_new_tokens, settings.num_samples, settings.temperature, settings.seed)
        if models.config.precompute.runner == "vllm":
            with _vllm(side, models, settings, max(map(len, prompts))) as generator:
                answers = generator.generate(prompts, *draw)
        else:
            answers = generate_answers(model, models.base_tokenizer, prompts, *draw)
    models.num_generated += sum(len(answer.ids) for samples in answers for answer in samples)
    return answers, ends


def _vllm(side: str, models: ModelPair, settings: GenerateConfig, longest: int) -> VllmGenerator:
    precompute = models.config.precompute
    return open_vllm_generator(
        models.tuned if side == "tuned" else models.base,
        dtype=DTYPES[models.config.models.dtype],
        max_prompt_tokens=longest,
        max_new_tokens=settings.max_new_tokens,
        tokens_per_batch=precompute.tokens_per_batch,
        threads=precompute.threads,
    )


def _said(answer: Answer, models: ModelPair, side: str, ends: set[int]) -> dict[str, Any]:
    return {
        "text": models.text(side, answer.ids),
        "num_tokens": len(answer.ids),
        "mean_logprob": sum(answer.logprobs) / len(answer.logprobs),
        "finish": "stop" if answer.ids[-1] in ends else "length",
    }
