"""The one way to a language model: structured answers over real HTTP, and errors that say the fix."""

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from ft_audit.agent.client import ChatClient, InvalidAnswerError
from ft_audit.engine.config import ChatModelConfig
from ft_audit.errors import MissingExtraError, ServiceError


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    fits: list[bool]


QUESTION = '{"label": "ships: x", "texts": ["a boat", "a tree"]}'


@pytest.fixture
def ask(judge: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ask the running server once; keys change the model's config."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def asked(**changed: Any) -> Answer:
        told = {"model": "rules", "base_url": judge.url, "max_retries": 2, **changed}
        client = ChatClient(ChatModelConfig(**told))
        try:
            return client.ask("Judge.", QUESTION, Answer).answer
        finally:
            client.close()

    return asked


@pytest.mark.parametrize("answers", ["json_schema", "json_object", "text"])
def test_the_form_of_an_answer_is_asked_for(ask: Any, judge: Any, answers: str) -> None:
    assert ask(answers=answers).fits == [True, False]
    (body,) = judge.asked
    assert body["model"] == "rules" and body["temperature"] == 0
    assert '"fits"' in body["messages"][0]["content"] and body["messages"][1]["content"] == QUESTION
    form = body.get("response_format")
    assert (form and form["type"]) == (None if answers == "text" else answers)
    if answers == "json_schema":
        assert form["json_schema"]["strict"] and form["json_schema"]["schema"]["required"] == ["fits"]


def test_the_temperature_can_be_left_to_the_server(ask: Any, judge: Any) -> None:
    ask(temperature=None)
    assert "temperature" not in judge.asked[0]


def test_json_between_other_words_is_found(ask: Any, judge: Any) -> None:
    judge.mode = "chatty"
    assert ask(answers="text").fits == [True, False]


def test_an_answer_of_another_form_is_an_error_of_its_own(ask: Any, judge: Any) -> None:
    judge.mode = "broken"
    with pytest.raises(InvalidAnswerError, match=r"I would rather not say.*not as asked"):
        ask()


def test_a_busy_server_is_asked_again(ask: Any, judge: Any) -> None:
    judge.statuses = [429, 500]
    assert ask().fits == [True, False] and len(judge.asked) == 3


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, r"refused.*OPENAI_API_KEY"),
        (404, r"not there.*check model and base_url"),
        (429, r"too busy.*what is done is kept"),
        (400, r"failed.*set answers to json_object or text"),
    ],
)
def test_errors_say_the_fix(ask: Any, judge: Any, status: int, said: str) -> None:
    judge.statuses = [status] * 4
    with pytest.raises(ServiceError, match=said) as caught:
        ask()
    assert not isinstance(caught.value, InvalidAnswerError)


def test_a_server_that_is_not_there_is_named(ask: Any) -> None:
    with pytest.raises(ServiceError, match=r"http://127\.0\.0\.1:1/v1: no answer.*check base_url"):
        ask(base_url="http://127.0.0.1:1/v1", max_retries=0)


def test_address_and_key_come_from_the_environment(
    ask: Any, judge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask()
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_BASE_URL", judge.url)
    ask(base_url=None)
    assert [headers["authorization"] for headers in judge.headers] == ["Bearer none", "Bearer secret"]


def test_openai_s_own_server_wants_a_key(ask: Any) -> None:
    with pytest.raises(ServiceError, match=r"wants a key: set OPENAI_API_KEY, or name another server"):
        ask(base_url=None)


def test_without_the_library_the_extra_is_named(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ft-audit\[openai\]'"):
        ask()
