"""The floors of the house: imports only go down, read from the code itself."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "robustray"
SCIENCE = {"attacks", "cuda_graphs", "data", "models", "training", "random"}
# Each holds one published system: science on top, its pages, its jobs. The core imports none.
WINGS = {"smoothing", "alignment", "scaling"}
RUNNERS = {"sweeps", "evaluation", "cluster", "reports", "store", "tracking", "zoo"}
BESIDE = {
    "manifest",
    "kinds",
    "registry",
    "user_code",
    "words",
    "errors",
    "faults",
    "files",
    "redaction",
}
RUNTIME = {"runtime", "cluster", "store", "tracking"}
ENGINES = {"ray", "mlflow", "boto3", "botocore"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Names of all imports of a file, those inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(path: Path) -> set[str]:
    parts = (name.split(".") for name in imported(path))
    return {p[1] for p in parts if p[0] == "robustray" and len(p) > 1} - {room_of(path)}


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_go_down(path):
    room, below = room_of(path), rooms_imported(path)
    if room in SCIENCE:
        assert below <= SCIENCE | BESIDE
        assert not {name.split(".")[0] for name in imported(path)} & ENGINES
    elif room in BESIDE:
        assert below <= {"errors", "words", "user_code", "registry", "kinds"}
    elif room == "runtime":
        assert below <= RUNTIME | SCIENCE | BESIDE
    elif room in RUNNERS:
        assert below <= RUNNERS | RUNTIME | SCIENCE | BESIDE
    elif room in WINGS:
        part = path.relative_to(PACKAGE).parts[1].removesuffix(".py")
        if part == "job":
            assert below <= RUNNERS | RUNTIME | SCIENCE | BESIDE
        else:
            assert below <= SCIENCE | BESIDE | ({"reports"} if part == "pages" else set())
            assert not {name.split(".")[0] for name in imported(path)} & ENGINES


def test_the_table_of_rooms_names_every_room_and_no_other():
    page = (PACKAGE.parent / "docs/concepts/architecture.md").read_text()
    table = page.partition("## Rooms")[2].partition("\n\nA wing ")[0]
    named = re.findall(
        r"`([a-z_]+)(?:/|\.py)?`", "".join(re.findall(r"\| [^|]+ \|([^|]+)\|", table))
    )
    assert sorted(named) == sorted({room_of(path) for path in FILES} - {"__init__"} | {"jobs"})


# Of the site, made from the code; `make docs` checks links to them.
MADE = re.compile(
    r"reference/(manifest|commands|api)/|reference/(networks|attacks|names|zoo)\.md"
    r"|results/benchmarks\.md"
)


def test_pages_link_to_what_is_there():
    docs = PACKAGE.parent / "docs"
    for page in (
        *docs.rglob("*.md"),
        PACKAGE.parent / "README.md",
        PACKAGE.parent / "CONTRIBUTING.md",
    ):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            path = (page.parent / target).resolve()
            made = MADE.match(str(path.relative_to(docs))) if docs in path.parents else None
            assert made or path.exists(), f"{page.name} links to {target}"


def test_every_decision_is_listed():
    folder = PACKAGE.parent / "docs/decisions"
    page = (folder / "index.md").read_text()
    listed = re.findall(r"^\d+\. \[.+\]\((.+)\)$", page, re.MULTILINE)
    assert listed == sorted(path.name for path in folder.iterdir() if path.name != "index.md")


def test_science_is_free_of_the_engines():
    code = (
        "import sys, robustray.attacks, robustray.models, robustray.data, robustray.training\n"
        "print([m for m in ('ray', 'mlflow', 'boto3', 'torchvision') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_workers_load_nothing_that_only_drivers_need():
    """Each worker process imports this anew; what it does not need costs it seconds."""
    code = (
        "import sys, robustray.sweeps.trial, robustray.evaluation.units.worker\n"
        "print([m for m in ('matplotlib', 'mlflow', 'ray.train', 'ray.tune', 'sklearn',"
        " 'scipy.stats', 'torchvision') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_trial_in_a_worker_loads_nothing_that_only_drivers_need(tmp_path):
    """What Tune is given names modules, and a worker imports those."""
    make = (
        "import sys\n"
        "from functools import partial\n"
        "from ray import cloudpickle\n"
        "from robustray.sweeps.trial import execute_attempt\n"
        "from robustray.runtime.trial_pool import _trainable\n"
        "open(sys.argv[1], 'wb').write(cloudpickle.dumps(_trainable(partial(execute_attempt, 1))))"
    )
    load = (
        "import sys\n"
        "from ray import cloudpickle\n"
        "cloudpickle.loads(open(sys.argv[1], 'rb').read())\n"
        "assert 'robustray.sweeps.trial' in sys.modules\n"
        "print([m for m in ('matplotlib', 'mlflow', 'ray.train.torch', 'sklearn', 'scipy.stats',"
        " 'robustray.sweeps.study', 'robustray.reports.report') if m in sys.modules])"
    )
    for code in (make, load):
        command = [sys.executable, "-c", code, str(tmp_path / "trainable")]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_jobs_are_thin():
    for job in (PACKAGE.parent / "jobs").glob("*.py"):
        assert len(job.read_text().splitlines()) < 40, f"{job.name} holds logic"


def test_the_files_that_the_map_names_are_there():
    repository = PACKAGE.parent
    for page in (
        repository / "docs/concepts/architecture.md",
        *(repository / "docs/decisions").glob("*.md"),
    ):
        for name in re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.(?:py|yaml))`", page.read_text()):
            found = [*repository.glob(f"robustray/**/{name}"), *repository.glob(f"*/**/{name}")]
            assert found or (repository / name).exists(), f"{page.name} names {name}"
