"""Faces load what is asked of them and no more, and no module imports one that imports it."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "robustray"
HEAVY = (
    "torch", "ray", "mlflow", "matplotlib", "scipy", "numpy", "pandas", "pyarrow", "sklearn",
    "boto3", "torchvision",
)  # fmt: skip
LAZY = sorted(
    path.parent.name for path in PACKAGE.glob("*/__init__.py") if "attach_stub" in path.read_text()
)
# Scheduling, records and addresses: what a notebook or a script may load without waiting.
PURE = (
    "errors", "files", "words", "manifest", "cli",
    "store.digests", "store.opening", "store.records", "store.attempt_keys",
    "tracking.faults", "tracking.journal", "tracking.uploader",
    "runtime.failures", "runtime.lease", "runtime.queue", "runtime.signals", "runtime.unit_queue",
)  # fmt: skip


def test_faces_pure_modules_and_help_load_nothing_heavy():
    """One process for all of them: whatever is loaded in the end, one of them loaded it."""
    code = f"""
import contextlib, importlib, io, re, sys
for name in {["robustray", *(f"robustray.{name}" for name in (*LAZY, *PURE))]}:
    importlib.import_module(name)
from robustray.cli import main

def ask(*words):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main(words)
    return said.getvalue()

assert ask("--version").startswith("robustray ")
commands = re.findall(r"^    ([a-z]+) ", ask("--help"), re.MULTILINE)
assert {{"plan", "run", "evaluate", "models", "submit"}} <= set(commands), commands
for command in commands:
    assert ask(command, "--help").startswith(f"usage: robustray {{command}}")
print([name for name in {HEAVY} if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "[]\n"


@pytest.mark.parametrize("name", LAZY)
def test_every_name_of_a_face_is_there(name):
    face = importlib.import_module(f"robustray.{name}")
    assert set(face.__all__) <= set(dir(face))
    assert all(hasattr(face, one) for one in face.__all__)


@pytest.mark.parametrize("package", LAZY)
def test_no_name_of_a_lazy_face_is_that_of_a_module(package):
    """Whoever imports the module first would make the name mean the module, for everybody."""
    names = {name: origin for name, origin in stub_names(package).items() if name != origin}
    assert not {
        module_of(path) for path in (PACKAGE / package).iterdir() if path.suffix == ".py"
    }.intersection(names)


@pytest.fixture(scope="module")
def modules() -> dict[str, Path]:
    return {module_of(path): path for path in PACKAGE.rglob("*.py")}


@pytest.fixture(scope="module")
def origins() -> dict[str, str]:
    return {name: origin for face in LAZY for name, origin in stub_names(face).items()}


def test_nothing_imports_what_imports_it(modules, origins):
    graph = {name: needed_by(name, path, modules, origins) for name, path in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_what_a_face_hands_on_counts_as_imported(tmp_path, modules, origins):
    path = tmp_path / "local.py"
    path.write_text("if True:\n    from robustray.store import open_store\n")
    needed = needed_by("robustray.store.local", path, modules, origins)
    assert needed == {"robustray.store.opening"}
    assert "robustray.store.local" in needed_by(
        "robustray.store.opening", modules["robustray.store.opening"], modules, origins
    )


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


def stub_names(package: str) -> dict[str, str]:
    """Return which module each name of a lazy face comes from."""
    origins = {}
    for node in ast.walk(ast.parse((PACKAGE / package / "__init__.pyi").read_text())):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                origin = f"robustray.{package}.{node.module or alias.name}"
                origins[f"robustray.{package}.{alias.name}"] = origin
    return origins


def needed_by(name: str, path: Path, modules: dict[str, Path], origins: dict[str, str]) -> set[str]:
    """Return the modules that run when this one is imported, its own packages left out."""
    needed = set()
    for found in imported_at_once(ast.parse(path.read_text()).body):
        module = origins.get(found, found if found in modules else found.rpartition(".")[0])
        while module in modules:
            if not f"{name}.".startswith(f"{module}."):
                needed.add(module)
            module = module.rpartition(".")[0]
    return needed


def imported_at_once(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the names that these statements import when they run, those in functions left out."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            yield from imported_at_once([*node.body, *node.orelse])
        elif isinstance(node, ast.Try | ast.With):
            yield from imported_at_once(node.body)


@pytest.mark.parametrize("face", LAZY)
def test_no_name_of_a_lazy_face_is_that_of_its_module(face):
    """Whoever imports the module would find it in the place of the function."""
    modules = {path.stem for path in (PACKAGE / face).glob("*.py")}
    package = importlib.import_module(f"robustray.{face}")
    for name in modules & set(package.__all__):
        assert isinstance(getattr(package, name), ModuleType)
