"""The sole right to write under a folder of an object store: an object that its holder keeps renewing.

It is put and renewed on the condition that nobody else did meanwhile, so two processes never hold it at once.
The server's clock alone says how old it is. A holder that dies stops renewing, and another takes over.
"""

import json
import os
import secrets
import socket
import time
import weakref
from contextlib import suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from ft_audit.engine.store.failures import explained_object
from ft_audit.errors import StoreError

if TYPE_CHECKING:
    from obstore.store import S3Store

LEASE_SECONDS = 60.0
CLOCK_KEY = "locks/clock"


class Lease:
    """Held until released or forgotten, or until another takes it over after it could not be renewed."""

    def __init__(self, client: "S3Store", key: str, what: str) -> None:
        """Take the lease; StoreError names who has it."""
        self._holding = _Holding(client, key, what)
        self._holding.take()
        Thread(target=self._holding.keep, name=f"lease {key}", daemon=True).start()
        self._stop = weakref.finalize(self, self._holding.give_up)

    @property
    def held(self) -> bool:
        return self._stop.alive

    def check(self) -> None:
        """Raise StoreError when another process took the lease, as when the network was away for too long."""
        holding = self._holding
        with explained_object("locking", holding.what):
            ours = not holding.lost and (holding.age() <= holding.seconds or holding.renew())
        if not ours:
            raise StoreError(
                f"{holding.what}: the sole right to write there ran out and another process took it: "
                f"what was committed is intact; run again when that one has finished"
            )

    def release(self) -> None:
        self._stop()


class _Holding:
    """The lease's object and what is known of it; not `Lease` itself, which the thread would keep alive."""

    def __init__(self, client: "S3Store", key: str, what: str) -> None:
        self.what, self.seconds, self.lost = what, LEASE_SECONDS, False
        self._client, self._key = client, key
        self._nonce = secrets.token_hex(8)
        self._etag: str | None = None
        self._renewed = time.monotonic()
        self._stopped = Event()

    def age(self) -> float:
        """Seconds since the lease was certainly renewed."""
        return time.monotonic() - self._renewed

    def take(self) -> None:
        if self._put("create"):
            return
        found = self._read()
        if found is not None and not self._is_over(found):
            holder = f"{found['host']}, process {found['pid']}"
            raise StoreError(
                f"another process is writing {self.what} ({holder}): wait until it has finished, or stop it; "
                f"its right ends {found['seconds']:.0f} s after it dies"
            )
        if not self._put("create" if found is None else {"e_tag": found["etag"]}):
            raise StoreError(
                f"another process is writing {self.what}, since just now: wait until it has ended"
            )

    def renew(self) -> bool:
        """Renew the lease and return whether it is still ours."""
        self.lost = self.lost or not self._put({"e_tag": self._etag})
        return not self.lost

    def keep(self) -> None:
        from obstore.exceptions import BaseError

        while not self.lost and not self._stopped.wait(self.seconds / 4):
            # A failure is tried again; `check` speaks up once the lease is too old.
            with suppress(BaseError, OSError):
                self.renew()

    def give_up(self) -> None:
        import obstore
        from obstore.exceptions import BaseError

        self._stopped.set()
        # Where the store is away, the lease runs out by itself.
        with suppress(BaseError, OSError):
            found = self._read()
            if found is not None and found["nonce"] == self._nonce:
                obstore.delete(self._client, self._key)

    def _put(self, mode: Any) -> bool:
        """Put the object under the mode's condition; return whether it is ours now."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        asked = time.monotonic()
        facts = {"nonce": self._nonce, "host": socket.gethostname(), "pid": os.getpid()}
        content = json.dumps({**facts, "seconds": self.seconds}).encode()
        try:
            done = obstore.put(self._client, self._key, content, mode=mode, use_multipart=False)
            self._etag = done["e_tag"]
        except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
            if isinstance(error, FileNotFoundError) and mode == "create":
                raise  # not the lease is missing, but the bucket
            # A request whose answer was lost is sent again, and then finds its own first try.
            found = self._read()
            if found is None or found["nonce"] != self._nonce:
                return False
            self._etag = found["etag"]
        self._renewed = asked
        return True

    def _read(self) -> dict[str, Any] | None:
        import obstore

        try:
            answer = obstore.get(self._client, self._key)
        except FileNotFoundError:
            return None
        facts: dict[str, Any] = json.loads(bytes(answer.bytes()))
        return {**facts, "etag": answer.meta["e_tag"], "modified": answer.meta["last_modified"]}

    def _is_over(self, found: dict[str, Any]) -> bool:
        if found["host"] == socket.gethostname() and not _is_alive(found["pid"]):
            return True
        age = self._server_time() - found["modified"]
        return bool(age.total_seconds() > found["seconds"])

    def _server_time(self) -> Any:
        import obstore

        obstore.put(self._client, CLOCK_KEY, b"")
        return obstore.head(self._client, CLOCK_KEY)["last_modified"]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
