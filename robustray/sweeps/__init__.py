"""Sweeps: grids, what they cost, and running them on Ray Tune from the store's state."""

from robustray.sweeps.equal_cost import describe_target
from robustray.sweeps.grid import Study, Trial, expand, profile_trials
from robustray.sweeps.measure import measure_here
from robustray.sweeps.plan import Plan, TrialCost, describe_plan, make_plan
from robustray.sweeps.queue import Failure, TrialQueue
from robustray.sweeps.records import list_studies, load_study, read_trial
from robustray.sweeps.report import publish
from robustray.sweeps.status import describe_status
from robustray.sweeps.study import Outcome, run_study

__all__ = [
    "Failure",
    "Outcome",
    "Plan",
    "Study",
    "Trial",
    "TrialCost",
    "TrialQueue",
    "describe_plan",
    "describe_status",
    "describe_target",
    "expand",
    "list_studies",
    "load_study",
    "make_plan",
    "measure_here",
    "profile_trials",
    "publish",
    "read_trial",
    "run_study",
]
