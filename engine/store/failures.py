"""What to tell the user when the disk or the object store fails: what failed, what is safe, what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ft_audit.errors import StoreError

RESUME = "what was committed is intact, and the same command goes on from there"
_CAUSES = {
    errno.ENOSPC: ("the disk is full", "make room and run again"),
    errno.EDQUOT: ("the disk quota is used up", "make room and run again"),
    errno.EFBIG: ("the file is larger than this system or its limits allow", "raise the limit and run again"),
    errno.EACCES: ("permission denied", "give this user the right to write there and run again"),
    errno.EPERM: ("permission denied", "give this user the right to write there and run again"),
    errno.EROFS: ("the file system is read-only", "mount it for writing and run again"),
}


@contextmanager
def explained(action: str, what: str) -> Iterator[None]:
    """Turn an error of the operating system into a StoreError that names the action and the file."""
    try:
        yield
    except OSError as error:
        cause, remedy = _CAUSES.get(error.errno or 0, (error.strerror or str(error), "run again"))
        raise StoreError(f"{action} {what} failed: {cause}: {remedy}; {RESUME}") from error


@contextmanager
def explained_object(action: str, what: str) -> Iterator[None]:
    """Turn an error of the object store into a StoreError that names the action and the key."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
        cause, remedy = "permission denied", "check the AWS_* credentials and what they may do, and run again"
        raise StoreError(f"{action} {what} failed: {cause}: {remedy}; {RESUME}") from error
    except (BaseError, OSError) as error:
        detail = str(error).partition("\n")[0][:300]
        remedy = "check AWS_ENDPOINT_URL, the bucket and the network, and run again"
        raise StoreError(f"{action} {what} failed: {detail}: {remedy}; {RESUME}") from error
