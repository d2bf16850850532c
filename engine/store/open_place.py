"""Finds the kind of place that a store's root names."""

from pathlib import Path

from ft_audit.engine.store.local_place import LocalPlace
from ft_audit.engine.store.place import Place
from ft_audit.errors import StoreError

S3_SCHEME = "s3://"


def open_place(root: str | Path) -> Place:
    """The place that a store's root names; nothing is made or read.

    Raises StoreError for a scheme other than `s3://`, MissingExtraError when its library is not installed.
    """
    text = str(root)
    if text.startswith(S3_SCHEME):
        from ft_audit.engine.store.object_place import ObjectPlace

        return ObjectPlace(text.rstrip("/"))
    if "://" in text:
        raise StoreError(f"store {text!r}: give a folder of this machine or {S3_SCHEME}bucket/prefix")
    return LocalPlace(str(Path(root).expanduser().absolute()))
