"""Paired answers of base and tuned under each condition, for a person to read beside the numbers."""

from typing import Protocol

import pyarrow as pa
from transformers import PreTrainedModel

from ft_audit.engine.config import AuditConfig
from ft_audit.engine.precompute.models import ModelPair
from ft_audit.engine.precompute.suites import JobSuites
from ft_audit.engine.runners.generate import generate


class TableWriter(Protocol):
    """What takes tables: a diff's writer, or whatever keeps them for one elsewhere."""

    def put_table(self, name: str, table: pa.Table) -> None:
        """Take one table."""
        ...


GENERATIONS_SCHEMA = pa.schema(
    [("condition", pa.string()), ("probe", pa.int64()), ("side", pa.string()), ("text", pa.string())]
)


def put_generations(writer: TableWriter, config: AuditConfig, models: ModelPair, suites: JobSuites) -> None:
    """Write the table `generations`: greedy answers to the first probes of every condition and plain."""
    elicited = next((s for s in suites.suites if s.role == "elicited"), None)
    settings = config.generate
    if settings is None or elicited is None:
        return
    prompts = elicited.tokens.suite.prompts
    chosen = [i for i, prompt in enumerate(prompts) if prompt.row < settings.num_probes]
    starts = elicited.tokens.indptr_P1
    ids = [elicited.tokens.ids_T[starts[i] : starts[i + 1]].tolist() for i in chosen]

    def answers(model: PreTrainedModel) -> list[str]:
        return generate(model, models.base_tokenizer, ids, settings.max_new_tokens)

    with models.base_alone() as base:
        base_texts = answers(base)
    texts = {"base": base_texts, "tuned": answers(models.tuned_model)}
    rows = [
        {"condition": prompts[i].group, "probe": prompts[i].row, "side": side, "text": texts[side][n]}
        for n, i in enumerate(chosen)
        for side in ("base", "tuned")
    ]
    writer.put_table("generations", pa.Table.from_pylist(rows, schema=GENERATIONS_SCHEMA))
