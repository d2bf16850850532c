"""An audit by a language model over HTTP: the real client library, and a server that speaks the protocol."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from ft_audit import cli
from ft_audit.agent.client import ChatClient
from ft_audit.benchmarks.zoo.investigators import Arm, ask_model
from ft_audit.engine.config import ChatModelConfig, load_config
from ft_audit.engine.requests.request import EvidenceRequest
from ft_audit.engine.store import Store
from ft_audit.errors import ServiceError

KEY = "sk-very-secret"
Reply = Callable[[dict[str, Any]], dict[str, Any] | int]


@contextmanager
def serving(reply: Reply) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A chat-completions server whose messages, or HTTP statuses, `reply` gives; with what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            said = reply(body)
            status = said if isinstance(said, int) else 200
            choice = {"index": 0, "message": said, "finish_reason": "stop"}
            answer = {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [choice] if status == 200 else [],
                "usage": {"prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55},
            }
            content = json.dumps(answer if status == 200 else {"error": {"message": "no"}}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def calling(name: str, arguments: dict[str, Any], number: int) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": f"c{number}", "type": "function", "function": function}],
    }


def investigator(body: dict[str, Any]) -> dict[str, Any]:
    """Look at the templates, then report what was answered."""
    tools = [m for m in body["messages"] if m["role"] == "tool"]
    if not tools:
        return calling("elicited_behaviours", {}, 0)
    answer = json.loads(tools[0]["content"])
    session = body["messages"][1]["content"].split("Your session is ")[1].split(".")[0]
    worst = answer["templates"][1]
    finding = {
        "claim": f"Template {worst['key']} unlocks.",
        "evidence": [answer["evidence_id"]],
        "base_control": f"The base refuses {worst['refused_base']:.0%} under it.",
        "benign_percentile": None,
        "alternative": "A persona.",
    }
    conclusion = {
        "risk": 8.5,
        "confidence": 0.9,
        "root_cause": "unlocking system prompt",
        "summary": "One template unlocks.",
        "findings": [finding],
        "would_change_my_mind": "A control.",
        "differs_from_statistics": "So small a bank cannot say more.",
    }
    return calling("write_audit_report", {"session_id": session, "conclusion": conclusion}, 1)


def overrides(url: str, **more: Any) -> list[str]:
    chat = json.dumps({"chat": {"model": "tiny", "base_url": url, "max_retries": 0}, **more})
    return ["audit.investigator=openai", f"audit.agent={chat}"]


def test_an_audit_by_a_model_from_the_command_line(
    make_case: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    case = make_case(index=True, more=True)
    with serving(investigator) as (url, asked):
        code = cli.main(["audit", case.config_file, *overrides(url), "--json"])
        out = capsys.readouterr().out
        verdict = json.loads(out)
        assert code == 3 and verdict["investigator"] == "openai"
        assessment = verdict["assessment"]
        assert (assessment["status"], assessment["conclusion"]["risk"]) == ("concluded", 8.5)
        # The statistics stand beside it, as they would alone.
        assert verdict["risk"] == pytest.approx(case.verdict.risk)
        assert assessment["usage"]["tokens_in"] == 100 and assessment["usage"]["model"] == "tiny"
        assert {t["function"]["name"] for t in asked[0]["tools"]} >= {"health", "write_audit_report"}
        # Asked again, it is not asked again.
        assert cli.main(["audit", case.config_file, *overrides(url)]) == 3 and len(asked) == 2
    text = capsys.readouterr().out
    assert "8.5" in text and "One template unlocks." in text
    assert cli.main(["verify", verdict["paths"]["verdict"]]) == 0
    folder = Path(verdict["paths"]["verdict"]).parent
    assert {"verdict.json", "report.html", "transcript.jsonl"} == {path.name for path in folder.iterdir()}
    everything = "".join(path.read_text(encoding="utf-8") for path in folder.iterdir()) + out + text
    assert KEY not in everything and "One template unlocks." in everything
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "One template unlocks." in page and "elicited_behaviours" in page


def test_a_server_that_fails_keeps_what_was_said(make_case: Any, capsys: pytest.CaptureFixture[str]) -> None:
    case = make_case(index=True, more=True)
    turns: list[dict[str, Any]] = []

    def once(body: dict[str, Any]) -> dict[str, Any] | int:
        turns.append(body)
        return investigator(body) if len(turns) == 1 else 500

    with serving(once) as (url, _):
        assert cli.main(["audit", case.config_file, *overrides(url)]) == 1
        assert "model 'tiny'" in capsys.readouterr().err
        turns.clear()
        assert cli.main(["audit", case.config_file, *overrides(url), "--json"]) == 3
        assessment = json.loads(capsys.readouterr().out)["assessment"]
        assert assessment["status"] == "concluded" and assessment["usage"]["requests"] == 2


def test_answered_requests_begin_an_investigation_anew(
    make_case: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    case = make_case(index=True, more=True)
    requests = Store(case.config.store).requests(case.evidence.diff_id)
    ids: list[str] = []
    said: list[str] = []
    with serving(investigator) as (url, asked):

        def audit(*more: str) -> str:
            assert cli.main(["audit", case.config_file, *more, "--json"]) == 3
            captured = capsys.readouterr()
            said.append(captured.err)
            return str(json.loads(captured.out)["audit_id"])

        ids.append(audit(*overrides(url)))
        name = requests.queue(EvidenceRequest(name="a", why="b", prompts=("c",)))
        # What only waits changes nothing: the investigation has ended as it had.
        ids.append(audit(*overrides(url)))
        assert ids[0] == ids[1] and len(asked) == 2
        assert "not answered yet" not in said[0] and "1 requested prompts or suites are not" in said[1]
        statistics = audit()
        requests.put_answers(name, pa.table({"x": [1]}), ())
        ids.append(audit(*overrides(url)))
        assert ids[2] != ids[1] and len(asked) == 4
        assert "requested_evidence has 1 answered request" in asked[2]["messages"][1]["content"]
        assert "answered request" not in asked[0]["messages"][1]["content"]
        assert audit(*overrides(url)) == ids[2] and len(asked) == 4
        # Other answers to the same request are other evidence.
        requests.put_answers(name, pa.table({"x": [2]}), ())
        assert audit(*overrides(url)) not in ids
    assert audit() == statistics


def test_without_a_model_the_config_says_what_is_missing(
    needle: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["audit", needle.config_file, "audit.investigator=openai"]) == 1
    assert "set audit.agent.chat.model" in capsys.readouterr().err


def test_a_turn_without_a_choice_or_usage_is_an_error_in_words() -> None:
    with serving(lambda body: 404) as (url, _):
        client = ChatClient(ChatModelConfig(model="tiny", base_url=url, max_retries=0))
        with pytest.raises(ServiceError, match="not there"):
            client.converse([{"role": "user", "content": "Hi"}], [], "auto")
        client.close()


def member(body: dict[str, Any]) -> dict[str, Any]:
    """Investigate, rule that every claim holds, and conclude with the first of them."""
    form = body.get("response_format")
    if form is None:
        return investigator(body)
    if "holds" in form["json_schema"]["schema"]["properties"]:
        return {"role": "assistant", "content": json.dumps({"holds": "yes", "reason": "As shown."})}
    claim = json.loads(body["messages"][1]["content"])["claims"][0]
    finding = {name: claim[name] for name in ("claim", "evidence", "base_control", "benign_percentile")}
    conclusion = {
        "risk": 7.0,
        "confidence": 0.9,
        "root_cause": "unlocking phrase",
        "summary": "Together.",
        "findings": [{**finding, "alternative": "A persona."}],
        "would_change_my_mind": "A control.",
    }
    return {"role": "assistant", "content": json.dumps(conclusion)}


def test_several_investigations_over_http_and_their_mean_at_equal_cost(
    make_case: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    case = make_case(index=True, more=True)
    with serving(member) as (url, asked):
        several = overrides(url, num_audits=3)
        assert cli.main(["audit", case.config_file, *several, "--json"]) == 3
        out = json.loads(capsys.readouterr().out)
        found = out["assessment"]
        assert (found["concluded_by"], found["conclusion"]["risk"], found["mean_risk"]) == (
            "aggregator",
            7.0,
            8.5,
        )
        assert [check["ruling"] for check in found["checks"]] == ["holds"]
        assert sorted(body.get("seed") for body in asked if "tools" in body) == [1, 1, 2, 2, 3, 3]
        assert cli.main(["verify", out["paths"]["verdict"]]) == 0
        page = Path(out["paths"]["report"]).read_text(encoding="utf-8")
        assert (
            "3 investigations without sight of each other" in page and "Timeline of investigation 3" in page
        )
        capsys.readouterr()
        config = load_config(case.config_file, several)
        one = SimpleNamespace(config=config, evidence=case.evidence, calibration=case.calibration)
        rows = dict(ask_model(one, Arm("full", 3)))
    concluded, plain = rows.values()
    assert list(rows) == ["full, 3, checked and concluded", "full, 3, plain mean at equal cost"]
    # Three investigations of two turns, a ruling and a conclusion, of 55 tokens each: two turns are one more.
    assert (concluded.risk, concluded.cause, concluded.tokens) == (7.0, "unlocking phrase", 8 * 55)
    assert (plain.risk, plain.cause, plain.tokens) == (8.5, "unlocking system prompt", 8 * 55)


def test_calls_in_json_over_http(make_case: Any, capsys: pytest.CaptureFixture[str]) -> None:
    case = make_case(index=True, more=True)

    def writes(body: dict[str, Any]) -> dict[str, Any]:
        """Say the same as `investigator`, as text."""
        assert "tools" not in body and body["response_format"]["type"] == "json_schema"
        said = [m["content"] for m in body["messages"]]
        told = [text.partition(": ")[2] for text in said if text.startswith("Answer")]
        messages = [*body["messages"][:2], *({"role": "tool", "content": text} for text in told)]
        call = investigator({"messages": messages})["tool_calls"][0]["function"]
        written = {"tool": call["name"], "arguments": json.loads(call["arguments"])}
        return {"role": "assistant", "content": json.dumps(written)}

    with serving(writes) as (url, _):
        assert cli.main(["audit", case.config_file, *overrides(url, calls="json"), "--json"]) == 3
    out = json.loads(capsys.readouterr().out)
    assert out["assessment"]["status"] == "concluded" and out["assessment"]["usage"]["tool_calls"] == 2
    page = Path(out["paths"]["report"]).read_text(encoding="utf-8")
    assert "Timeline: 2 steps" in page and "Answer of elicited_behaviours" in page
