"""A server that answers as Neuronpedia's API and public data set do, for one source of one model."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL, SOURCE = "gemma-3-1b-it", "22-gemmascope-2-res-16k"
REPO, FOLDER = "google/gemma-scope-2-1b-it", "resid_post/layer_22_width_16k_l0_medium"
LABELS = {3: "ships at sea", 5: "orders to obey", 12: "salt and spices"}
WIDTH = 64


class FakeNeuronpedia:
    """What is published, what was asked, and what goes wrong next."""

    def __init__(self, model: str = MODEL, source: str = SOURCE, width: int = WIDTH) -> None:
        self.model, self.source_id, self.width = model, source, width
        self.labels = dict(LABELS)
        self.source: dict[str, Any] = {
            "id": source,
            "modelId": model,
            "hfRepoId": REPO,
            "hfFolderId": FOLDER,
            "saelensConfig": None,
            "saelensRelease": None,
            "saelensSaeId": None,
            "setName": "gemmascope-2-res-16k",
            "hasDashboards": True,
            "visibility": "PUBLIC",
        }
        self.hook_name: str | None = "blocks.22.hook_resid_post"
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.left: int | None = None
        self.url = ""

    def row(self, index: int, *, whole: bool) -> dict[str, Any]:
        """A feature's row; a list of them holds neither the source nor the scores."""
        label = self.labels.get(index)
        explanation: dict[str, Any] = {
            "description": label,
            "explanationModelName": "gemini-2.0-flash",
            "typeName": "np_acts-logits-general",
        }
        if whole:
            explanation |= {"id": f"cm{index}", "scores": [], "triggeredByUser": None}
        row = {
            "modelId": self.model,
            "layer": self.source_id,
            "index": str(index),
            "hookName": self.hook_name,
            "maxActApprox": 812.5,
            "frac_nonzero": 0.001,
            "pos_str": ["ship"],
            "pos_values": [1.5],
            "vector": [],
            "explanations": [explanation] if label else [],
            "activations": [{"tokens": ["a", "ship"], "values": [0, 800.0], "maxValue": 800.0}],
        }
        return row | {"source": self.source, "sourceSet": {}, "model": {"id": self.model}} if whole else row

    def files(self) -> dict[str, bytes]:
        """The data set's files: explanations in the order of their features' numbers as text."""
        rows = [
            {
                "id": f"cm{index}",
                "modelId": self.model,
                "layer": self.source_id,
                "index": index,
                "description": self.labels[int(index)],
                "embedding": [0.1, 0.2],
                "typeName": "np_acts-logits-general",
                "explanationModelName": "gemini-2.0-flash",
                "umap_x": 0.0,
            }
            for index in sorted(map(str, self.labels))
        ]
        root = f"v1/{self.model}/{self.source_id}"
        found = {f"{root}/source.jsonl": (json.dumps(self.source) + "\n").encode()}
        for number, part in enumerate((rows[:2], rows[2:])):
            text = "".join(json.dumps(row) + "\n" for row in part)
            found[f"{root}/explanations/batch-{number}.jsonl.gz"] = gzip.compress(text.encode())
        return found

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """The status and body for a request."""
        if path.startswith("/v1/"):
            # An object store tells strangers nothing of what is not there.
            content = self.files().get(path[1:])
            return (403, b"<Error/>") if content is None else (200, content)
        if method == "POST" and path == "/api/features":
            asked = json.loads(body)
            assert isinstance(asked, list) and all(type(one["index"]) is int for one in asked)
            rows = [self.row(one["index"], whole=False) for one in asked if one["index"] < self.width]
            return 200, json.dumps(rows[::-1]).encode()
        kind, model, source, index = path.removeprefix("/api/").split("/")
        if (kind, model, source) != ("feature", self.model, self.source_id) or int(index) >= self.width:
            return 404, json.dumps({"message": "Not found"}).encode()
        return 200, json.dumps(self.row(int(index), whole=True)).encode()


@contextmanager
def serve(fake: FakeNeuronpedia) -> Iterator[FakeNeuronpedia]:
    """Answer on a port of this machine for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._do("GET", b"")

        def do_POST(self) -> None:
            self._do("POST", self.rfile.read(int(self.headers["Content-Length"])))

        def _do(self, method: str, body: bytes) -> None:
            fake.asked.append(f"{method} {self.path}")
            fake.headers.append({name.lower(): value for name, value in self.headers.items()})
            status, extra = fake.failures.pop(0) if fake.failures else (0, {})
            content = b'{"error": "busy"}'
            if not status:
                status, content = fake.answer(method, self.path, body)
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            if fake.left is not None:
                self.send_header("x-limit-remaining", str(fake.left))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
