"""The suites that are known by name."""

from __future__ import annotations

from typing import Any

from robustray.attacks.suite import (
    AttackSpec,
    Suite,
    attack_suite,
    independent_suite,
    register_suite,
)


def _register_study(name: str, attack: str, **options: Any) -> None:
    """Register one attack as a scaling study evaluates it: all images, final point decides.

    Huang et al., "Revisiting residual networks for adversarial robustness" (2023). They step by
    0.8/255 at eps 8/255; elsewhere the step keeps that proportion, eps / 10 (pgd's default).
    """
    register_suite(Suite(name, (AttackSpec(name, attack, options),), attack_all=True))


def _register_autoattack() -> None:
    """Register the versions of AutoAttack, and a short cascade for sweeps.

    Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks" (2020); for l1 "Mind the box: l1-APGD for sparse adversarial attacks on
    image classifiers" (2021).
    """
    standard = ("apgd-ce", "apgd-t", "fab-t", "square")
    restarts = {"n_restarts": 5}
    register_suite(
        _make_cascade("autoattack-standard", *standard),
        l1=_make_cascade(
            "autoattack-standard",
            AttackSpec("apgd-ce", options=restarts | {"l1_stages": True}),
            AttackSpec("apgd-t", options={"n_targets": 5, "l1_stages": True}),
            "fab-t",
            "square",
        ),
    )
    register_suite(
        _make_cascade(
            "autoattack-plus",
            *(AttackSpec(name, options=restarts) for name in ("apgd-ce", "apgd-dlr", "fab")),
            "square",
            "apgd-t",
            "fab-t",
        )
    )
    rand = (AttackSpec(name, options={"eot": 20}) for name in ("apgd-ce", "apgd-dlr"))
    register_suite(_make_cascade("autoattack-rand", *rand))
    register_suite(
        _make_cascade(
            "sweep-quick",
            AttackSpec("apgd-ce", options={"n_iter": 20}),
            AttackSpec("apgd-t", options={"n_iter": 20, "n_targets": 3}),
        )
    )


def _register_smoothing() -> None:
    """Register the attacks on mixed classifiers (linf), alone and after standard AutoAttack.

    Bai et al., "Improving the accuracy-robustness trade-off of classifiers via adaptive smoothing"
    (2024). A cascade breaks what any of its attacks breaks, so the second suite is the worst case
    over both.
    """
    adaptive = (
        AttackSpec("apgd-ce-rand", "apgd-mixture", {"weight": 0.5}),
        AttackSpec("apgd-t-rand", "apgd-mixture", {"weight": 0.5, "n_targets": 9}),
    )
    register_suite(_make_cascade("smoothing-adaptive", *adaptive))
    standard = ("apgd-ce", "apgd-t", "fab-t", "square")
    register_suite(_make_cascade("smoothing-worst-case", *standard, *adaptive))


def _register_published_table() -> None:
    """Register the row of the scaling study's tables: FGSM, PGD-20, CW-40 and AA, each on its own.

    Huang et al. (2023). As columns they attack the correctly classified images only; alone, the
    first three attack all images, as the study did.
    """
    name = "published-table"
    linf, l1 = (
        independent_suite(
            name,
            [attack_suite(one, norm) for one in ("fgsm", "pgd-20", "cw-40", "autoattack-standard")],
        )
        for norm in ("linf", "l1")
    )
    register_suite(linf, l1)


def _register_minimum_norm() -> None:
    """Register all attacks that look for minimal distances, each on its own, for each norm."""

    def make(*names: str) -> Suite:
        return independent_suite("minimum-norm", [_make_cascade(name, name) for name in names])

    register_suite(
        make("fmn", "deepfool"), make("fmn"), l2=make("fmn", "ddn", "deepfool"), l0=make("fmn")
    )


def _make_cascade(name: str, *attacks: str | AttackSpec) -> Suite:
    specs = (AttackSpec(one) if isinstance(one, str) else one for one in attacks)
    return Suite(name, tuple(specs))


_register_autoattack()
_register_smoothing()
_register_minimum_norm()
_register_study("fgsm", "fgsm")
_register_study("pgd-10", "pgd", steps=10, loss="cross_entropy", start="study")
_register_study("pgd-20", "pgd", steps=20, loss="cross_entropy", start="study")
_register_study("cw-40", "pgd", steps=40, loss="cw_margin", start="study")
_register_published_table()
