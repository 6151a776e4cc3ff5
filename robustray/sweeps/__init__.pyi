from .grid import Study, Trial, expand, profile_trials
from .mending import list_studies
from .plan import Plan, TrialCost, describe_plan, make_plan
from .records import load_study, read_trial
from .report import publish
from .study import Outcome, run_study
from .throughput import measure_here
from .watching import describe_status, read_status

__all__ = [
    "Outcome",
    "Plan",
    "Study",
    "Trial",
    "TrialCost",
    "describe_plan",
    "describe_status",
    "expand",
    "list_studies",
    "load_study",
    "make_plan",
    "measure_here",
    "profile_trials",
    "publish",
    "read_status",
    "read_trial",
    "run_study",
]
