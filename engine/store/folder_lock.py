"""An exclusive lock on a folder of this machine, which the system drops when the process dies."""

import fcntl
import os
import weakref
from pathlib import Path

from ft_audit.errors import StoreError


class FolderLock:
    """Held until released or forgotten."""

    def __init__(self, folder: Path) -> None:
        handle = os.open(folder, os.O_RDONLY)
        try:
            # The folder itself is locked: a lock file inside would be one more file to compare.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(os.fstat(handle).st_ino)
            os.close(handle)
            raise StoreError(
                f"another process is writing {folder}{holder}: wait until it has finished, or stop it"
            ) from None
        # Closing the handle unlocks; the finalizer also closes it when the owner is forgotten.
        self._close = weakref.finalize(self, os.close, handle)

    @property
    def held(self) -> bool:
        return self._close.alive

    def check(self) -> None:
        """Do nothing: nobody can take this lock away."""

    def release(self) -> None:
        self._close()


def _holder(inode: int) -> str:
    """Return " (process N)" for the process that has locked the inode, nothing where that is not known."""
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return ""
    # "1: FLOCK  ADVISORY  WRITE 1234 08:01:131 0 EOF"
    found = [fields for line in lines if (fields := line.split())[1] == "FLOCK" and len(fields) > 5]
    pids = {fields[4] for fields in found if fields[5].rpartition(":")[2] == str(inode)}
    return f" (process {', '.join(sorted(pids))})" if pids else ""
