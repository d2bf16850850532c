"""The demo audited by a language model on this machine: a GGUF file behind llama.cpp's server."""

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from ft_audit.benchmarks.demo import CANDIDATES, VERDICT_CODES
from ft_audit.engine.config import find_config
from ft_audit.errors import MissingExtraError, ServiceError, UserError

START_SECONDS = 300.0
MAX_CONTEXT_TOKENS = 32_768
ANSWER_TOKENS = 1_200
"""An investigator's longest answer is its report."""
SERVER = """
import sys, time
import xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path = sys.argv[1]
settings.hostnames = ["127.0.0.1"]
settings.port = 0
settings.n_ctx = int(sys.argv[2])
settings.n_parallel = 1
settings.warmup = False
server = xllamacpp.Server(settings)
print("listening", server.listening_address, flush=True)
while True:
    time.sleep(3600)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Audit the demo's candidates, which `make demo` has precomputed, and print each verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", type=Path, help="the model's file")
    parser.add_argument("--candidate", action="append", choices=CANDIDATES, help="only this one")
    parser.add_argument("--context", type=int, default=MAX_CONTEXT_TOKENS, help="tokens it reads at once")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="audit.agent.max_requests=10")
    args = parser.parse_intermixed_args(argv)
    try:
        with serving(args.gguf, args.context) as url:
            for name in args.candidate or CANDIDATES:
                audit(name, url, args.gguf.stem, args.context, args.overrides)
    except UserError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def audit(name: str, url: str, model: str, context: int, overrides: Sequence[str] = ()) -> None:
    """Run the audit verb of one candidate with the served model as investigator."""
    agent = {
        "chat": {"model": model, "base_url": url, "timeout_s": 900, "max_answer_tokens": ANSWER_TOKENS},
        "calls": "json",
        "max_context_tokens": context,
    }
    options = ["--investigator", "openai", f"audit.agent={json.dumps(agent)}", *overrides]
    config = str(find_config(f"configs:demo_{name}.yaml"))
    command = [sys.executable, "-m", "ft_audit.cli", "audit", config, *options]
    if subprocess.run(command, check=False).returncode not in VERDICT_CODES:
        raise ServiceError(f"the audit of {name} failed, as it said itself; its transcript is kept")


@contextmanager
def serving(gguf: Path, context: int) -> Iterator[str]:
    """The address of an OpenAI-compatible server for the block; it ends with the block.

    Raises:
        MissingExtraError: xllamacpp, llama.cpp's server for Python, is not installed.
        ServiceError: there is no such file, or the server does not come up.
    """
    if find_spec("xllamacpp") is None:
        raise MissingExtraError("the model is served by llama.cpp: pip install xllamacpp")
    if not gguf.is_file():
        raise ServiceError(f"{gguf}: no such model; name a GGUF file whose model can chat")
    command = [sys.executable, "-c", SERVER, str(gguf), str(context)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None, "its output was asked for"
        stop = threading.Timer(START_SECONDS, server.kill)
        stop.start()
        address = next((line.split()[1] for line in server.stdout if line.startswith("listening ")), None)
        stop.cancel()
        try:
            if address is None:
                raise ServiceError(f"{gguf}: llama.cpp's server did not come up; is it a GGUF file?")
            yield f"{address}/v1"
        finally:
            server.kill()


if __name__ == "__main__":
    sys.exit(main())
