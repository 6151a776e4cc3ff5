"""The checklists of CONTRIBUTING.md, followed with toys in a copy of the package.

What a checklist says is taken from its text: which files are written or changed, and the code
that registers the new thing. What tests prove of things that users bring is not repeated here.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.user_packages import REPOSITORY, ask

PAGE = (REPOSITORY / "CONTRIBUTING.md").read_text()

NETWORK = '''
"""A linear layer on the mean colour."""

from torch import Tensor, nn


class Toy(nn.Module):
    """Averages and multiplies."""

    def __init__(self, num_classes: int, in_channels: int, bias: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(in_channels, num_classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W)."""
        return self.fc(x.mean((2, 3)))
'''

ENTRY = '''
"""The toy."""

from robustray.models.architectures.toy import Toy
from robustray.models.registry import register


@register()
def toy(num_classes: int, in_channels: int, *, bias: bool = True) -> Toy:
    """A toy for checklists."""
    return Toy(num_classes, in_channels, bias)
'''

ATTACK = '''
"""A toy attack."""

from dataclasses import dataclass

import torch

from robustray.attacks.attack import BatchAttack
from robustray.attacks.registry import register_attack
from robustray.attacks.result import AttackResult, Passes


@dataclass(frozen=True, kw_only=True)
class Toy(BatchAttack):
    """Look at the image as it is."""

    looks: int = 7

    def passes(self, classes=10):
        return Passes(self.looks, 0)

    def run(self, model, examples, threat, rng):
        fooled = model(examples.x).argmax(1) != examples.y_N
        count = torch.full_like(examples.y_N, self.looks)
        return AttackResult(examples.x, fooled, count, 0 * count, 0 * count)


toy = register_attack("toy", Toy)
'''

OBJECTIVE = '''

@_register(ascent="kl", forwards=1)
def toy(model, x, y, x_adv, *, beta, class_loss=F.cross_entropy):
    """Weighted cross-entropy on adversarial images."""
    logits_BK = model(x_adv)
    return Outcome(beta * class_loss(logits_BK, y), logits_BK)
'''

READER = '''

def read_toy(data: list[bytes]) -> Arrays:
    """Return ten dark images and ten light ones."""
    images = np.repeat(np.uint8([10, 200]), 10 * 3 * 4 * 4).reshape(20, 3, 4, 4)
    return Arrays(images, np.repeat([0, 1], 10), np.arange(20))
'''

SOURCE = """
def _toy() -> Source:
    from robustray.data.readers import read_toy

    train, test = (Part(name, (), 0, 20, read_toy) for name in ("train", "test"))
    return Source("toy", (3, 4, 4), ("dark", "light"), (train,), (test,))


"""

SUITE = """
register_suite(Suite("toy", (AttackSpec("fgsm"), AttackSpec("square", options={"n_queries": 9}))))
"""

MANIFEST = '''
"""Manifests of the toy kind."""

from pydantic import Field

from robustray.manifest import Manifest


class Toy(Manifest):
    """Counts in rounds."""

    rounds: int = Field(default=3, ge=1)
'''

COMMANDS = '''
"""The toy kind."""

from robustray.runtime.file_jobs import Product
from robustray.runtime.job import Context
from robustray.runtime.long_jobs import LongJob
from robustray.toy.manifest import Toy


def count(context: Context) -> Product:
    """Count, and commit each number."""
    before = context.resume()
    for step in range((before.step if before else 0) + 1, context.job.manifest.rounds + 1):
        context.commit(step, {}, {})
    return Product({"metrics": {}}, {})


KIND = LongJob[Toy](
    folder="toy",
    work=count,
    count_steps=lambda manifest: manifest.rounds,
    describe_plan=lambda manifest, found: f"counts to {manifest.rounds}",
    describe_result=lambda metrics: "counted",
)
'''

EXPORT = "\nfrom robustray.attacks.catalogue import toy as toy\n"
IMPORT = "\nfrom robustray.models.catalogue import toy as toy\n"
LINE = '    ("Toy", "robustray.toy.manifest:Toy", "robustray.toy.job.commands:KIND"),\n'

SWEEP = """
kind: Sweep
name: followed
model: {model}
recipe: {{objective: {objective}, threat: {{eps: 0.1}}, epochs: 1, batch_size: 5}}
data: {{name: {data}, validation: 4}}
evaluation: {{attacks: [{attack}]}}
resources: {{gpus: 0}}
"""
EVALUATION = """
kind: Evaluation
name: followed
factory: "networks:small"
data: {name: digits, first: 20}
threat: {eps: 0.1}
suite: [{name: toy, attack: toy, options: {looks: 3}}]
resources: {gpus: 0}
"""
OURS = {
    "model": "{name: preact_resnet, depths: [1, 1, 1], widths: [0.25, 0.25, 0.25]}",
    "objective": "sat",
    "data": "digits",
    "attack": "fgsm",
}


@dataclass(frozen=True)
class Followed:
    """What somebody does who follows a checklist.

    ``steps`` are files, what is added to them, and before which text of theirs ("": at the end).
    ``names`` is code that lists what there is of the kind; ``manifest`` uses the new thing, and
    ``words`` are a pattern of what its plan says.
    """

    steps: tuple[tuple[str, str, str], ...]
    names: str
    manifest: str
    words: str


LISTS = {
    "network": Followed(
        (
            ("robustray/models/architectures/toy.py", NETWORK, ""),
            ("robustray/models/catalogue/toy.py", ENTRY, ""),
            ("robustray/models/catalogue/__init__.py", IMPORT, ""),
        ),
        "robustray.models.list_models()",
        SWEEP.format(**OURS | {"model": "{name: toy, bias: false}"}),
        "toy",
    ),
    "attack": Followed(
        (
            ("robustray/attacks/catalogue/toy.py", ATTACK, ""),
            ("robustray/attacks/catalogue/__init__.py", EXPORT, ""),
        ),
        "robustray.attacks.list_attacks()",
        EVALUATION,
        "toy",
    ),
    "objective": Followed(
        (("robustray/training/objectives.py", OBJECTIVE, ""),),
        "robustray.registry.OBJECTIVES.names()",
        SWEEP.format(**OURS | {"objective": "toy"}),
        "followed-",
    ),
    "data set": Followed(
        (
            ("robustray/data/sources.py", SOURCE, "for _source in"),
            ("robustray/data/sources.py", ", _toy", "):\n    DATASETS.add"),
            ("robustray/data/readers.py", READER, ""),
        ),
        "robustray.registry.DATASETS.names()",
        SWEEP.format(**OURS | {"data": "toy"}),
        "followed-",
    ),
    "suite": Followed(
        (("robustray/attacks/catalogue/suites.py", SUITE, ""),),
        "robustray.attacks.list_suites()",
        SWEEP.format(**OURS | {"attack": "toy"}),
        "followed-",
    ),
    "kind of job": Followed(
        (
            ("robustray/toy/manifest.py", MANIFEST, ""),
            ("robustray/toy/job/commands.py", COMMANDS, ""),
            ("robustray/kinds.py", LINE, "):\n    KINDS.add(_name"),
        ),
        "[name.lower() for name in robustray.registry.KINDS.names()]",
        "{kind: Toy, name: followed, rounds: 4}",
        "counts to 4",
    ),
}

NETWORKS = """
from torch import nn

def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""

PLAN = """
import json
from contextlib import redirect_stdout
from io import StringIO
import robustray.attacks, robustray.models, robustray.registry
from robustray.cli import main

def plan(path):
    said = StringIO()
    with redirect_stdout(said):
        assert main(["plan", "--manifest", path]) == 0
    return said.getvalue()

names = {names}
print(json.dumps({{what: ["toy" in names[what], plan(f"{{what}}.yaml")] for what in names}}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Follow all lists in one copy: of each, whether its toy is listed, and a plan that uses it."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(REPOSITORY / "robustray", folder / "robustray")
    (folder / "networks.py").write_text(NETWORKS)
    for what, followed in LISTS.items():
        for step in followed.steps:
            _take(folder, *step)
        (folder / f"{what}.yaml").write_text(followed.manifest)
    names = ", ".join(f'"{what}": {followed.names}' for what, followed in LISTS.items())
    code = PLAN.format(names=f"{{{names}}}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUSTRAY_STORE", str(folder / "store"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        return ask(code, folder, folder)


@pytest.mark.parametrize("what", LISTS)
def test_following_a_checklist_is_enough(what, found):
    is_listed, plan = found[what]
    assert is_listed
    assert LISTS[what].words in plan


@pytest.mark.parametrize("what", LISTS)
def test_a_checklist_says_what_was_done(what):
    text, steps = _checklist(what), LISTS[what].steps
    named = set(re.findall(r"`(robustray/[\w/]+\.py)`", text))
    done = {path for path, _, _ in steps}
    assert done <= named
    assert not [path for path in named - done if not (REPOSITORY / path).exists()]
    templates = [code for code in re.findall(r"`([^`]+)`", text) if _is_template(code)]
    added = "".join(addition for _, addition, _ in steps)
    assert templates
    assert not [code for code in templates if code not in added]


def test_every_checklist_is_followed():
    assert set(re.findall(r"^## Add an? (.+)$", PAGE, re.MULTILINE)) == set(LISTS)


def _checklist(what: str) -> str:
    """Return a list's text, with the toy's name where it has a placeholder."""
    (text,) = re.findall(rf"^## Add an? {what}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return re.sub(r"\bName\b", "Toy", re.sub(r"(?<![A-Za-z])NAME\b", "toy", text))


def _is_template(code: str) -> bool:
    """Tell code that is to be written from files, commands and names."""
    return bool(re.search(r"\btoy|_toy|Toy", code)) and "(" in code


def _take(folder: Path, path: str, addition: str, before: str) -> None:
    """Add text to a file: at its end, or before some text that it has once."""
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    text = file.read_text() if file.exists() else ""
    assert not before or text.count(before) == 1, f"{path} has not once: {before}"
    place = text.index(before) if before else len(text)
    file.write_text(text[:place] + addition + text[place:])
