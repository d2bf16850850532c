"""Asks a public service politely: a pace, fewer questions when few are left, patience when it is busy."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException

from ft_audit.errors import ServiceError

USER_AGENT = "ft-audit (labels)"
TIMEOUT_S = 60.0
MAX_BYTES = 256 << 20  # of one answer; a service that sends more is not the one we mean
NUM_ATTEMPTS = 6
FIRST_WAIT_S, MAX_WAIT_S = 1.0, 120.0
# With so few questions left in the service's hour, the rest of them are spread.
FEW_LEFT, SLOW_INTERVAL_S = 100, 5.0
BUSY = (429, 500, 502, 503, 504)


@dataclass(slots=True)
class PoliteHttp:
    """Requests to one service, one after another; `key` goes to that service alone and not to a redirect."""

    requests_per_second: float = 4.0
    key: str | None = None
    sleep: Callable[[float], None] = time.sleep
    num_requests: int = 0
    _interval_s: float = field(init=False)
    _last: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._interval_s = 1.0 / self.requests_per_second

    def get(self, url: str, absent: Collection[int] = (404,)) -> bytes | None:
        """Return the answer's bytes, None where its status says that there is no such thing.

        Raises ServiceError where the service refuses, or is busy or silent for too long.
        """
        return self._ask(urllib.request.Request(_checked(url)), absent)

    def post_json(self, url: str, body: bytes) -> bytes | None:
        """Return the answer to a JSON body."""
        request = urllib.request.Request(_checked(url), data=body, method="POST")
        request.add_header("Content-Type", "application/json")
        return self._ask(request, (404,))

    def _ask(self, request: urllib.request.Request, absent: Collection[int]) -> bytes | None:
        request.add_header("User-Agent", USER_AGENT)
        if self.key:
            request.add_unredirected_header("x-api-key", self.key)
        problem = ""
        for attempt in range(NUM_ATTEMPTS):
            self._keep_pace()
            wait = FIRST_WAIT_S * 2**attempt
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                    self._look_at(answer.headers)
                    content: bytes = answer.read(MAX_BYTES + 1)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code in absent:
                        return None
                    if error.code not in BUSY:
                        raise _refused(request, error) from None
                    problem, wait = f"HTTP {error.code}", _asked_wait(error.headers, wait)
            except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
                problem = str(getattr(error, "reason", error)) or type(error).__name__
            else:
                if len(content) > MAX_BYTES:
                    raise ServiceError(
                        f"{request.full_url} sends more than {MAX_BYTES >> 20} MB: check the URL"
                    )
                return content
            if wait > MAX_WAIT_S:
                raise ServiceError(
                    f"{request.full_url} asks to be left alone for {wait:.0f} s ({problem}): what was "
                    "fetched is kept, run again then"
                )
            if attempt < NUM_ATTEMPTS - 1:
                self.sleep(wait)
        raise ServiceError(
            f"{request.full_url} did not answer {NUM_ATTEMPTS} times ({problem}): check the address and the "
            "network, or use what is in the cache with --offline"
        )

    def _keep_pace(self) -> None:
        early = self._last + self._interval_s - time.monotonic()
        if self._last and early > 0:
            self.sleep(early)
        self._last = time.monotonic()
        self.num_requests += 1

    def _look_at(self, headers: Message) -> None:
        left = headers.get("x-limit-remaining", "")
        if left.isdigit():
            plain = 1.0 / self.requests_per_second
            self._interval_s = max(plain, SLOW_INTERVAL_S) if int(left) < FEW_LEFT else plain


def _checked(url: str) -> str:
    if not url.startswith(("https://", "http://")):
        raise ServiceError(f"{url!r} is no web address: give one that begins with https://")
    return url


def _asked_wait(headers: Message, otherwise: float) -> float:
    """Return how long `Retry-After` asks to wait, in seconds or until a date."""
    asked = headers.get("Retry-After", "").strip()
    if asked.isdigit():
        return float(asked)
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:
        return otherwise


def _refused(request: urllib.request.Request, error: urllib.error.HTTPError) -> ServiceError:
    said = error.read(500).decode("utf-8", "replace")
    fix = (
        "check NEURONPEDIA_API_KEY" if error.code in (401, 403) else "check the model's and the source's name"
    )
    return ServiceError(f"{request.full_url} refuses with HTTP {error.code} ({said!r}): {fix}")
