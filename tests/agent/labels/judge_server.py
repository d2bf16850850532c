"""An OpenAI-compatible server on this machine whose model judges labels by a rule."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class RuleModel:
    """Knows words by the name that a label begins with; `mode` makes it lazy, broken or refusing."""

    def __init__(self, families: dict[str, list[str]]) -> None:
        self.families = families
        self.mode = "rule"
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self.url = ""

    def reply(self, body: dict[str, Any]) -> str:
        """The text of the model's answer."""
        question = json.loads(body["messages"][1]["content"])
        if "contexts" in question:
            marked = re.findall(r"<<\s*(\w+)", " ".join(question["contexts"]))
            name = next(name for name, words in self.families.items() if marked[0] in words)
            return json.dumps({"label": f"{name}:\n words of {name}"})
        texts = question["texts"]
        if self.mode == "broken":
            return "I would rather not say."
        if self.mode == "short":
            return json.dumps({"fits": [True]})
        if self.mode == "chatty":
            return (
                f"Here you are:\n```json\n{json.dumps({'fits': self._fits(question)})}\n```\nAnything else?"
            )
        constant = {"none": False, "all": True}.get(self.mode)
        return json.dumps({"fits": self._fits(question) if constant is None else [constant] * len(texts)})

    def _fits(self, question: dict[str, Any]) -> list[bool]:
        words = self.families.get(question["label"].partition(":")[0], [])
        return [self._fits_one(text, words) for text in question["texts"]]

    def _fits_one(self, text: str, words: list[str]) -> bool:
        marked = " ".join(re.findall(r"<<(.*?)>>", text)).split()
        # Where tokens are marked they are all judged; else any word may make the text fit.
        return all(word in words for word in marked) if marked else any(w in words for w in text.split())


@contextmanager
def serve(model: RuleModel) -> Iterator[RuleModel]:
    """Answer on a port of this machine for the length of the block."""
    handler = _handler(model.reply, model)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    model.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(reply: Callable[[dict[str, Any]], str], model: RuleModel) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            model.asked.append(body)
            model.headers.append({name.lower(): value for name, value in self.headers.items()})
            status = model.statuses.pop(0) if model.statuses else 200
            if self.path != "/v1/chat/completions":
                status = 404
            answer: dict[str, Any] = {"error": {"message": f"status {status}", "type": "t", "code": None}}
            if status == 200:
                message = {"role": "assistant", "content": reply(body)}
                answer = {
                    "id": "chatcmpl-1",
                    "object": "chat.completion",
                    "created": 1,
                    "model": body["model"],
                    "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                }
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if status == 429:
                self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    return Handler
