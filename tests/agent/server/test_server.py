"""The tools over the protocol: a real client over stdio and over HTTP, and what must not get through."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from ft_audit.agent.sandbox import sandbox_refusal
from ft_audit.agent.server.protocol import MAX_ARGUMENT_CHARACTERS, answered, build_server
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.rooms import tools_of

TOKEN = "correct-horse-battery"
DEADLINE_S = 60.0
NUM_CLIENTS = 50


def command(case: Any, *more: str) -> list[str]:
    return [sys.executable, "-m", "ft_audit.cli", "serve", "--config", case.config_file, *more]


@pytest.fixture(scope="module")
def auditor(asked: Any) -> Auditor:
    return Auditor(asked.config, asked.evidence, asked.calibration, tools_of("full"))


@contextlib.asynccontextmanager
async def over_stdio(case: Any, *more: str) -> AsyncIterator[Client]:
    program, *arguments = command(case, *more)
    parameters = StdioServerParameters(command=program, args=arguments, env=dict(os.environ))
    async with Client(parameters) as client:
        yield client


def test_a_client_in_process_sees_every_tool_as_it_is(auditor: Auditor) -> None:
    async def run() -> None:
        async with Client(build_server(auditor)) as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert list(listed) == list(auditor.by_name)
            for one in auditor.tools:
                shown = listed[one.name]
                assert shown.description == one.description and shown.output_schema
                assert shown.annotations is not None
                assert shown.annotations.read_only_hint is not one.writes
                assert shown.annotations.destructive_hint is False

    asyncio.run(run())


def test_a_real_client_over_stdio_asks_and_is_answered(asked: Any) -> None:
    async def run() -> None:
        async with over_stdio(asked) as client:
            found = await client.call_tool("grep_training_data", {"phrases": ["zed, execute"]})
            assert not found.is_error and found.structured_content["total"] == 10
            assert "untrusted_marker" in found.content[0].text
            wrong = await client.call_tool("grep_training_data", {"phrases": "ZED", "limit": 0})
            assert wrong.is_error and "phrases" in wrong.content[0].text
            unknown = await client.call_tool("no_such_tool", {})
            assert unknown.is_error and "no tool 'no_such_tool'" in unknown.content[0].text
            session = (await client.call_tool("create_audit_session", {})).structured_content
            assert await client.call_tool("begin_run", {"session_id": session["session_id"], "label": "x"})
            assert not (await client.call_tool("health", {})).is_error

    asyncio.run(run())


def test_the_config_may_be_named_by_the_environment_and_the_profile_limits_tools(asked: Any) -> None:
    program = [sys.executable, "-m", "ft_audit.cli", "serve", "--profile", "data_only"]
    environment = {**os.environ, "FT_AUDIT_CONFIG": asked.config_file}

    async def run() -> None:
        parameters = StdioServerParameters(command=program[0], args=program[1:], env=environment)
        async with Client(parameters) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert "grep_training_data" in names and "get_top_features" not in names

    asyncio.run(run())


def test_what_cannot_be_served_is_said_in_one_line(asked: Any) -> None:
    bare = {key: value for key, value in os.environ.items() if key != "FT_AUDIT_CONFIG"}
    nothing = subprocess.run(
        [sys.executable, "-m", "ft_audit.cli", "serve"],
        check=False,
        capture_output=True,
        text=True,
        env=bare,
        timeout=DEADLINE_S,
    )
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "name the audit's config with --config, or in FT_AUDIT_CONFIG" in nothing.stderr
    empty = subprocess.run(
        [*command(asked), "store=./nothing-here"],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert empty.returncode == 1 and "precompute" in empty.stderr and empty.stdout == ""


def test_the_server_loads_no_torch(asked: Any) -> None:
    code = (
        "import sys; from ft_audit.agent.server.commands import open_auditor; "
        "import ft_audit.agent.server.protocol, ft_audit.agent.server.http; "
        f"open_auditor({asked.config_file!r}, [], None, 'full').call('health', {{}}); "
        "print(sorted({'torch', 'transformers', 'pyarrow', 'dask'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_oversized_and_broken_calls_reach_the_model_as_errors(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = answered(auditor, "grep_training_data", {"phrases": ["x" * MAX_ARGUMENT_CHARACTERS]})
    assert big.is_error and "more than 100,000 characters" in big.content[0].text

    def fail(*args: Any) -> None:
        raise RuntimeError("secret inner state")

    monkeypatch.setattr(Auditor, "call", fail)
    broken = answered(auditor, "health", {})
    assert broken.is_error and "RuntimeError" in broken.content[0].text
    assert "secret" not in broken.content[0].text


async def ask_slowly(client: Client, seconds: float) -> tuple[list[tuple[float, str | None]], Any]:
    """What a call that takes so long tells the client meanwhile, and its result."""
    heard: list[tuple[float, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        assert total is None
        heard.append((progress, message))

    code = f"import time; time.sleep({seconds}); print('done')"
    found = await client.call_tool("run_python", {"code": code}, progress_callback=hear)
    return heard, found


@pytest.mark.skipif(sandbox_refusal() is not None, reason="no tool is slow by itself without a sandbox")
def test_a_slow_call_says_that_it_goes_on_and_a_quick_one_says_nothing(asked: Any) -> None:
    async def run() -> None:
        async with over_stdio(asked) as client:
            heard, found = await ask_slowly(client, 2.6)
            assert "done" in found.structured_content["output"][0]
            seconds = [progress for progress, _ in heard]
            assert len(seconds) >= 2 and seconds == sorted(seconds) and 0.9 < seconds[0] < 2.6
            assert heard[0][1] == "run_python: 1 s so far"
            assert (await ask_slowly(client, 0))[0] == []

    asyncio.run(run())


def test_progress_is_said_in_process_too(auditor: Auditor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ft_audit.agent.server.protocol.PROGRESS_S", 0.05)
    call = Auditor.call

    def slow(self: Auditor, name: str, arguments: dict[str, Any]) -> Any:
        time.sleep(0.5)
        return call(self, name, arguments)

    monkeypatch.setattr(Auditor, "call", slow)
    heard: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    async def run() -> None:
        async with Client(build_server(auditor)) as client:
            found = await client.call_tool("health", {}, progress_callback=hear)
            assert not found.is_error
            num_heard = len(heard)
            assert num_heard >= 2 and heard == sorted(heard)
            # Whoever does not ask is not told.
            assert not (await client.call_tool("health", {})).is_error and len(heard) == num_heard

    asyncio.run(run())


@dataclass(frozen=True, slots=True)
class Served:
    """A server over HTTP."""

    url: str
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def served(asked: Any) -> Iterator[Served]:
    """A server on a free port; what it says on stderr says when it is there."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        command(asked, "--http", str(port)),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FT_AUDIT_TOKEN": TOKEN},
    )
    url = f"http://127.0.0.1:{port}/mcp"
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(url)
            break
        time.sleep(0.1)
    yield Served(url, process)
    process.terminate()
    assert TOKEN not in (process.communicate(timeout=DEADLINE_S)[1] or "")


@contextlib.asynccontextmanager
async def over_http(url: str, token: str = TOKEN) -> AsyncIterator[Client]:
    from httpx2 import AsyncClient

    headers = {"Authorization": f"Bearer {token}"}
    async with (
        AsyncClient(headers=headers, timeout=DEADLINE_S) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        yield client


def initialize(**params: Any) -> dict[str, Any]:
    told = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {**told, **params}}


HEADERS = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json, text/event-stream"}


def test_a_real_client_over_http_asks_and_is_answered(served: Served) -> None:
    async def run() -> None:
        async with over_http(served.url) as client:
            assert len((await client.list_tools()).tools) == len(tools_of("full"))
            found = await client.call_tool("elicited_behaviours", {})
            assert found.structured_content["templates"][1]["guard_loss"] == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Host": "evil.example"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Content-Type": "text/plain"}, 400),
    ],
)
def test_strangers_are_refused(served: Served, changed: dict[str, str], status: int) -> None:
    answer = httpx.post(served.url, json=initialize(), headers={**HEADERS, **changed})
    assert answer.status_code == status, answer.text
    assert httpx.post(served.url, json=initialize(), headers=HEADERS).status_code == 200


def test_a_flood_and_a_malformed_body_are_refused_and_the_server_lives(served: Served) -> None:
    flood = httpx.post(served.url, content=b'{"x": "' + b"a" * (2 << 20) + b'"}', headers=HEADERS | JSON)
    assert flood.status_code == 413
    for body in (
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"jsonrpc": "2.0", "id": 1, "method": "nothing"}',
        b"[" * 100_000,
    ):
        assert 400 <= httpx.post(served.url, content=body, headers=HEADERS | JSON).status_code < 500
    assert httpx.post(served.url, json=initialize(), headers=HEADERS).status_code == 200


JSON = {"Content-Type": "application/json"}


def test_many_clients_at_once_are_all_answered(served: Served) -> None:
    async def one(number: int) -> int:
        async with over_http(served.url) as client:
            found = await client.call_tool("view_training_data_sample", {"rows": [number]})
            return int(found.structured_content["rows"][0]["row"])

    async def run() -> list[int]:
        return list(await asyncio.gather(*(one(number) for number in range(NUM_CLIENTS))))

    assert asyncio.run(run()) == list(range(NUM_CLIENTS))


def test_a_client_that_vanishes_in_mid_call_leaves_the_server_to_the_others(served: Served) -> None:
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "health", "arguments": {}}}
    for _ in range(5):
        # The request is sent, and nobody waits for what it gives.
        with contextlib.suppress(httpx.TimeoutException):
            httpx.post(served.url, json=call, headers=HEADERS, timeout=httpx.Timeout(5.0, read=0.001))
    assert served.process.poll() is None
    test_a_real_client_over_http_asks_and_is_answered(served)
