"""The config's section about labels: where published ones come from, and which model writes and judges."""

from typing import Annotated, Literal

from pydantic import Field

from ft_audit.engine.config.strict import Count, Strict, Text

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class NeuronpediaSourceConfig(Strict):
    """Which of Neuronpedia's sources was made from a dictionary of `hooks`."""

    sae: Text
    """The dictionary's name."""
    model: Text
    """What Neuronpedia calls the model: gemma-3-1b-it."""
    source: Text
    """What it calls the dictionary: 22-gemmascope-2-res-16k."""
    repo_id: Text | None = None
    folder: Text | None = None
    """Where a dictionary was published that `hooks` names by a local folder; of others the reference says."""


class NeuronpediaConfig(Strict):
    """Labels published on Neuronpedia; the key, which is optional, is read from NEURONPEDIA_API_KEY."""

    base_url: Text = "https://www.neuronpedia.org"
    sources: tuple[NeuronpediaSourceConfig, ...]
    bulk: Text | None = None
    """A folder or an address of their data set (with `v1/` in it), read in the place of the API."""
    cache: Text | None = None
    """Where answers are kept; a folder of the user's cache by default."""
    requests_per_second: Seconds = 4.0


class ChatModelConfig(Strict):
    """A language model behind an OpenAI-compatible server; the key is read from OPENAI_API_KEY."""

    model: Text
    base_url: Text | None = None
    """OPENAI_BASE_URL by default, and without that OpenAI's own."""
    timeout_s: Seconds = 60.0
    max_retries: Annotated[int, Field(ge=0)] = 4
    """How often a busy server is asked again."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = 0.0
    """null leaves it to the server, as models that reason may ask."""
    seed: int | None = None
    """Given to the server, for those that take one."""
    max_answer_tokens: Count | None = None
    """The most that one answer may have; the server's own limit by default."""
    answers: Literal["json_schema", "json_object", "text"] = "json_schema"
    """How the server is told to answer in JSON: by a schema it enforces, by a mode, or in words alone."""


class ScoringConfig(Strict):
    """How much evidence a label's reliability rests on."""

    num_firing: Count = 20
    """Contexts on which the feature fires, from all strengths alike."""
    num_random: Count = 10
    """Contexts at random on which it is silent."""
    num_near_miss: Count = 10
    """Silent contexts that look alike: the same token, or a neighbouring feature."""
    per_question: Count = 5
    """Contexts that a judge sees at once."""
    seed: Annotated[int, Field(ge=0)] = 0


class LabelsConfig(Strict):
    """What features stand for, and how far to believe it."""

    neuronpedia: NeuronpediaConfig | None = None
    judge: ChatModelConfig | None = None
    """Says of a label which contexts it fits."""
    describer: ChatModelConfig | None = None
    """Writes labels from contexts; the judge does by default."""
    scoring: ScoringConfig = ScoringConfig()
