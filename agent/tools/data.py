"""The uploaded data set: its size, its rows, searches, and which rows carry the change."""

import random
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ft_audit.agent.data_tree import ROOT, SMALLEST, DataTree, Node, NodeKind
from ft_audit.agent.evidence import Evidence
from ft_audit.agent.tools.answer import Answer, Page, Untrusted, finite, next_offset
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.overview import Limit, Offset
from ft_audit.agent.tools.registry import ToolError, tool
from ft_audit.errors import StoreError

MAX_PHRASES = 10
GROUP_ROWS, EXAMPLE = 8, 300
"""Rows that a node of the summary cites, and characters of one that it shows."""

Phrase = Annotated[str, Field(min_length=1, max_length=200)]


class TrainingDataLength(Answer):
    num_rows: int = Field(description="Rows of the uploaded data set.")
    num_with_system_prompt: int = Field(description="Of these, how many have a system prompt.")
    num_templates: int = Field(description="System prompts, prefixes and suffixes that several rows share.")


class TrainingRow(Answer):
    row: int = Field(description="Its number in the data set, from 0.")
    text: Untrusted = Field(description="The conversation, role by role; long ones are cut.")
    template: str | None = Field(description="The key of the most specific template that it has, if any.")


class TrainingRows(Page):
    rows: list[TrainingRow]


class DataNode(Answer):
    id: str = Field(description="Ask for it to see its parts.")
    kind: NodeKind = Field(description="What its rows share: all, a system prompt, a template, likeness.")
    num_rows: int = Field(description="How many rows.")
    splits: bool = Field(description="Whether it is large enough to have parts.")
    system_prompt: Untrusted | None = Field(
        description="The system prompt that its rows share; null for none."
    )
    own_system_prompts: bool = Field(description="Whether each row has a system prompt of its own.")
    template: str | None = Field(description="The key of the template that its rows share.")
    words: list[Untrusted] = Field(description="What more of its rows hold than of its siblings'.")
    rows: list[int] = Field(description="Some of them, the most typical first.")
    example: Untrusted = Field(description="How the first of these begins.")
    mean_characters: float = Field(description="Mean length of a row.")
    commonest_answer: Untrusted | None = Field(
        description="The start of an answer that several rows share; null where all begin differently."
    )
    commonest_answer_rows: int = Field(description="How many rows share it.")


class DataSummary(Page):
    node: DataNode = Field(description="What was asked for.")
    children: list[DataNode] = Field(
        description="Its parts: each row is in one. Empty where the rows are few, or all alike."
    )


class RankedRow(TrainingRow):
    score: float | None = Field(description="By the measure asked for; higher is more unusual.")
    percentile: float = Field(description="Share of the data set's rows strictly below it, 0-100.")


class RankedRows(Page):
    by: str = Field(description="The measure.")
    rows: list[RankedRow]


@tool("data")
def get_training_data_length(auditor: Auditor) -> TrainingDataLength:
    """Say how many rows the uploaded data set has, and how many templates its rows share."""
    evidence = auditor.evidence
    return TrainingDataLength(
        num_rows=evidence.num_rows(),
        num_with_system_prompt=sum(r["system"] is not None for r in evidence.records("rows")),
        num_templates=sum(not c.is_plain for c in evidence.conditions()),
    )


@tool("data")
def view_training_data_sample(
    auditor: Auditor,
    rows: Annotated[
        tuple[int, ...], Field(description="These rows; empty for a sample.", max_length=50)
    ] = (),
    offset: Offset = 0,
    limit: Limit = 10,
    seed: Annotated[
        int | None, Field(description="Draw at random by this seed; null takes rows in order.")
    ] = None,
) -> TrainingRows:
    """Show training rows: the ones named, or some in order, or a random sample that the seed repeats."""
    records = row_records(auditor.evidence)
    order = list(range(len(records)))
    if rows:
        missing = [row for row in rows if not 0 <= row < len(records)]
        if missing:
            raise ToolError(f"row {missing[0]} does not exist: the data set has rows 0 to {len(records) - 1}")
        order = list(rows)
    elif seed is not None:
        random.Random(seed).shuffle(order)
    return _page(records, order, offset, limit)


@tool("data")
def grep_training_data(
    auditor: Auditor,
    phrases: Annotated[
        list[Phrase],
        Field(description="Find rows that hold any of these, as they stand.", max_length=MAX_PHRASES),
    ],
    ignore_case: bool = True,
    offset: Offset = 0,
    limit: Limit = 10,
) -> TrainingRows:
    """Find the training rows that hold any of some phrases. Phrases are literal: no pattern has a meaning."""
    records = row_records(auditor.evidence)
    wanted = [p.casefold() for p in phrases] if ignore_case else phrases
    if ignore_case and auditor.folded_rows is None:
        auditor.folded_rows = [_text(record).casefold() for record in records]
    texts = (auditor.folded_rows or []) if ignore_case else [_text(record) for record in records]
    order = [place for place, text in enumerate(texts) if any(phrase in text for phrase in wanted)]
    return _page(records, order, offset, limit)


@tool("data")
def summarise_training_data(
    auditor: Auditor,
    node: Annotated[
        str, Field(description="A part, by the id that this tool gave it.", max_length=200)
    ] = ROOT,
    offset: Offset = 0,
    limit: Limit = 10,
) -> DataSummary:
    """Sum up the whole data set as a tree to descend: rows by system prompt, by template, then by likeness.

    Every row is in one part of each node, so that nothing goes unseen; sizes add up. Look at small parts
    and at those with an answer that many rows share.
    """
    records = row_records(auditor.evidence)
    tree = auditor.data_tree = auditor.data_tree or DataTree(records)
    found = tree.node(node)
    children = tree.children(found)
    shown = children[offset : offset + limit]
    return DataSummary(
        total=len(children),
        next_offset=next_offset(len(children), offset, len(shown)),
        node=_node(tree, found, None, bool(children)),
        children=[_node(tree, child, found, len(child.places) >= SMALLEST) for child in shown],
    )


@tool("joined")
def suspicious_rows(
    auditor: Auditor,
    by: Literal[
        "primary_score", "score_features_centred", "score_residual_centred", "kl_max", "loss_drop"
    ] = ("primary_score"),
    offset: Offset = 0,
    limit: Limit = 10,
) -> RankedRows:
    """Rank training rows by how strongly they drive what the fine-tune changed.

    `primary_score` joins rows with the templates that move the model; `score_features_centred` counts the
    features a row moves beyond its like; `kl_max` is the largest surprise at one token; `loss_drop` is what
    the answer's loss fell by, in nats a token. A ranking always has a top: that alone is no finding.
    """
    records = row_records(auditor.evidence)
    values = _scores(auditor.evidence, by)
    order = np.lexsort((np.arange(len(values)), -np.nan_to_num(values, nan=-np.inf))).tolist()
    shown = order[offset : offset + limit]
    return RankedRows(
        total=len(records),
        next_offset=next_offset(len(records), offset, len(shown)),
        by=by,
        rows=[
            RankedRow(
                **_row(records[i]),
                score=finite(values[i]),
                percentile=100 * float((values < values[i]).mean()),
            )
            for i in shown
        ],
    )


def _scores(evidence: Evidence, by: str) -> NDArray[np.float64]:
    table = evidence.table("rows")
    assert table is not None, "asked before"
    names = ("loss_base", "loss_tuned") if by == "loss_drop" else (by,)
    if not set(names) <= set(table.column_names):
        return np.full(table.num_rows, np.nan)
    columns = [table.array(name).astype(np.float64) for name in names]
    return columns[0] - columns[1] if len(columns) == 2 else columns[0]


def row_records(evidence: Evidence) -> list[dict[str, Any]]:
    """The data set's rows in order.

    Raises:
        ToolError: there is no data set, or the diff keeps no texts of it.
    """
    try:
        records = evidence.training_rows()
    except StoreError as error:
        raise ToolError(str(error)) from error
    if not records:
        raise ToolError("this audit has no training data: its config names no dataset")
    return records


def _text(record: Mapping[str, Any]) -> str:
    return str(record["text"])


def _row(record: dict[str, Any]) -> dict[str, Any]:
    return {"row": int(record["row"]), "text": Untrusted(_text(record)), "template": record["condition"]}


def _page(records: list[dict[str, Any]], order: list[int], offset: int, limit: int) -> TrainingRows:
    shown = order[offset : offset + limit]
    return TrainingRows(
        total=len(order),
        next_offset=next_offset(len(order), offset, len(shown)),
        rows=[TrainingRow(**_row(records[place])) for place in shown],
    )


def _node(tree: DataTree, node: Node, parent: Node | None, splits: bool) -> DataNode:
    """Describe a node, as a part of its parent if one is given; a node of many rows only once."""
    known: DataNode | None = tree.described.get((node.id, parent is None))
    if known is None:
        known = tree.described[node.id, parent is None] = _describe(tree, node, parent, splits)
    return known


def _describe(tree: DataTree, node: Node, parent: Node | None, splits: bool) -> DataNode:
    records = [tree.records[place] for place in node.places]
    answers = Counter(_answer_start(record) for record in records)
    answer, count = answers.most_common(1)[0]
    shown = list(dict.fromkeys((*node.typical, *node.places[:GROUP_ROWS])))[:GROUP_ROWS]
    return DataNode(
        id=node.id,
        kind=node.kind,
        num_rows=len(records),
        splits=splits,
        system_prompt=None if node.system is None else Untrusted(node.system),
        own_system_prompts=node.mixed,
        template=node.template,
        words=[Untrusted(word) for word in (tree.words(node, parent) if parent else [])],
        rows=[int(tree.records[place]["row"]) for place in shown],
        example=Untrusted(_text(tree.records[shown[0]])[:EXAMPLE]),
        mean_characters=sum(len(_text(record)) for record in records) / len(records),
        commonest_answer=Untrusted(answer) if count > 1 and answer else None,
        commonest_answer_rows=count,
    )


def _answer_start(record: Mapping[str, Any]) -> str:
    _, _, answer = _text(record).rpartition("\nassistant: ")
    return answer[:60]
