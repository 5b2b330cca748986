"""Who may import whom: the watcher stays light, the engine knows no watcher, and imports go one way."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT

# From the bottom to the top: a module may import what stands in the lines above its own, and nothing else of ours.
LAYERS = (
    {"wording"},
    {
        "errors",
        "journal",
        "memory",
        "window",
        "files.ignore",
        "files.names",
        "files.mounts",
        "progress",
        "signals",
        "operation.vitals",
    },
    {"queue.lifelines", "queue.note", "queue.address", "operation.hook_troubles"},
    {
        "accounting.bill",
        "accounting.replay",
        "accounting.meter",
        "accounting.report_pages",
        "operation.hook_calls",
        "engine.ends",
        "queue.redis_troubles",
    },
    {"files.filesystem", "operation.webhook", "operation.exposition"},
    {"operation.live"},
    {"models.download"},
    {"models.collection"},
    {"files.provenance", "sections", "queue.shelf"},
    {"engine.governor", "engine.schedule"},
    {
        "config",
        "engine.terms",
        "schema",
        "files.settling",
        "files.observer",
        "rows",
        "logs",
        "operation.hooks",
        "operation.heic",
        "operation.page",
        "queue.shards",
    },
    {
        "ledger",
        "engine.patience",
        "waiting",
        "files.leftovers",
        "operation.metrics",
        "queue.redis_link",
        "engine.model",
    },
    {"instance"},
    {
        "engine.process",
        "files.originals",
        "files.mounted",
        "intake",
        "operation.outside",
        "accounting.warm_ups",
        "accounting.engine_runs",
        "engine.wishes",
        "queue.needs",
        "queue.remote_runs",
        "claims",
    },
    {
        "inbox",
        "delivery",
        "engine.nvidia",
        "operation.health",
        "queue.roll_call",
        "queue.flights",
        "queue.newcomers",
        "queue.worker",
    },
    {"engine.gpu_wait", "queue.executor", "engine.demand"},
    {"engine.keeper"},
    {"accounting.accounts", "recent"},
    {"engine.gate"},
    {"workshop", "straight", "engine.coldstart", "operation.status", "failed", "rebuild", "accounting.report"},
    {"endings"},
    {"batch", "operation.doctor", "queue.shard_work"},
    {"jobs", "queue.work_horse"},
    {"service"},
    {"commands.options"},
    {
        "commands.folders",
        "commands.health",
        "commands.models",
        "commands.report",
        "commands.upscale",
        "commands.warm",
        "commands.watch",
        "commands.web",
    },
    {"commands.worker"},
    {"cli"},
)
FROM_THE_ENGINE = {"protocol", "models", "headers", "errors", "nvml"}  # light, all of them
HEAVY = {"numpy", "cv2", "onnxruntime", "openvino", "torch", "tensorflow", "PIL", "scipy"}

WATCHER = sorted(
    ".".join(path.relative_to(ROOT / "watcher").with_suffix("").parts)
    for path in (ROOT / "watcher").rglob("*.py")
    if path.stem != "__init__"
)
PAGE = sorted(path.stem for path in (ROOT / "webpage").glob("*.py") if path.stem not in {"__init__", "__main__"})
ENGINE = sorted(path for path in (ROOT / "sr_engine").rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere in it, with dots; not what only type checkers see."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide who is meant"
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


def modules_of(package: str, path: Path) -> set[str]:
    """The modules of one of our packages that a file imports, as `queue.worker`."""
    names = {name.removeprefix(f"{package}.") for name in imported(path) if name.startswith(f"{package}.")}
    files = {name for name in names if source(name, package).exists()}
    packages = {name for name in names if source(f"{name}.__init__", package).exists()}
    return files | {name for name in packages if not any(file.startswith(f"{name}.") for file in files)}


def source(module: str, package: str = "watcher") -> Path:
    return ROOT.joinpath(package, *module.split(".")).with_suffix(".py")


def layer(module: str) -> int:
    found = [number for number, names in enumerate(LAYERS) if module in names]
    assert len(found) == 1, f"put watcher.{module} into one of LAYERS"
    return found[0]


def loaded_by(*modules: str) -> set[str]:
    """All top-level packages that a fresh process has loaded after importing these modules."""
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *modules],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stdout.split()}


def test_the_command_line_loads_no_numpy_no_cv2_and_no_runtime() -> None:
    loaded = loaded_by("watcher.cli", "watcher.commands.watch")
    assert "watcher" in loaded
    assert not loaded & HEAVY
    assert "rich" not in loaded, "3 MB that only a terminal needs"


def test_no_module_of_the_watcher_loads_numpy_cv2_or_a_runtime() -> None:
    assert not loaded_by(*(f"watcher.{module}" for module in WATCHER)) & HEAVY


@pytest.mark.parametrize("module", sorted(FROM_THE_ENGINE))
def test_what_the_watcher_takes_from_the_engine_is_light(module: str) -> None:
    assert not loaded_by(f"sr_engine.{module}") & HEAVY


def test_this_check_would_notice_numpy() -> None:
    assert "numpy" in loaded_by("sr_engine.pictures")


@pytest.mark.parametrize("module", WATCHER)
def test_a_module_of_the_watcher_imports_only_what_stands_below_it(module: str) -> None:
    """Thereby there are no cycles. A new module has to be put into LAYERS."""
    for other in modules_of("watcher", source(module)):
        assert layer(other) < layer(module), f"{module} imports {other}"


@pytest.mark.parametrize("module", WATCHER)
def test_the_watcher_takes_only_the_light_modules_of_the_engine(module: str) -> None:
    assert modules_of("sr_engine", source(module)) <= FROM_THE_ENGINE


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_engine_never_imports_the_watcher(path: Path) -> None:
    assert not {name for name in imported(path) if name.split(".")[0] == "watcher"}


def test_the_page_loads_nothing_heavy_and_pictures_only_in_a_process_of_their_own() -> None:
    light = {f"webpage.{module}" for module in PAGE} - {"webpage.rendering"}
    assert not loaded_by(*light) & HEAVY
    assert "PIL" in loaded_by("webpage.rendering")


def test_the_watcher_knows_the_page_only_by_its_command_line() -> None:
    users = {module for module in WATCHER if any(name.split(".")[0] == "webpage" for name in imported(source(module)))}
    assert users == {"commands.web"}
    assert not loaded_by("watcher.cli", "watcher.commands.watch") & {"webpage", "flask", "waitress"}


def test_the_page_moves_and_removes_nothing_but_its_own() -> None:
    """`uploads` its hidden files, `thumbnails` and `rendering` what lies in the state folder."""
    for module in set(PAGE) - {"uploads", "thumbnails", "rendering"}:
        text = (ROOT / "webpage" / f"{module}.py").read_text()
        assert not re.search(r"\b(os|shutil)\.(rename|replace|unlink|remove|rmdir|rmtree|move|link|truncate)\b", text)


def test_only_the_command_line_prints_or_exits() -> None:
    for module in (module for module in WATCHER if not re.fullmatch(r"cli|commands\.\w+", module)):
        tree = ast.parse(source(module).read_text())
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        calls -= {"os._exit"} if module == "operation.health" else set()  # a child of its own
        assert not calls & {"print", "exit", "quit", "sys.exit", "os._exit", "click.echo", "sys.stdout.write"}, module


def test_only_delivery_and_what_it_stands_on_move_or_remove_files() -> None:
    """`straight` clears its own staging folder, `collection` and `download` weights; `rebuild` moves a bad ledger."""
    movers = {"delivery", "files.originals", "files.leftovers", "files.filesystem", "straight", "rebuild"}
    movers |= {"models.collection", "models.download"}
    movers |= {"queue.shelf", "queue.shard_work"}  # results in the making, on their way into the staging folder
    calls = {"rename", "replace", "unlink", "remove", "rmdir", "rmtree", "move", "link", "symlink", "truncate"}
    for module in set(WATCHER) - movers:
        tree = ast.parse(source(module).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                assert not (owner in {"os", "shutil"} and node.func.attr in calls), f"{module}: {ast.unparse(node)}"
