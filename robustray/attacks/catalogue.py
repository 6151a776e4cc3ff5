"""The attacks and suites that are known by name."""

from __future__ import annotations

from functools import partial
from typing import Any

from robustray.attacks.apgd import apgd_ce, apgd_dlr, apgd_t, make_apgd
from robustray.attacks.apgd_adaptive import apgd_mixture, check_apgd_mixture
from robustray.attacks.carlini_wagner import check_cw_l2, cw_l2
from robustray.attacks.fab import fab, fab_t, make_fab, make_fab_t
from robustray.attacks.fgsm import check_fgsm, fgsm
from robustray.attacks.pgd import check_pgd, pgd
from robustray.attacks.square import square
from robustray.attacks.square_search import Square
from robustray.attacks.stadv import check_stadv, stadv
from robustray.attacks.suite import (
    AttackSpec,
    Suite,
    attack_suite,
    independent_suite,
    register_attack,
    register_suite,
)


def _study(name: str, attack: str, **options: Any) -> None:
    """Register one attack as a scaling study evaluates it: all images, final point decides.

    Huang et al., "Revisiting residual networks for adversarial robustness" (2023). They step by
    0.8/255 at eps 8/255; elsewhere the step keeps that proportion, eps / 10 (pgd's default).
    """
    register_suite(Suite(name, (AttackSpec(name, attack, options),), attack_all=True))


def _register_attacks() -> None:
    register_attack("fgsm", fgsm, check=check_fgsm)
    register_attack("pgd", pgd, check=check_pgd)
    register_attack("apgd-ce", apgd_ce, partial(make_apgd, loss="ce"))
    register_attack("apgd-dlr", apgd_dlr, partial(make_apgd, loss="dlr"))
    register_attack("apgd-t", apgd_t, partial(make_apgd, loss="targeted-dlr"))
    register_attack("fab", fab, make_fab)
    register_attack("fab-t", fab_t, make_fab_t)
    register_attack("square", square, Square)
    register_attack("cw-l2", cw_l2, check=check_cw_l2)
    register_attack("stadv", stadv, check=check_stadv)
    register_attack("apgd-mixture", apgd_mixture, check=check_apgd_mixture)


def _register_autoattack() -> None:
    """Register the versions of AutoAttack, and a short cascade for sweeps.

    Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks" (2020); for l1 "Mind the box: l1-APGD for sparse adversarial attacks on
    image classifiers" (2021).
    """
    standard = ("apgd-ce", "apgd-t", "fab-t", "square")
    restarts = {"n_restarts": 5}
    register_suite(
        _cascade("autoattack-standard", *standard),
        l1=_cascade(
            "autoattack-standard",
            AttackSpec("apgd-ce", options=restarts | {"l1_stages": True}),
            AttackSpec("apgd-t", options={"n_targets": 5, "l1_stages": True}),
            "fab-t",
            "square",
        ),
    )
    register_suite(
        _cascade(
            "autoattack-plus",
            *(AttackSpec(name, options=restarts) for name in ("apgd-ce", "apgd-dlr", "fab")),
            "square",
            "apgd-t",
            "fab-t",
        )
    )
    rand = (AttackSpec(name, options={"eot": 20}) for name in ("apgd-ce", "apgd-dlr"))
    register_suite(_cascade("autoattack-rand", *rand))
    register_suite(
        _cascade(
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
    register_suite(_cascade("smoothing-adaptive", *adaptive))
    standard = ("apgd-ce", "apgd-t", "fab-t", "square")
    register_suite(_cascade("smoothing-worst-case", *standard, *adaptive))


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


def _cascade(name: str, *attacks: str | AttackSpec) -> Suite:
    specs = (AttackSpec(one) if isinstance(one, str) else one for one in attacks)
    return Suite(name, tuple(specs))


_register_attacks()
_register_autoattack()
_register_smoothing()
_study("fgsm", "fgsm")
_study("pgd-10", "pgd", steps=10, loss="cross_entropy", start="study")
_study("pgd-20", "pgd", steps=20, loss="cross_entropy", start="study")
_study("cw-40", "pgd", steps=40, loss="cw_margin", start="study")
_register_published_table()
