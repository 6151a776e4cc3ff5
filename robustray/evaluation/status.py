"""How far an evaluation is, as the store tells it; needs neither Ray nor MLflow."""

from __future__ import annotations

from robustray.evaluation.comparing import read_result
from robustray.evaluation.plan import Plan
from robustray.evaluation.units import UnitStore
from robustray.store import ObjectStore


def describe_status(plan: Plan, store: ObjectStore) -> str:
    """Return a line for each attack of each task: how many of its units are committed.

    Raises
    ------
    CorruptObjectError
        If its result is damaged.
    """
    there = UnitStore(store).committed(plan.tasks[0].subject.digest)
    done = store.exists(f"{plan.prefix}/result.json") and read_result(store, plan.id)
    lines = [f"{plan.id}: {'finished' if done else 'not finished'}"]
    for task in plan.tasks:
        for position in range(len(task.attacks) + 1):
            units = [task.unit(range_, position) for range_ in task.ranges]
            number = sum(unit.prefix in there for unit in units)
            name = " ".join(word for word in (task.name, task.labels[position]) if word)
            lines.append(f"  {name:<24} {number} of {len(units)} units")
    return "\n".join(lines)
