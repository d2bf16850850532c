"""What holds for every test: nothing is fetched, Triton runs without a GPU too, and an S3 server answers."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import torch

# huggingface_hub reads it once, when it is first imported; so it stands before any test module.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# Triton reads it when it is first imported. Where there is a GPU, the same tests run there natively.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The bucket of a real S3 server of this machine, its address and credentials in the environment."""
    import boto3

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    # A process of its own, as a client that waits for an answer may hold this one's interpreter.
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            wait_for(port, server)
            boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="evidence")
            yield "s3://evidence"
    finally:
        server.kill()
        server.wait()


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Return once the server answers."""
    while server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise AssertionError(f"the S3 server ended with {server.returncode}")


@pytest.fixture
def s3_root(s3_server: str, tmp_path: Path) -> str:
    """A new, empty store on the S3 server."""
    return f"{s3_server}/{tmp_path.name}-{uuid4().hex[:8]}"
