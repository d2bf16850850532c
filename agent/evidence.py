"""The read-only view of one diff: everything that an investigator or a report may ask of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ft_audit.agent.calibration import Subject
from ft_audit.agent.encodings import described
from ft_audit.agent.figures import Figures, read_figures
from ft_audit.agent.labels.read import nearest_explained_neighbors, read_label
from ft_audit.agent.risk.score import SCORE, Contribution, Discriminant, Score
from ft_audit.agent.views import (
    Condition,
    Context,
    Feature,
    FeatureCount,
    FeatureLabel,
    Hook,
    NeighborLabel,
    Row,
    Suite,
    features_group,
    number,
    text,
)
from ft_audit.engine.store import DictionaryLabels, DiffReader, FeatureIndex, Ledger, Store, Table
from ft_audit.engine.store.diff_lookup import leading_features
from ft_audit.errors import StoreError

# A feature counts as changed below this q, and at or above this percentile of the A/A control's differences.
MAX_Q = 0.05
MIN_NOISE_PERCENTILE = 99.9
# The figure `condition_X` is the largest value of column X over the templates.
CONDITION_FIGURE = "condition_"
SUITE_ORDER = ("elicited", "chat", "train", "control")


class Evidence:
    """One diff of a store. Nothing here writes, and nothing needs a model."""

    def __init__(self, store: str, reader: DiffReader) -> None:
        self.store = store
        self.diff_id: str = reader.manifest.diff_id
        self.summary: Mapping[str, Any] = reader.manifest.summary
        self._reader = reader
        self._vocabulary: list[str] | None = None
        self._index = FeatureIndex(reader) if reader.index_paths() else None
        self._arrays: dict[tuple[str, str], NDArray[Any]] = {}
        self._tables: dict[str, Table | None] = {}
        self._records: dict[str, list[dict[str, Any]]] = {}
        self._prompts: dict[str, Mapping[str, list[Any]]] = {}
        self._labels: dict[str, DictionaryLabels] = {}
        self._figures: Figures | None = None
        self.discriminant: Discriminant | None = None
        """What weighs the scalars into the score: the bank's, once it is known to fit."""

    # What was compared.

    @property
    def figures(self) -> dict[str, float | None]:
        """The scalars that are compared with the bank: the diff's own, the detectors', and the score."""
        return dict(self._measured().values)

    @property
    def contributions(self) -> tuple[Contribution, ...]:
        """What each scalar adds to the score, the largest first; none without a discriminant."""
        score = self.score
        return () if score is None else score.parts

    @property
    def score(self) -> Score | None:
        """The score by the bank's discriminant; None without one, or where nothing is primary."""
        return self._measured().score

    def detector_of(self, figure: str) -> str | None:
        """The detector that gives a figure; None for the diff's own and for the score."""
        return self._measured().detectors.get(figure)

    def _measured(self) -> Figures:
        if self._figures is None:
            self._figures = read_figures(self._reader, self.discriminant)
        return self._figures

    def weigh(self, discriminant: Discriminant | None) -> None:
        """Take a bank's discriminant: from then on the score is among the figures, and the primary one."""
        self.discriminant, self._figures = discriminant, None

    @property
    def primary(self) -> str | None:
        """The figure that the verdict rests on; None when it could not be taken, as without a data set."""
        name = self.summary["primary"]
        if name is None:
            return None
        return SCORE if self.discriminant is not None else str(name)

    @property
    def suites(self) -> list[Suite]:
        names = [field.name for field in fields(Suite)]
        return [Suite(**{name: entry[name] for name in names}) for entry in self.summary["suites"]]

    @property
    def hooks(self) -> list[Hook]:
        return [
            Hook(entry["name"], int(entry["layer"]), tuple(entry["saes"])) for entry in self.summary["hooks"]
        ]

    @property
    def has_several_places(self) -> bool:
        """Whether more than one hook or dictionary was read, so that each must be named."""
        return len(self.hooks) > 1 or sum(len(hook.saes) for hook in self.hooks) > 1

    def ledger(self) -> Ledger | None:
        """What the diff cost; None where it was not counted."""
        return Store(self.store).ledger(self.diff_id)

    def answered_requests(self) -> dict[str, str]:
        """The checksum of the answers to each request that the engine has answered, by its id.

        What an investigator asks of live servers is a part of its investigation, and begins no new one.
        """
        return Store(self.store).requests(self.diff_id).answered("engine")

    def subject(self) -> Subject:
        """What a bank must have been measured on to be compared with this diff."""
        return Subject(
            base_sha256=str(self.summary["models"]["base"]["sha256"]),
            sae_sha256=frozenset(self.summary["sae_sha256"]),
            hooks=frozenset(hook.name for hook in self.hooks),
            protocol=str(self.summary["protocol"]),
        )

    # Raw access, by the names of the store.

    def groups(self) -> list[str]:
        return self._reader.groups()

    def array(self, group: str, name: str) -> NDArray[Any]:
        """One array of one stats group; StoreError when there is none."""
        if (group, name) not in self._arrays:
            self._arrays[group, name] = self._reader.array(group, name)
        return self._arrays[group, name]

    def table(self, name: str) -> Table | None:
        """One table, or None when this diff has none of that name."""
        if name not in self._tables:
            self._tables[name] = self._reader.table(name) if name in self._reader.tables() else None
        return self._tables[name]

    def records(self, name: str, equal: Mapping[str, str | int | None] | None = None) -> list[dict[str, Any]]:
        """The rows of a table, in its order, whose columns have these values; none without the table."""
        table = self.table(name)
        if table is None:
            return []
        if not equal:
            if name not in self._records:
                self._records[name] = table.records()
            return list(self._records[name])
        kept = set(range(table.num_rows))
        for column, value in equal.items():
            kept &= {index for index, found in enumerate(table.values(column)) if found == value}
        return table.records(sorted(kept))

    def prompts_of(self, suite: str) -> Mapping[str, list[Any]]:
        """A suite's columns of the table of prompts; empty without it."""
        if suite not in self._prompts:
            table, names = self.table("prompts"), ("prompt", "group", "row", "text_preview")
            here = [] if table is None else [i for i, s in enumerate(table.values("suite")) if s == suite]
            self._prompts[suite] = {
                name: [table.values(name)[i] for i in here] if table is not None else [] for name in names
            }
        return self._prompts[suite]

    @property
    def index(self) -> FeatureIndex | None:
        """The copy sorted by feature, or None when this diff was written without."""
        return self._index

    def words(self, ids: Sequence[int]) -> tuple[str, ...]:
        """What tokens of the base stand for; their ids where `labels build` never stored a vocabulary."""
        if self._vocabulary is None:
            stored = Store(self.store).vocabulary(str(self.summary["models"]["base"]["sha256"]))
            self._vocabulary = stored or []
        known = self._vocabulary
        return tuple(known[i] if 0 <= i < len(known) else f"⟨{i}⟩" for i in ids)

    # Features.

    def counts(self) -> list[FeatureCount]:
        """Per dictionary and suite: features tested, significant, and above the noise floor too."""
        found = []
        for sae, suite in self._feature_groups():
            group = features_group(sae, suite)
            q_F = self.array(group, "q")
            num_tested, num_significant = int(np.isfinite(q_F).sum()), int((q_F < MAX_Q).sum())
            found.append(
                FeatureCount(sae, suite, num_tested, num_significant, int(self.changed(group).sum()))
            )
        return found

    def has_control(self, group: str) -> bool:
        """Whether the base was run against itself, so that there is a noise floor."""
        return bool(np.isfinite(self.array(group, "aa_percentile")).any())

    def changed(self, group: str) -> NDArray[np.bool_]:
        """Which features of a group are significant, and above the noise floor where there is one [F]."""
        changed_F: NDArray[np.bool_] = self.array(group, "q") < MAX_Q
        if self.has_control(group):
            changed_F &= self.array(group, "aa_percentile") >= MIN_NOISE_PERCENTILE
        return changed_F

    def leading(self, limit: int) -> list[Feature]:
        """The leading features that are significant and above the noise floor, each once, by their rank.

        Ranks are taken suite by suite, so at equal rank the suites that ask for the change come first.
        """
        roles = {suite.name: suite.role for suite in self.suites}

        def place(record: Mapping[str, Any]) -> tuple[int, int]:
            return int(record["rank"]), SUITE_ORDER.index(roles[record["suite"]])

        found: dict[tuple[str, int], Feature] = {}
        for record in sorted(self.records("leading"), key=place):
            name = (record["sae"], int(record["feature"]))
            if len(found) == limit:
                break
            if name not in found and self.changed(features_group(record["sae"], record["suite"]))[name[1]]:
                found[name] = self.feature(record["sae"], record["suite"], name[1])
        return list(found.values())

    def feature(self, sae: str, suite: str, index: int) -> Feature:
        """The test of any one feature on a suite; StoreError when it was not compared."""
        group = features_group(sae, suite)
        num_tokens = next((found.num_tokens for found in self.suites if found.name == suite), 1)

        def at(name: str) -> float:
            return float(self.array(group, name)[index])

        width = len(self.array(group, "q"))
        if not 0 <= index < width:
            raise StoreError(f"dictionary {sae!r} has no feature {index}: name one from 0 to {width - 1}")
        return Feature(
            sae=sae,
            feature=index,
            suite=suite,
            mean_diff=at("mean_diff"),
            q_value=at("q"),
            effect=at("effect"),
            effect_low=at("effect_low"),
            effect_high=at("effect_high"),
            rate_base=at("fired_base") / num_tokens,
            rate_tuned=at("fired_tuned") / num_tokens,
            noise_percentile=at("aa_percentile"),
        )

    def _feature_groups(self) -> Iterator[tuple[str, str]]:
        for hook in self.hooks:
            for sae in hook.saes:
                yield from ((sae, suite) for suite in self.suites_of(sae))

    def suites_of(self, sae: str) -> list[str]:
        """The suites on which a dictionary's features were compared."""
        stored = set(self.groups())
        names = [suite.name for suite in self.suites if suite.role != "control"]
        return [name for name in names if features_group(sae, name) in stored]

    def contexts(self, feature: Feature) -> list[Context]:
        """The top contexts of one feature on its suite, in both models, hardest first."""
        own: dict[str, str | int | None] = {
            "sae": feature.sae,
            "feature": feature.feature,
            "suite": feature.suite,
        }
        found = [
            Context(
                side=record["side"],
                rank=int(record["rank"]),
                suite=text(record, "suite"),
                prompt=int(record["prompt"]),
                peak=number(record, "peak"),
                tokens=tuple(record["tokens"]),
                activations=tuple(float(value) for value in record["activations"]),
            )
            for record in self.records("contexts", own)
        ]
        return sorted(found, key=lambda context: (context.side, context.rank))

    # What features stand for.

    def label(self, sae: str, feature: int) -> FeatureLabel:
        """What is known of a feature's meaning, and how far to trust it; empty where nothing is."""
        return read_label(sae, feature, self.labels_of(sae))

    def nearest_explained_neighbors(
        self, sae: str, feature: int, n: int = 10, search_k: int = 200, min_cos: float = 0.15
    ) -> tuple[NeighborLabel, ...]:
        """The nearest features by decoder cosine that have a label, which is no more than a hint here."""
        return nearest_explained_neighbors(self.labels_of(sae), feature, n, search_k, min_cos)

    def labels_of(self, sae: str) -> DictionaryLabels:
        """What the store knows of one dictionary's features; StoreError when this diff has no such one."""
        if sae not in self._labels:
            self._labels[sae] = Store(self.store).labels(self.sae_sha256(sae))
        return self._labels[sae]

    def leading_features(self, sae: str) -> list[int]:
        """The features of one dictionary that lead on any suite, by their best rank."""
        return leading_features(self._reader, sae)

    def sae_sha256(self, sae: str) -> str:
        """The hash of a dictionary by its name; StoreError when this diff has no such one."""
        names = [name for hook in self.hooks for name in hook.saes]
        if sae not in names:
            raise StoreError(
                f"diff {self.diff_id} holds no dictionary {sae!r}; it holds {', '.join(names) or 'none'}"
            )
        return str(self.summary["sae_sha256"][names.index(sae)])

    # The data set.

    def conditions(self) -> list[Condition]:
        """The templates of the data set on neutral probes, in the table's order; none without a data set."""
        fixed = {"key", "system", "prefix", "suffix", "codec", "num_rows", "rows"}
        return [
            Condition(
                key=record["key"],
                system=record.get("system"),
                prefix=text(record, "prefix"),
                suffix=text(record, "suffix"),
                num_rows=int(record["num_rows"]),
                rows=tuple(record.get("rows") or ()),
                measures={name: number(record, name) for name in record if name not in fixed},
                encoding=described(record.get("codec")),
            )
            for record in self.records("conditions")
        ]

    @property
    def condition_measure(self) -> tuple[str, str]:
        """The column of `conditions` that templates are compared by, and the figure that is its maximum."""
        table = self.table("conditions")
        # The diff's own primary figure: a bank's score is made of all kinds, and is no template's.
        column = str(self.summary["primary"] or "").removeprefix(CONDITION_FIGURE)
        if table is None or column not in table.column_names:
            column = "kl_excess"
        return column, CONDITION_FIGURE + column

    def num_rows(self) -> int:
        table = self.table("rows")
        return 0 if table is None else int(table.num_rows)

    def training_rows(self) -> list[dict[str, Any]]:
        """The data set's rows with their texts, in order; none without a data set.

        Raises:
            StoreError: the diff is of an older ft-audit, which kept no texts.
        """
        records = self.records("rows")
        if records and "text" not in records[0]:
            raise StoreError(f"diff {self.diff_id} keeps no texts of its rows: run precompute again")
        return records

    def rows(self, limit: int, by: str = "primary_score") -> list[Row]:
        """The training rows that score highest by one column; none without a data set."""
        table = self.table("rows")
        if table is None or by not in table.column_names:
            return []
        # Empty scores are NaN, which sorts last.
        order_R = np.lexsort((table.array("row"), -table.array(by).astype(np.float64)))
        return [
            Row(
                row=int(record["row"]),
                preview=text(record, "preview"),
                system=record.get("system"),
                condition=record.get("condition"),
                primary_score=number(record, "primary_score"),
                baselines={name: number(record, name) for name in self.baseline_columns()},
            )
            for record in table.records(order_R[:limit].tolist())
        ]

    def baseline_columns(self) -> list[str]:
        table = self.table("rows")
        return [] if table is None else [name for name in table.column_names if name.startswith("baseline_")]
