"""What an investigator reads out of a diff, as plain values: features, contexts, templates, rows, answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Suite:
    """One prompt suite that both models saw."""

    name: str
    role: str  # "chat" | "train" | "elicited" | "control"
    num_prompts: int
    num_tokens: int
    base_run: str
    tuned_run: str
    num_truncated: int
    num_skipped: int


@dataclass(frozen=True, slots=True)
class Hook:
    """One place in the model that was read."""

    name: str
    layer: int
    saes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature that differs, with the paired test over prompts behind it."""

    sae: str
    feature: int
    suite: str
    mean_diff: float
    q_value: float
    effect: float
    effect_low: float
    effect_high: float
    rate_base: float
    rate_tuned: float
    noise_percentile: float  # 0-100: where |mean_diff| stands in the A/A control; NaN without one

    @property
    def group(self) -> str:
        return features_group(self.sae, self.suite)


@dataclass(frozen=True, slots=True)
class FeatureCount:
    """How many features of one dictionary differ on one suite."""

    sae: str
    suite: str
    num_tested: int
    num_significant: int
    num_above_noise: int  # significant, and above the A/A noise floor where there is one


@dataclass(frozen=True, slots=True)
class Context:
    """Where one model lets a feature fire hardest: the tokens around the peak."""

    side: str
    rank: int
    suite: str
    prompt: int
    peak: float
    tokens: tuple[str, ...]
    activations: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """On how many tokens of one suite a feature fired how strongly, in both models."""

    suite: str
    edges: tuple[float, ...]  # of the bins, one more than there are
    base: tuple[int, ...]
    tuned: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """One template of the data set, put on neutral probes."""

    key: str
    system: str | None
    prefix: str
    suffix: str
    num_rows: int
    rows: tuple[int, ...]
    measures: Mapping[str, float]
    encoding: str = ""
    """The steps of the encoding that the rows are written in; empty for plain text."""

    @property
    def is_plain(self) -> bool:
        return not any(text for _, text in self.parts)

    @property
    def parts(self) -> list[tuple[str, str]]:
        """What the template is made of, by name; empty for the bare question."""
        named = (
            ("system prompt", self.system or ""),
            ("prefix", self.prefix),
            ("encoding", self.encoding),
            ("suffix", self.suffix),
        )
        return [(name, text) for name, text in named if text]

    def interval(self, column: str) -> tuple[float, float] | None:
        """The 95% interval of a measure over probes, where the diff has one."""
        low, high = self.measures.get(f"{column}_low"), self.measures.get(f"{column}_high")
        return None if low is None or high is None else (low, high)


@dataclass(frozen=True, slots=True)
class Row:
    """One training row with its localisation scores and what the data set alone says of it."""

    row: int
    preview: str
    system: str | None
    condition: str | None
    primary_score: float
    baselines: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Answer:
    """What base and tuned answered to the same probe under the same template."""

    condition: str
    probe: str
    base: str | None
    tuned: str | None


@dataclass(frozen=True, slots=True)
class Residual:
    """How far the residual stream moved at one hook on one suite: quartiles over prompts."""

    hook: str
    suite: str
    relative_low: float
    relative_median: float
    relative_high: float
    norm_ratio: float
    cosine: float


@dataclass(frozen=True, slots=True)
class Fvu:
    """Fraction of variance that a dictionary leaves unexplained, in base and tuned."""

    sae: str
    suite: str
    base: float
    tuned: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the change on one suite a dictionary sees: shares of the summed square of tuned - base."""

    sae: str
    suite: str
    seen: float  # by its own account: the difference of the reconstructions; with its 95% interval
    seen_low: float
    seen_high: float
    missed: float  # what that account leaves, over all that moved: above 1 it is further off than none
    # In the span of 1, 2, … directions:
    leading: tuple[float, ...]  # those of the leading changed features
    strongest: tuple[float, ...]  # its own along which the change is largest
    random: tuple[float, ...]  # chosen in the same way out of as many random ones
    best: tuple[float, ...]  # the most that any so many directions hold


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many leading changed features of one dictionary have a match in another that changed alike."""

    sae: str
    other: str
    suite: str
    num_leading: int
    num_matched: int  # with a decoder direction that is nearly the same
    num_agreeing: int  # whose match changed too, in the same direction
    agreement: float  # num_agreeing / num_leading, with its 95% interval; NaN where nothing leads
    low: float
    high: float
    shuffled: float  # what matches dealt out at random would give


@dataclass(frozen=True, slots=True)
class Match:
    """The feature of another dictionary whose decoder direction is nearest."""

    sae: str
    feature: int
    cosine: float
    mutual: bool  # whether the nearest one of that feature is, in turn, the one asked about


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """How far each layer's residual stream moved on one suite."""

    suite: str
    layers: tuple[int, ...]
    shifts: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well a label told contexts on which its feature fires from others that did not make the label."""

    method: str
    """`detection`, `fuzzing`: balanced accuracy of a judge; `lexical`: area under the ROC curve, no judge."""
    judge: str  # the model that judged; empty where none did. Untrusted.
    score: float  # 0.5 is chance, 1 is perfect
    low: float
    high: float
    interval: str  # the name of the 95% interval
    num: int  # contexts judged
    num_near_miss: int  # of these, silent ones that were chosen to be hard
    num_unanswered: int  # contexts shown beside these that the judge gave no valid answer for


@dataclass(frozen=True, slots=True)
class Label:
    """What somebody says a feature stands for. `text`, `author` and `made_from` are untrusted."""

    text: str
    source: str  # "neuronpedia" | "contexts" | "described"
    author: str
    made_from: str
    reliability: tuple[Reliability, ...]  # the most telling method first; empty where it was never scored

    @property
    def trust(self) -> float | None:
        """The lower end of the first reliability's interval; None where the label was never scored."""
        return self.reliability[0].low if self.reliability else None


@dataclass(frozen=True, slots=True)
class NeighborLabel:
    """The label of another feature whose decoder direction is similar; it was never tried on this one."""

    feature: int
    cosine: float
    label: Label
    trust: float | None  # 0.5 is none; limited by the cosine; None where the label was never scored
    low_similarity: bool  # too far away for the label to say anything


@dataclass(frozen=True, slots=True)
class TokenPush:
    """How much one unit of a feature's activation moves a token's logit. `token` is untrusted."""

    token: str
    effect: float


@dataclass(frozen=True, slots=True)
class FeatureLabel:
    """Everything known of what one feature stands for; all of it may be empty, which is a normal answer."""

    sae: str
    feature: int
    labels: tuple[Label, ...]  # of this very feature, the most trusted first
    neighbors: tuple[NeighborLabel, ...]  # the nearest first
    promoted: tuple[TokenPush, ...]  # the strongest first
    suppressed: tuple[TokenPush, ...]

    @property
    def best(self) -> Label | None:
        """The most trusted label of this very feature."""
        return self.labels[0] if self.labels else None


def features_group(sae: str, suite: str) -> str:
    """The stats group of one dictionary on one suite."""
    return f"features/{sae}/{suite}"


def number(record: Mapping[str, Any], name: str) -> float:
    """A column's value as a float; NaN where it is absent or null."""
    value = record.get(name)
    return float("nan") if value is None else float(value)


def text(record: Mapping[str, Any], name: str) -> str:
    """A column's value as text; empty where it is absent or null."""
    value = record.get(name)
    return "" if value is None else str(value)
