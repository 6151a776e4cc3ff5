"""The command line: what is wrong is told in one message, with exit code 2, at once."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustray.cli import main
from robustray.errors import UserError
from robustray.store import open_store
from tests.helpers.evaluation_tasks import save_weights

NET = "tests.helpers.evaluation_tasks:small_net"
GOOD = """
kind: Evaluation
name: small
factory: tests.helpers.evaluation_tasks:small_net
weights: net.safetensors
data: {name: digits, first: 60}
threat: {eps: 0.12}
suite: pgd-20
resources: {gpus: 0, cpus: 1}
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    save_weights(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTRAY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "good.yaml").write_text(GOOD)
    return tmp_path


def refused(capsys, *arguments: str) -> str:
    """Run a command that is refused; return its one message."""
    assert main([*arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("suite=nosuch", "suite is one of"),
        ("suite=[{name: a, attack: nosuch}]", "attack is one of"),
        (
            "suite=[{name: a, attack: pgd, options: {step: 3}}]",
            "has no option 'step'; it has: steps",
        ),
        (
            "suite=[{name: a, attack: pgd, options: {steps: many}}]",
            "pgd: steps is a whole number, not 'many'",
        ),
        (
            "suite=[{name: a, attack: pgd, options: {steps: 0}}]",
            "suite: attack a: steps, restarts and eot are at least 1",
        ),
        (
            "suite=[{name: a, attack: apgd-ce, options: {l1_stages: true}}]",
            "l1_stages is for l1, not linf",
        ),
        ("suite=[]", "suite: must hold at least 1 value"),
        ("suite=[{nam: a}]", "suite[0].nam: unknown key; did you mean 'name'?"),
        ("threat.eps=8", "eps is in those units"),
        ("threat.eps=-1", "threat.eps"),
        ("threat.norm=l3", "threat.norm"),
        ("data.name=imagenette", "data.name"),
        ("data.first=100000", "there are only"),
        ("weights.sha256=" + "a" * 64, "weights.sha256: the SHA-256 of net.safetensors is"),
        ("weights.uri=nowhere.pt", "weights.uri: there is no file nowhere.pt"),
        ("weights.format=other", "format"),
        ("factory.function=tests.nosuch:net", "can't be imported"),
        ("preprocessing={mean: [0, 0, 0], std: [1, 1, 1]}", "a value for each of 1 channels"),
        ("compute_shape=12", "compute_shape"),
        ("engine=other", "'robustray' or 'reference'"),
        ("modle=x", "modle: unknown key"),
        ("model=rrn_a1", "give one of model, factory and study"),
        ("study=some", "give one of model, factory and study"),
    ],
)
def test_wrong_manifests_are_refused(here, capsys, change, words):
    assert words in refused(capsys, "run", "--manifest", "good.yaml", "--set", change)
    assert not (here / "store/units").exists()
    assert not (here / "store/evaluations").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give one of model, factory and study"),
        (("--model", "rrn_a1"), "--weights"),
        (("--model", "rrn_a1", "--weights", "nowhere"), "there is no file nowhere"),
        (("--model", "no_such_net", "--weights", "net.safetensors"), "no_such_net"),
        (("--model", "no.such:net",), "can't be imported"),
        (("--study", "nosuch"), "'nosuch' names 0 studies"),
        (("--model", NET, "--suite", "nosuch"), "suite is one of"),
    ],
)  # fmt: skip
def test_wrong_command_lines_are_refused(here, capsys, arguments, words):
    common = ("--set", "suite=pgd-20") if "--suite" not in arguments else ()
    assert words in refused(capsys, "evaluate", *arguments, *common)


def test_a_study_is_not_audited_and_kinds_are_not_confused(here, capsys):
    assert "needs one network" in refused(capsys, "audit", "--set", "study=x")
    assert "is not finished" in refused(capsys, "report", "--manifest", "good.yaml")
    (here / "sweep.yaml").write_text(
        "{kind: Sweep, name: s, grid: {widths: {each_stage: [1]}}, data: {name: digits}}"
    )
    assert "not Evaluation" in refused(capsys, "audit", "--manifest", "sweep.yaml")


def test_a_dry_run_tells_the_plan_and_writes_nothing(here, capsys):
    assert main(["run", "--manifest", "good.yaml", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "kind: Evaluation" in printed
    assert "digits test[:60]: 60" in printed
    assert "forward and" in printed
    assert not (here / "store").exists()


def test_plan_and_status_know_the_evaluation(here, capsys):
    assert main(["plan", "--manifest", "good.yaml"]) == 0
    assert "evaluation   small-" in capsys.readouterr().out
    assert main(["status", "--manifest", "good.yaml"]) == 0
    assert "pgd-20                   0 of 1 units" in capsys.readouterr().out


def test_flags_mean_what_manifests_say(here, capsys):
    flags = ["--model", NET, "--weights", "net.safetensors", "--suite", "fgsm,pgd-20"]
    rest = ["--set", "data.name=digits", "--set", "resources.gpus=0"]
    assert main(["evaluate", *flags, *rest, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "suite        custom: fgsm, pgd-20" in printed
    assert "weights: {uri: net.safetensors" in printed


def test_a_plan_without_a_gpu_is_that_of_the_run(here, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    asked = ["plan", "--manifest", "good.yaml", "--set", "resources.gpus=1"]
    assert main(asked) == 0
    local = capsys.readouterr().out
    assert "compute shape 64" in local
    assert main(["plan", "--manifest", "good.yaml"]) == 0
    assert capsys.readouterr().out == local
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert main(asked) == 0
    assert "compute shape 128" in capsys.readouterr().out


def test_who_finds_another_driver_settles_no_shards(here, tmp_path, monkeypatch):
    from robustray.evaluation import evaluation as module
    from robustray.manifest import load_manifest
    from robustray.runtime import session

    def refuse(*_: object) -> None:
        raise UserError("another process is running this study already")

    monkeypatch.setattr(session, "find_workers", lambda store, given, *_, **__: nullcontext(given))
    monkeypatch.setattr(session, "lease", refuse)
    store, manifest = open_store(), load_manifest("good.yaml", ["resources.gpus=0"])
    with pytest.raises(UserError, match="running this study already"):
        module.run_evaluation(manifest, store, f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    assert store.list("evaluations/") == []


def test_a_superseded_driver_publishes_no_partial_result(tmp_path):
    from robustray.evaluation.evaluation import _Run
    from robustray.runtime.lease import LeaseLostError, lease

    store = open_store(str(tmp_path / "store"))
    with lease(store, "evaluations/x", print) as held:
        assert store.create("evaluations/x/drivers/00000002/claim.json", b"{}")
        run: Any = SimpleNamespace(_session=SimpleNamespace(lease=held), _store=held.store)
        with pytest.raises(LeaseLostError):
            _Run.conclude_part(run, tmp_path / "reports")
    assert not (tmp_path / "reports").exists()


def test_status_counts_the_units_of_the_first_run(here, capsys):
    from robustray.evaluation.evaluation import plan_evaluation
    from robustray.evaluation.plan import agreed_size
    from robustray.manifest import load_manifest

    plan = plan_evaluation(load_manifest("good.yaml", []), open_store(), None)
    agreed_size(open_store(), plan.prefix, 20)
    assert main(["status", "--manifest", "good.yaml"]) == 0
    assert "pgd-20                   0 of 3 units" in capsys.readouterr().out


STRANGE = """
import torch
from torch import nn
class Strange(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.linear.weight.data = torch.from_numpy(self.linear.weight.detach().numpy() * 0)
        assert float(self.linear.weight.detach().sum()) == 0  # there are numbers
    def forward(self, x):
        if float(x.amax()) > 2:
            raise ValueError
        return self.linear(torch.from_numpy(x.detach().numpy()).flatten(1)) + 0 * x.sum()
"""


def test_a_network_that_can_not_be_counted_is_planned_all_the_same(here, capsys, monkeypatch):
    (here / "strange_net.py").write_text(STRANGE)
    monkeypatch.syspath_prepend(here)
    wanted = ("--model", "strange_net:Strange", "--set", "data.name=digits", "--suite", "pgd-20")
    assert main(["evaluate", *wanted, "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert "strange_net:Strange" in printed.out
    assert "FLOPs unknown" in printed.out
    assert not printed.err


BROKEN = """
import torch
def net(path="nowhere.pt"):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.load(path))
def wrong_type(): return 3 + "a"
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken_net:net", ("factory.function: broken_net:net fails: FileNotFoundError", ", line")),
        ("broken_net:wrong_type", ("fails: TypeError: unsupported operand", "line 5")),
        ("broken_import:net", ("broken_import fails when it is imported: ZeroDivisionError",)),
    ],
)
def test_networks_that_fail_to_be_built_are_told_in_one_message(
    here, capsys, monkeypatch, name, words
):
    (here / "broken_net.py").write_text(BROKEN)
    (here / "broken_import.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(here)
    told = refused(capsys, "evaluate", "--model", name, "--set", "data.name=digits")
    assert all(word in told for word in words)


ODD = """
import torch
class Net(torch.nn.Module):
    def forward(self, x):
        return {"logits": x.flatten(1)[:, :10]}
"""


def test_a_network_that_returns_no_logits_is_refused_in_one_line(here, capsys, monkeypatch):
    (here / "odd_net.py").write_text(ODD)
    monkeypatch.syspath_prepend(here)
    named = ("--model", "odd_net:Net", "--set", "data.name=digits", "--suite", "pgd-20")
    for command in (("evaluate", *named, "--dry-run"), ("evaluate", *named), ("audit", *named[:4])):
        told = refused(capsys, *command)
        assert "factory: the network fails on images (1, 8, 8) of digits" in told
        assert "returns a dict with the keys 'logits'" in told
        assert told.count("\n") == 1
