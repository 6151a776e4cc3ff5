"""The best trial of a study: the same one for its report, its status and its exported weights."""

from pathlib import Path

import pytest

from robustray.errors import UserError
from robustray.manifest import build_manifest
from robustray.store import LocalStore, seal
from robustray.sweeps import Study, make_plan, read_status
from robustray.sweeps.commands import ended_study
from robustray.sweeps.exporting import export_weights
from robustray.sweeps.judging import attacks_of, find_best
from robustray.sweeps.mending import save_study
from robustray.sweeps.parent_run import conclude_study, find_ended, study_run
from robustray.sweeps.records import read_results
from robustray.sweeps.report import publish

SUITE, OTHER = "autoattack-standard", "autoattack-standard_first10"
WIDTHS = ([0.5, 0.5, 0.5], [0.25, 0.5, 0.25], [0.25, 0.25, 0.25])  # the cheapest is the last
DEAR, MIDDLE, CHEAP = (f"d1-1-1_w{'-'.join(map(str, widths))}" for widths in WIDTHS)


def make_study(folder: Path, attacks: list[str]) -> tuple[LocalStore, Study]:
    manifest = build_manifest(
        {
            "kind": "Sweep",
            "name": "small",
            "model": {"depths": [1, 1, 1]},
            "grid": {"widths": {"settings": [list(widths) for widths in WIDTHS]}},
            "data": {"name": "digits", "validation": 60},
            "evaluation": {"attacks": attacks},
        }
    )
    store, study = LocalStore(folder / "store"), Study.from_manifest(manifest)
    assert [trial.name for trial in study.trials] == [DEAR, MIDDLE, CHEAP]
    save_study(store, study)
    return store, study


def finish(store: LocalStore, study: Study, name: str, metrics: dict[str, float]) -> None:
    result = {
        "trial": name,
        "epochs": 1,
        "selected_epoch": 1,
        "validation_accuracy": 0.5,
        "weights_sha256": "0" * 64,
        "metrics": metrics,
        "data": {"digest": "0" * 64},
    }
    store.put(f"{study.trial_prefix(name)}/result.json", seal(result))


def judge(store: LocalStore, study: Study, name: str, label: str, accuracy: float) -> None:
    result = {"robust": {"accuracy": accuracy, "total": 360}, "audit": []}
    entry = {"result": result, "ended_ms": 1}
    store.put(f"{study.trial_prefix(name)}/evaluations/{label}/record.json", seal(entry))


def everybodys_best(store: LocalStore, study: Study, folder: Path) -> tuple[str, str, float]:
    """Return the best trial, once everybody has named the same one."""
    found = find_best(store, study, read_results(store, study))
    assert found is not None
    assert read_status(store, study)["best"] == vars(found)
    published = publish(make_plan(study), store, folder / "reports")
    ended = ended_study(published, {}, interrupted=False)
    assert ended.best is not None
    assert (ended.best["name"], ended.judged_by) == (found.name, found.judged_by)
    assert ended.best[found.judged_by] == found.accuracy
    with pytest.raises(UserError, match=f"^{found.name}: "):  # its weights are none that there are
        export_weights(store, study, None, folder / "best.safetensors")
    return found.name, found.judged_by, found.accuracy


@pytest.mark.parametrize(
    ("attacks", "further", "best"),
    [
        (["fgsm", "pgd-20"], {}, (DEAR, "pgd-20", 0.6)),
        # A suite of AutoAttack judges once every finished trial has met it; no other does.
        (["fgsm", "pgd-20"], {SUITE: (0.2, 0.4, 0.3)}, (MIDDLE, SUITE, 0.4)),
        (["fgsm", "pgd-20"], {SUITE: (0.2, 0.4)}, (DEAR, "pgd-20", 0.6)),
        (["fgsm", "pgd-20"], {OTHER: (0.2, 0.4, 0.3)}, (DEAR, "pgd-20", 0.6)),
        # Of equal ones the cheapest.
        (["fgsm"], {}, (CHEAP, "fgsm", 0.6)),
        (["fgsm"], {SUITE: (0.3, 0.3, 0.2)}, (MIDDLE, SUITE, 0.3)),
    ],
)
def test_everybody_names_the_same_best_trial(tmp_path, attacks, further, best):
    store, study = make_study(tmp_path, attacks)
    accuracies = {"clean": (0.8, 0.9, 0.7), "fgsm": (0.6, 0.6, 0.6), "pgd-20": (0.6, 0.5, 0.4)}
    for row, trial in enumerate(study.trials):
        metrics = {name: accuracies[name][row] for name in ("clean", *attacks)}
        finish(store, study, trial.name, metrics)
    for label, found in further.items():
        for trial, accuracy in zip(study.trials, found, strict=False):
            judge(store, study, trial.name, label, accuracy)
    assert everybodys_best(store, study, tmp_path) == best


def test_the_strongest_suite_judges_and_only_as_the_study_is_judged(tmp_path):
    _, study = make_study(tmp_path, ["pgd-20"])
    met = ["autoattack-plus", "autoattack-rand", "autoattack-standard_seed1", "autoattack-standard"]
    others = ["autoattack-plus_l2-0.5", "autoattack-plus_validation", "autoattack-plus_bfloat16"]
    assert attacks_of(study.manifest, {"one": [*met, *others]}) == (
        "autoattack-plus_bfloat16", "autoattack-plus_l2-0.5", "autoattack-plus_validation",
        "pgd-20", "autoattack-rand", "autoattack-standard", "autoattack-standard_seed1",
        "autoattack-plus",
    )  # fmt: skip


def test_damage_or_data_that_is_away_hides_the_best_and_nothing_else(tmp_path, monkeypatch):
    store, study = make_study(tmp_path, ["fgsm"])
    for trial in study.trials:
        finish(store, study, trial.name, {"clean": 0.9, "fgsm": 0.5})
        judge(store, study, trial.name, SUITE, 0.4)

    def away(*_):
        raise UserError("no images here")

    with monkeypatch.context() as patch:
        patch.setattr("robustray.sweeps.judging.profile_trial", away)
        assert read_status(store, study)["best"]["name"] == min(DEAR, MIDDLE, CHEAP)
    store.put(f"{study.trial_prefix(DEAR)}/evaluations/{SUITE}/record.json", b"{")
    found = read_status(store, study)
    assert (found["best"], found["trials"]["done"], found["state"]) == (None, 3, "finished")


def test_trials_that_are_not_finished_do_not_count(tmp_path):
    store, study = make_study(tmp_path, ["fgsm"])
    finish(store, study, MIDDLE, {"clean": 0.9, "fgsm": 0.5})
    judge(store, study, MIDDLE, SUITE, 0.1)
    judge(store, study, DEAR, SUITE, 0.9)  # left by an earlier result that was damaged
    assert everybodys_best(store, study, tmp_path) == (MIDDLE, SUITE, 0.1)


def test_nothing_is_best_where_nothing_was_judged(tmp_path):
    store, study = make_study(tmp_path, ["fgsm"])
    finish(store, study, DEAR, {"clean": 0.5})
    assert read_status(store, study)["best"] is None
    with pytest.raises(UserError, match="judged no trial"):
        export_weights(store, study, None, tmp_path / "best.safetensors")


def test_the_run_of_the_study_follows_what_judges_it(tmp_path):
    store, study = make_study(tmp_path, ["fgsm"])
    for row, trial in enumerate(study.trials):
        finish(store, study, trial.name, {"clean": 0.9, "fgsm": 0.5 + 0.1 * row})

    def record():
        published = publish(make_plan(study), store, tmp_path / "reports")
        last = conclude_study(study, published, store)
        return study_run(study, "FINISHED", 1, find_ended(study, published.states), last)

    def newest(metrics):
        return {p.name: p.value for p in metrics if p.name.startswith(("best", "median"))}

    own = record()
    assert own.columns.sorted_by == "test_fgsm"
    assert newest(own.metrics) == {"best_fgsm": 0.7, "median_fgsm": 0.6}
    for row, trial in enumerate(study.trials):
        judge(store, study, trial.name, SUITE, 0.4 - 0.1 * row)
    further = record()
    assert further.columns.sorted_by == f"test_{SUITE}"
    assert set(own.metrics) < set(further.metrics), "no point is taken back"
    assert newest(further.metrics) == {
        **newest(own.metrics), f"best_{SUITE}": 0.4, f"median_{SUITE}": pytest.approx(0.3)
    }  # fmt: skip
