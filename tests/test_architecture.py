"""The rooms' rules, read from the source: who may import whom, and which room owns each heavy library."""

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "ft_audit"
CODE_ROOMS = ("agent", "benchmarks", "engine", "kernels", "sae")

# The rooms of the engine that its readers import too.
READERS_ENGINE = ("store", "config", "requests", "decipher", "statistics")
# Module prefix -> the ft_audit prefixes it may import beside its own; the longest matching prefix rules.
MAY_IMPORT = {
    "ft_audit.kernels": (),
    "ft_audit.sae": ("ft_audit.kernels",),
    "ft_audit.engine": ("ft_audit.sae", "ft_audit.kernels"),
    "ft_audit.engine.behaviour": (),
    "ft_audit.engine.requests": ("ft_audit.engine.behaviour",),
    "ft_audit.engine.decipher": ("ft_audit.engine.requests",),
    "ft_audit.engine.store": ("ft_audit.engine.requests",),
    "ft_audit.engine.config": (),
    "ft_audit.engine.statistics": ("ft_audit.engine.store",),
    "ft_audit.agent": tuple(f"ft_audit.engine.{name}" for name in READERS_ENGINE),
    "ft_audit.benchmarks": tuple(f"ft_audit.{room}" for room in CODE_ROOMS),
    "ft_audit.cli": tuple(f"ft_audit.{room}.commands" for room in CODE_ROOMS),
    "ft_audit.errors": (),
}
EVERYONE_MAY_IMPORT = ("ft_audit.errors", "ft_audit.__version__")
# The stream of activations that `sae train` reads comes from the engine: its verb may import it, lazily.
LAZY_EXCEPTIONS = {("ft_audit.sae.train_command", "ft_audit.engine")}

# Heavy library -> the modules that own it; benchmarks compare with the libraries themselves and may use any.
OWNERS = {
    "torch": ("ft_audit.kernels", "ft_audit.sae", "ft_audit.engine"),
    "transformers": ("ft_audit.engine",),
    "triton": ("ft_audit.kernels",),
    "numba": ("ft_audit.kernels",),
    "zarr": ("ft_audit.engine.store",),
    "numcodecs": ("ft_audit.engine.store",),
    "obstore": ("ft_audit.engine.store",),
    "dask": ("ft_audit.engine.cluster",),
    "distributed": ("ft_audit.engine.cluster",),
    "vllm": ("ft_audit.engine.runners.vllm",),
    "trl": ("ft_audit.engine.finetune",),
    "peft": ("ft_audit.engine.finetune", "ft_audit.engine.models"),
    "datasets": ("ft_audit.engine.finetune", "ft_audit.engine.suites"),
    "openai": ("ft_audit.agent.client",),
    "mcp": ("ft_audit.agent.server",),
    "mcp_types": ("ft_audit.agent.server",),
    "starlette": ("ft_audit.agent.server",),
    "uvicorn": ("ft_audit.agent.server",),
}
KERNEL_LIBRARIES = {"torch", "triton", "numba", "numpy"}
# What the plain install brings, and so all that the reader's side may import.
READER_LIBRARIES = {"numpy", "arro3", "pydantic", "pydantic_core", "yaml", "openai"}
READER_LIBRARIES |= {"mcp", "mcp_types", "anyio", "starlette", "uvicorn"}
TORCHLESS = ("ft_audit.agent", *(f"ft_audit.engine.{name}" for name in READERS_ENGINE))
NEVER_ON_THE_READERS_SIDE = (
    "torch",
    "transformers",
    "vllm",
    "triton",
    "numba",
    "dask",
    "distributed",
    "scipy",
    "pyarrow",
    "pandas",
)


@dataclass(frozen=True, slots=True)
class Import:
    module: str  # who imports
    target: str  # what, with the name taken from it
    line: int
    lazy: bool  # inside a function, or for the type checker alone

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def library(target: str) -> str:
    return target.partition(".")[0]


def imports_in(source: str, module: str) -> Iterator[Import]:
    """Every import of a module: statements, lazy ones included, and import_module with a literal name."""
    tree = ast.parse(source)
    lazy_nodes = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(outer, ast.If) and ast.unparse(outer.test).endswith("TYPE_CHECKING"))
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            name = node.args[0]
            targets = [name.value] if isinstance(name, ast.Constant) and isinstance(name.value, str) else []
        yield from (Import(module, target, node.lineno, id(node) in lazy_nodes) for target in targets)  # type: ignore[attr-defined]


def sources() -> dict[str, Path]:
    """Module name -> file, for every module of the package."""
    found = {f"ft_audit.{path.stem}": path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    for room in CODE_ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(("ft_audit", *parts)).removesuffix(".__init__")] = path
    return found


def all_imports() -> list[Import]:
    return [use for module, path in sources().items() for use in imports_in(path.read_text(), module)]


def upward(uses: list[Import]) -> list[str]:
    """The imports of ft_audit's own modules that no rule allows."""
    broken = []
    for use in uses:
        if library(use.target) != "ft_audit" or use.target == "ft_audit":
            continue
        if any(within(use.target, free) for free in EVERYONE_MAY_IMPORT):
            continue
        if use.lazy and any(within(use.module, a) and within(use.target, b) for a, b in LAZY_EXCEPTIONS):
            continue
        rule = max((prefix for prefix in MAY_IMPORT if within(use.module, prefix)), key=len, default=None)
        assert rule is not None, f"{use.module} belongs to no room"
        if not any(within(use.target, allowed) for allowed in (rule, *MAY_IMPORT[rule])):
            broken.append(str(use))
    return broken


def misplaced(uses: list[Import]) -> list[str]:
    """The imports of a heavy library outside the room that owns it."""
    broken = []
    for use in uses:
        owners = OWNERS.get(library(use.target))
        if owners is None or within(use.module, "ft_audit.benchmarks"):
            continue
        torchless = library(use.target) in {"torch", "transformers"} and any(
            within(use.module, p) for p in TORCHLESS
        )
        if torchless or not any(within(use.module, owner) for owner in owners):
            broken.append(str(use))
    return broken


def foreign(uses: list[Import], prefix: str, libraries: set[str]) -> list[str]:
    """The imports under `prefix` of anything but ft_audit, the standard library and `libraries`."""
    known = libraries | sys.stdlib_module_names | {"ft_audit"}
    return [str(use) for use in uses if within(use.module, prefix) and library(use.target) not in known]


def test_no_room_imports_upward() -> None:
    assert not upward(all_imports())


def test_every_heavy_library_stays_with_its_owner() -> None:
    assert not misplaced(all_imports())


def test_kernels_import_only_numerics() -> None:
    assert not foreign(all_imports(), "ft_audit.kernels", KERNEL_LIBRARIES)


def test_the_readers_side_imports_only_what_the_plain_install_brings() -> None:
    uses = all_imports()
    assert not foreign(uses, "ft_audit.agent", READER_LIBRARIES)
    assert not foreign(uses, "ft_audit.engine.store", READER_LIBRARIES | {"numcodecs", "obstore"})
    for room in ("config", "requests"):
        assert not foreign(uses, f"ft_audit.engine.{room}", READER_LIBRARIES)
    for room in CODE_ROOMS:
        eager = [use for use in uses if not use.lazy and use.module == f"ft_audit.{room}.commands"]
        assert not foreign(eager, f"ft_audit.{room}.commands", set())


@pytest.mark.parametrize(
    ("module", "source", "check"),
    [
        ("ft_audit.kernels.op", "from ft_audit.sae.load import load_sae", upward),
        ("ft_audit.sae.train", "def f():\n    import ft_audit.engine.models", upward),
        (
            "ft_audit.sae.train_command",
            "from ft_audit.engine.runners.activations import stream_activations",
            upward,
        ),
        ("ft_audit.engine.store.runs", "from ft_audit.engine import tokens", upward),
        ("ft_audit.engine.diff.tests", "from ft_audit.agent.evidence import Evidence", upward),
        ("ft_audit.engine.models", "import ft_audit.benchmarks.harness", upward),
        ("ft_audit.agent.verdict", "from ft_audit.engine.diff.moments import pair_moments", upward),
        ("ft_audit.engine.diff.moments", "import dask", misplaced),
        ("ft_audit.engine.store.runs", "import torch", misplaced),
        (
            "ft_audit.agent.report",
            "from importlib import import_module\nimport_module('transformers')",
            misplaced,
        ),
        ("ft_audit.engine.runners.hf", "import vllm.config", misplaced),
        ("ft_audit.sae.train", "import zarr", misplaced),
    ],
)
def test_a_forbidden_import_is_caught(
    module: str, source: str, check: Callable[[list[Import]], list[str]]
) -> None:
    assert check(list(imports_in(source, module)))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "ft_audit.sae.train_command",
            "def f():\n    from ft_audit.engine.runners.activations import stream_activations",
        ),
        ("ft_audit.engine.precompute", "import torch\nfrom ft_audit.kernels.jumprelu import Encoder"),
        (
            "ft_audit.agent.evidence",
            "from ft_audit.engine.store import Store\nfrom ft_audit.errors import StoreError",
        ),
        (
            "ft_audit.benchmarks.precompute",
            "import torch, dask\nfrom ft_audit.engine.precompute import run_precompute",
        ),
    ],
)
def test_an_allowed_import_passes(module: str, source: str) -> None:
    uses = list(imports_in(source, module))
    assert uses
    assert not upward(uses)
    assert not misplaced(uses)


def test_modules_import_each_other_in_one_direction() -> None:
    modules = sources()
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for use in all_imports():
        target = use.target if use.target in modules else use.target.rpartition(".")[0]
        if not use.lazy and target in modules and target != use.module:
            graph[use.module].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("import cycle: " + " -> ".join(error.args[1]))


def loaded_by(modules: list[str]) -> set[str]:
    """Top-level names in sys.modules after a fresh interpreter imported these modules."""
    script = (
        "import importlib, json, sys\n"
        "for name in json.loads(sys.argv[1]): importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(modules)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_the_readers_side_loads_no_torch_however_deep() -> None:
    modules = [name for name in sources() if any(within(name, prefix) for prefix in TORCHLESS)]
    own_client = {
        name
        for name in modules
        if within(name, "ft_audit.agent.client") or within(name, "ft_audit.agent.server")
    }
    assert not loaded_by(sorted(set(modules) - own_client)) & set(NEVER_ON_THE_READERS_SIDE)


def test_the_front_door_loads_nothing_heavy() -> None:
    doors = [name for name in sources() if name == "ft_audit.cli" or name.endswith(".commands")]
    heavy = {*NEVER_ON_THE_READERS_SIDE, "numpy", "zarr", "pyarrow", "arro3", "tqdm", "huggingface_hub"}
    assert not loaded_by(doors) & heavy


def test_the_loaded_names_are_seen() -> None:
    assert "numpy" in loaded_by(["numpy"])
