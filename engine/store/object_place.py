"""A store in an object store that speaks S3: whole keys, and a lease where a folder would be locked."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any

from ft_audit.engine.store.failures import explained_object
from ft_audit.engine.store.lease import Lease
from ft_audit.engine.store.place import StoredFile
from ft_audit.errors import MissingExtraError, StoreError

if TYPE_CHECKING:
    from obstore.store import S3Store

# One request may take this long; a server that fails or is overloaded is asked again for as long as PATIENCE.
REQUEST_TIMEOUT = "60s"
PATIENCE = timedelta(seconds=150)
NUM_COPIES = 16
# A larger file, such as a table of many rows, goes in parts.
ONE_PART_BYTES = 64 << 20
_CONNECTING = Lock()


class ObjectPlace:
    """Implements `Place`; `location` is `s3://bucket` or `s3://bucket/prefix`."""

    def __init__(self, location: str) -> None:
        """Read the credentials, region and endpoint from the usual AWS_* variables; nothing is asked yet.

        Raises MissingExtraError when obstore is not installed, StoreError when the address has no bucket.
        """
        self.location = location
        self._clients: dict[int, S3Store] = {}
        bucket = location.split("/")[2] if location.count("/") >= 2 else ""
        if not bucket:
            raise StoreError(f"store {location!r} names no bucket: give s3://bucket/prefix")
        try:
            import obstore  # noqa: F401
        except ModuleNotFoundError:
            raise MissingExtraError(
                f"store {location!r} needs obstore, which is not installed: pip install 'ft-audit[s3]'"
            ) from None

    @property
    def client(self) -> "S3Store":
        # A fork gets a client of its own: connections and threads do not survive it.
        with _CONNECTING:
            if os.getpid() not in self._clients:
                self._clients[os.getpid()] = self._connect()
            return self._clients[os.getpid()]

    def _connect(self) -> "S3Store":
        from obstore.store import S3Store

        # Given options take the place of those that obstore reads from the environment.
        allow_http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
        bucket, _, prefix = self.location.removeprefix("s3://").partition("/")
        with explained_object("opening", self.location):
            return S3Store(
                bucket,
                prefix=prefix or None,
                client_options={"timeout": REQUEST_TIMEOUT, "allow_http": allow_http},
                retry_config={"max_retries": 20, "retry_timeout": PATIENCE},
            )

    def exists(self) -> bool:
        import obstore

        with explained_object("opening", self.location):
            try:
                obstore.list_with_delimiter(self.client)
            except FileNotFoundError:
                return False
            return True

    def read(self, key: str) -> bytes | None:
        import obstore

        with explained_object("reading", self._text(key)):
            try:
                return bytes(obstore.get(self.client, key).bytes())
            except FileNotFoundError:
                return None

    def read_small(self, key: str, limit: int) -> bytes | None:
        import obstore

        with explained_object("reading", self._text(key)):
            try:
                found = obstore.get(self.client, key)
                size = found.meta["size"]
                content = bytes(found.bytes()) if size <= limit else b""
            except FileNotFoundError:
                return None
        if size > limit:
            raise StoreError(f"{self._text(key)} has {size:,} bytes, more than {limit:,}: delete it")
        return content

    def put(self, key: str, content: bytes) -> None:
        import obstore

        with explained_object("writing", self._text(key)):
            obstore.put(self.client, key, content, use_multipart=len(content) > ONE_PART_BYTES)

    def replace(self, key: str, content: bytes) -> None:
        self.put(key, content)

    def files(self, folder: str) -> list[StoredFile]:
        import obstore

        with explained_object("listing", self._text(folder)):
            pages = obstore.list(self.client, prefix=folder, chunk_size=1000)
            found = [
                StoredFile(meta["path"], meta["size"], meta["last_modified"].timestamp())
                for page in pages
                for meta in page
            ]
        return sorted(found)

    def folders(self, folder: str) -> list[str]:
        import obstore

        with explained_object("listing", self._text(folder)):
            listing = obstore.list_with_delimiter(self.client, prefix=folder)
            return sorted(path.rstrip("/").rpartition("/")[2] for path in listing["common_prefixes"])

    def delete(self, folder: str) -> None:
        import obstore

        keys = [file.key for file in self.files(folder)] or [folder]
        with explained_object("deleting", self._text(folder)):
            # The shallowest first: a manifest goes before what it speaks of.
            top = min(key.count("/") for key in keys)
            for group in ([k for k in keys if k.count("/") == top], [k for k in keys if k.count("/") > top]):
                if group:
                    obstore.delete(self.client, group)

    def clear(self, folder: str) -> None:
        self.delete(folder)

    def modified(self, key: str) -> float:
        import obstore

        with explained_object("reading", self._text(key)):
            return obstore.head(self.client, key)["last_modified"].timestamp()

    def stage(self, folder: str) -> str:
        return folder

    def publish(self, staged: str, folder: str) -> None:
        """Do nothing: the list of checksums was put last, and only a manifest names the tree."""

    def move(self, source: str, target: str, last: str) -> None:
        import obstore

        keys = [file.key for file in self.files(source)]
        self.delete(target)

        def copy(key: str) -> None:
            with explained_object("copying", self._text(key)):
                obstore.copy(self.client, key, target + key.removeprefix(source))

        with ThreadPoolExecutor(NUM_COPIES) as pool:
            for _ in pool.map(copy, (key for key in keys if key != f"{source}/{last}")):
                pass
        copy(f"{source}/{last}")
        self.delete(source)

    def lock(self, folder: str) -> Lease:
        with explained_object("locking", self._text(folder)):
            return Lease(self.client, f"locks/{folder}.json", self._text(folder))

    def _text(self, key: str) -> str:
        return f"{self.location}/{key}"

    def __getstate__(self) -> dict[str, Any]:
        return {"location": self.location, "_clients": {}}
