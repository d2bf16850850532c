"""Writes the shared run onto a disk that fails in its middle and is mended, and says what happened as JSON.

    python store_faults.py FOLDER full|read-only|limit|forbidden

`full` and `read-only` need a file system of their own: run it under `unshare -Urm`.
"""

import hashlib
import json
import os
import resource
import runpy
import subprocess
import sys
from pathlib import Path

from ft_audit.engine.store import Store
from ft_audit.errors import StoreError

NOBODY = 65534
case = runpy.run_path(str(Path(__file__).parent / "store_case.py"))


def mount(folder: str, *options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder], check=True)


def break_disk(folder: str, fault: str) -> None:
    if fault == "forbidden":
        for inner in Path(folder).glob("runs/**/segments"):
            inner.chmod(0o500)
    elif fault == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
    elif fault == "full":
        facts = os.statvfs(folder)
        used = (facts.f_blocks - facts.f_bfree) * facts.f_frsize
        mount(folder, "remount", f"size={used // 1024 + 24}k")
    else:
        mount(folder, "remount", "ro")


def mend_disk(folder: str, fault: str) -> None:
    if fault == "forbidden":
        for inner in Path(folder).glob("runs/**/segments"):
            inner.chmod(0o700)
    elif fault == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        mount(folder, "remount", "rw", "size=10m")


def main(folder: str, fault: str) -> None:
    if fault in ("full", "read-only"):
        mount(folder, "size=10m")
    elif fault == "forbidden" and os.geteuid() == 0:
        # To root nothing is forbidden.
        os.chown(folder, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    with Store(folder).run_writer(case["IDENTITY"], case["HOOKS"]) as writer:
        for number in (0, 1):
            writer.write_segment(number, case["make_segment"](number))
        break_disk(folder, fault)
        try:
            writer.write_segment(2, case["make_segment"](2))
            error = ""
        except StoreError as failure:
            error = str(failure)
        committed = sorted(writer.committed)
        run = Store(folder).open_run(writer.run_id, allow_incomplete=True)
        damaged = [one.message for one in run.damaged()]
        mend_disk(folder, fault)
        # The same writer can go on, ...
        writer.write_segment(2, case["make_segment"](2))
    # ... and so can the next.
    case["write_run"](folder)
    digest = hashlib.sha256(repr(sorted(case["contents"](folder).items())).encode()).hexdigest()
    print(json.dumps({"error": error, "committed": committed, "damaged": damaged, "digest": digest}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
