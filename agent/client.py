"""Asks a language model behind an OpenAI-compatible server; whatever of ft-audit needs one, asks here."""

import json
import os
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from ft_audit.engine.config import ChatModelConfig
from ft_audit.errors import MissingExtraError, ServiceError

KEY_VARIABLE, URL_VARIABLE = "OPENAI_API_KEY", "OPENAI_BASE_URL"
# A server of one's own asks for no key, but the library does.
NO_KEY = "none"
EXCERPT = 300

Answer = TypeVar("Answer", bound=BaseModel)


class InvalidAnswerError(ServiceError):
    """A model's answer that is not of the form it was asked for."""


class ToolCall(NamedTuple):
    """One call that a model asks for."""

    id: str
    name: str
    arguments: str
    """JSON, as the model wrote it."""


class Turn(NamedTuple):
    """What a model said in one turn, and what it took."""

    text: str
    calls: tuple[ToolCall, ...]
    tokens_in: int
    tokens_out: int


class Asked(NamedTuple, Generic[Answer]):
    """A model's answer to one question, and what it took."""

    answer: Answer
    tokens_in: int
    tokens_out: int


class Said(NamedTuple):
    """One answer in a chat without tools."""

    text: str
    num_tokens: int | None
    """None where the server does not say."""
    cut: bool
    """Whether it ran into the limit."""


class ChatClient:
    """One model; a busy or failing server is asked again by the library, each time after a longer wait."""

    def __init__(self, config: ChatModelConfig) -> None:
        """Asks nothing yet. Raises MissingExtraError without openai, ServiceError where a key is needed."""
        try:
            import openai
        except ModuleNotFoundError:
            raise MissingExtraError(
                "a language model is asked through openai, which is not installed: pip install "
                "'ft-audit[openai]'"
            ) from None
        self.config = config
        self._url = config.base_url or os.environ.get(URL_VARIABLE) or None
        key = os.environ.get(KEY_VARIABLE)
        if not key and self._url is None:
            raise ServiceError(
                f"model {config.model!r}: OpenAI's server wants a key: set {KEY_VARIABLE}, or name another "
                f"server with base_url or {URL_VARIABLE}"
            )
        self._client = openai.OpenAI(
            base_url=self._url,
            api_key=key or NO_KEY,
            timeout=config.timeout_s,
            max_retries=config.max_retries,
        )

    @property
    def model(self) -> str:
        """What the server calls the model."""
        return self.config.model

    def ask(self, system: str, question: str, answer: type[Answer]) -> Asked[Answer]:
        """Return the model's answer to one question.

        Raises InvalidAnswerError where it is not of the form of `answer`, ServiceError where there is none.
        """
        schema = answer.model_json_schema()
        told = f"{system}\nAnswer with one JSON object of this schema and nothing else: {json.dumps(schema)}"
        said = self.say([{"role": "system", "content": told}, {"role": "user", "content": question}], schema)
        return Asked(_parsed(said.text, answer), said.tokens_in, said.tokens_out)

    def say(self, messages: Sequence[dict[str, Any]], schema: dict[str, Any]) -> Turn:
        """Return the model's next turn, held to a JSON schema as `answers` of its config says.

        Raises InvalidAnswerError where the server gives no choice, ServiceError where there is no answer.
        """
        options: dict[str, Any] = {}
        if self.config.answers == "json_schema":
            named = {"name": "answer", "schema": schema, "strict": True}
            options["response_format"] = {"type": "json_schema", "json_schema": named}
        elif self.config.answers == "json_object":
            options["response_format"] = {"type": "json_object"}
        reply = self._complete(list(messages), options)
        return Turn(reply.choices[0].message.content or "", (), *_tokens(reply))

    def converse(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]],
        tool_choice: str | dict[str, Any],
    ) -> Turn:
        """Return the model's next turn in a conversation with tools.

        Raises InvalidAnswerError where the server gives no choice, ServiceError where there is no answer.
        """
        options: dict[str, Any] = {"tools": list(tools), "tool_choice": tool_choice}
        reply = self._complete(list(messages), options)
        message = reply.choices[0].message
        calls = tuple(
            ToolCall(call.id, call.function.name, call.function.arguments)
            for call in message.tool_calls or ()
            if call.type == "function"
        )
        return Turn(message.content or "", calls, *_tokens(reply))

    def reply(self, messages: Sequence[dict[str, str]], max_tokens: int) -> Said:
        """Return the model's answer to a chat; a last message of the assistant's own is gone on from.

        Raises InvalidAnswerError where the server gives no choice, ServiceError where there is no answer.
        """
        options: dict[str, Any] = {"max_tokens": max_tokens}
        if messages[-1]["role"] == "assistant":
            options["extra_body"] = {"add_generation_prompt": False, "continue_final_message": True}
        found = self._complete(list(messages), options)
        choice, used = found.choices[0], found.usage
        return Said(
            choice.message.content or "",
            used.completion_tokens if used else None,
            choice.finish_reason == "length",
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _sampling(self) -> dict[str, Any]:
        chosen = {
            "temperature": self.config.temperature,
            "seed": self.config.seed,
            "max_completion_tokens": self.config.max_answer_tokens,
        }
        return {name: value for name, value in chosen.items() if value is not None}

    def _complete(self, messages: list[Any], options: dict[str, Any]) -> Any:
        """Return the server's reply, which has a choice."""
        import openai

        what = f"model {self.model!r} at {self._url or 'OpenAI'}"
        options |= self._sampling()
        try:
            reply = self._client.chat.completions.create(model=self.model, messages=messages, **options)
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise ServiceError(f"{what}: refused ({_said(error)}): check {KEY_VARIABLE}") from error
        except openai.NotFoundError as error:
            raise ServiceError(f"{what}: not there ({_said(error)}): check model and base_url") from error
        except openai.RateLimitError as error:
            raise ServiceError(
                f"{what}: too busy ({_said(error)}): what is done is kept, go on later"
            ) from error
        except openai.APIConnectionError as error:
            fix = "check base_url and the network, or raise timeout_s"
            raise ServiceError(f"{what}: no answer ({_said(error)}): {fix}") from error
        except openai.OpenAIError as error:
            fix = "if it does not know response_format, set answers to json_object or text"
            if "extra_body" in options:
                fix = "its server must know continue_final_message, as vLLM's does; or ask without a prefill"
            if "tools" in options:
                fix = "its model must know tools, and the server have them switched on"
            raise ServiceError(f"{what}: failed ({_said(error)}): {fix}") from error
        if not reply.choices:
            raise InvalidAnswerError(f"{what}: answers without a choice")
        return reply


def _tokens(reply: Any) -> tuple[int, int]:
    used = reply.usage
    return (used.prompt_tokens, used.completion_tokens) if used else (0, 0)


def _parsed(text: str, answer: type[Answer]) -> Answer:
    # Models that answer in words alone like to put their JSON between other words.
    start, stop = text.find("{"), text.rfind("}") + 1
    try:
        return answer.model_validate_json(text[start:stop] if start >= 0 else text)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise InvalidAnswerError(f"the model's answer {text[:EXCERPT]!r} is not as asked: {reason}") from None


def _said(error: Exception) -> str:
    return str(error)[:EXCERPT] or type(error).__name__
