"""Check a plain install: one top-level name, its data, no torch, under 300 MB; give the environment."""

import sys
from pathlib import Path

LIMIT_MB = 300
FORBIDDEN = ("torch", "transformers", "triton", "vllm", "dask", "numba", "scipy")


def problems(environment: Path) -> list[str]:
    """Return what is wrong with the environment, one line each."""
    (packages,) = environment.glob("lib/python3.*/site-packages")
    (info,) = packages.glob("ft_audit-*.dist-info")
    recorded = [line.rsplit(",", 2)[0] for line in (info / "RECORD").read_text().splitlines()]
    tops = {name.split("/")[0] for name in recorded if not name.startswith("../")}
    found = [f"the wheel also installs {name}" for name in sorted(tops - {"ft_audit", info.name})]
    if (info / "top_level.txt").read_text().split() != ["ft_audit"]:
        found.append(f"{info.name}/top_level.txt names more than ft_audit")
    found += [f"the plain install brings {name}" for name in FORBIDDEN if (packages / name).exists()]
    found += [
        f"the wheel lacks {name}"
        for name in (
            "ft_audit/py.typed",
            "ft_audit/benchmarks/asked.yaml",
            "ft_audit/configs/template_hf.yaml",
        )
        if name not in recorded
    ]
    own = sum((packages / name).stat().st_size for name in recorded if (packages / name).is_file())
    total = sum(
        path.lstat().st_size for path in environment.rglob("*") if path.is_file() and not path.is_symlink()
    )
    print(f"environment {total / 1e6:.0f} MB (asked: < {LIMIT_MB}), of it ft-audit {own / 1e6:.1f} MB")
    if total >= LIMIT_MB * 1e6:
        largest = sorted(((_size(path), path.name) for path in packages.iterdir()), reverse=True)[:6]
        parts = ", ".join(f"{name} {size / 1e6:.0f}" for size, name in largest)
        found.append(f"the plain install takes {total / 1e6:.0f} MB; the largest parts: {parts}")
    return found


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]))
    print("\n".join(wrong) or "plain install: as it should be")
    sys.exit(bool(wrong))
