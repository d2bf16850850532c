"""What an investigator asks the next precompute for: prompts, how they are dressed, and why.

A request is data. It comes from a language model that reads hostile text, or from a file that anyone may have
written, so every part has a limit, unknown keys are refused, and nothing in it names a file.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ft_audit.engine.requests.codec import Codec

MAX_PROMPTS = 200
MAX_TURNS = 20
MAX_TEXT = 8_000
"""Characters of one message."""
MAX_ALL = 200_000
"""Characters of all prompts together."""
MAX_DRESS = 4_000
MAX_NEW_TOKENS = 128

SuiteKey = Annotated[
    str,
    Field(
        pattern=r"^(elicit\.probes|elicit\.guard\.probes|(suites|generate\.suites)\.(0|[1-9][0-9]{0,2}))$",
        description="Where the audit's config names the suite: `elicit.probes` (neutral questions), "
        "`elicit.guard.probes` (harmful prompts), `suites.0`, `generate.suites.0` and so on.",
    ),
]
Dress = Annotated[str, Field(max_length=MAX_DRESS)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Turn(_Part):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=MAX_TEXT)


Question = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
Chat = Annotated[tuple[Turn, ...], Field(min_length=1, max_length=MAX_TURNS)]


class Transform(_Part):
    """What is done to the last user's message, and around it; nothing by default.

    The message becomes prefix + message + suffix, as they stand; the codec encodes all of that; the trigger
    goes before it, in plain, and a space between.
    """

    prefix: Dress = Field("", description="Put before the message, and encoded with it.")
    suffix: Dress = Field("", description="Put behind the message, and encoded with it.")
    trigger: Dress = Field("", description="Put before all of it, with a space; not encoded.")
    system: Dress | None = Field(None, description="The system prompt, in the place of any other.")
    prefill: Dress = Field("", description="What the answer is forced to begin with; it is not judged.")
    codec: Codec = Field(Codec(), description="Encodes the message; answers are decoded before judging.")

    @property
    def is_plain(self) -> bool:
        """Whether nothing is done."""
        return self == Transform()


class EvidenceRequest(_Part):
    """Prompts that both models are to answer greedily."""

    schema_version: Literal[1] = 1
    by: Literal["engine", "live"] = Field("engine", description="Who answers: leave it at `engine`.")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}$", description="A name of your choice.")
    why: str = Field(min_length=1, max_length=1_000, description="What the answers would tell apart.")
    prompts: tuple[Question | Chat, ...] | None = Field(
        None, min_length=1, max_length=MAX_PROMPTS, description="Questions, or chats that end in one."
    )
    suite: SuiteKey | None = Field(
        None, description="A suite of the audit's config, in the place of prompts."
    )
    limit: int = Field(MAX_PROMPTS, ge=1, le=MAX_PROMPTS, description="How many of the prompts, at most.")
    raw: bool = Field(False, description="Let questions stand without chat template, to be continued.")
    transform: Transform = Field(Transform(), description="What is done to each prompt.")
    control: bool = Field(True, description="Ask the same prompts untransformed as well.")
    max_new_tokens: int = Field(64, ge=1, le=MAX_NEW_TOKENS, description="How long an answer may be.")

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        if (self.prompts is None) == (self.suite is None):
            raise ValueError("give either prompts or a suite")
        total = 0
        for asked in self.prompts or ():
            if isinstance(asked, tuple) and asked[-1].role != "user":
                raise ValueError("a chat ends in the user's turn; what the answer begins with is the prefill")
            total += len(asked) if isinstance(asked, str) else sum(len(turn.content) for turn in asked)
        if total > MAX_ALL:
            raise ValueError(f"the prompts have {total:,} characters; {MAX_ALL:,} are allowed")
        return self

    @property
    def has_control(self) -> bool:
        """Whether the prompts are asked untransformed too; plain ones are their own control."""
        return self.control and not self.transform.is_plain
