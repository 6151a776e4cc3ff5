from .grid import Study, Trial, expand, profile_trials
from .measure import measure_here
from .plan import Plan, TrialCost, describe_plan, make_plan
from .records import list_studies, load_study, read_trial
from .report import publish
from .status import describe_status
from .study import Outcome, run_study

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
    "read_trial",
    "run_study",
]
