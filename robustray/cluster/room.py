"""Finding room for work: on nodes that live, or on nodes that an autoscaler is asked for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from ray.exceptions import RpcError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from robustray.cluster.capacity import (
    Answer,
    ask_about,
    check_fits,
    describe,
    has_gpu,
    list_nodes,
    read_capacity,
)
from robustray.errors import MachineError, UserError
from robustray.manifest import Resources

_LOOK_S = 2.0
_TELL_S = 15.0
_IDLE_S = 60.0
_NO_GPU = (
    "GPUs are asked for and there is none, neither here nor on a cluster. Work on CPUs, however "
    "long it takes, with --set resources.gpus=0, or run with --yes. `make quickstart` "
    "(manifests/quickstart.yaml) needs no GPU"
)


class NoRoomError(UserError):
    """The autoscaler can start no nodes that would hold what is asked for."""


def find_room(
    resources: Resources, say: Callable[[str], None], *, cpus_do: bool, work: str
) -> Resources:
    """Return what each worker gets, once the connected cluster has room for one trial.

    Where the live nodes have none and an autoscaler may start more, it is asked for them, and
    the request is withdrawn when they are there, after ``resources.wait_minutes``, or with the
    death of this process. How large its nodes are nobody says beforehand: only its answer does.

    Parameters
    ----------
    resources : Resources
        What is asked for.
    say : callable
        Takes lines for a person: what is waited for, how long, until when.
    cpus_do : bool
        Whether to do without GPUs where there are none.
    work : str
        What is done then ("training").

    Raises
    ------
    UserError
        If no node is large enough, and none can be started.
    MachineError
        If none has come in time.
    """
    capacity = read_capacity()
    if resources.gpus > 0 and not has_gpu(capacity):
        refusal = _try_to_grow(resources, say, cpus_do) if capacity.grows else UserError(_NO_GPU)
        if refusal is None:
            return resources
        if not cpus_do:
            raise refusal
        say(f"no GPU anywhere: {work} on CPUs")
        resources = resources.model_copy(update={"gpus": 0.0})
    if not check_fits(resources, capacity):
        wait_for_room(resources, say)
    return resources


def _try_to_grow(
    resources: Resources, say: Callable[[str], None], cpus_do: bool
) -> UserError | MachineError | None:
    try:
        wait_for_room(resources, say, insist=not cpus_do)
    except (NoRoomError, MachineError) as error:
        return error
    return None


def wait_for_room(resources: Resources, say: Callable[[str], None], *, insist: bool = True) -> None:
    """Ask the autoscaler for the room of one trial, and wait until it is there.

    Who does not ``insist`` takes no for an answer that others' use of the nodes may explain, and
    waits no longer than a minute for an autoscaler that does nothing about the request.

    Raises
    ------
    NoRoomError
        If the autoscaler says that it can start no such nodes.
    MachineError
        If they have not come in ``resources.wait_minutes``.
    """
    begun = time.monotonic()
    patience_s = 60 * resources.wait_minutes
    until = time.strftime("%H:%M:%S", time.localtime(time.time() + patience_s))
    say(
        f"no live node has room for {describe(resources)}; asked the autoscaler for it, waiting "
        f"until {until} ({resources.wait_minutes:g} minutes)"
    )
    each = {"CPU": resources.cpus, "GPU": resources.gpus}
    bundle = {name: amount for name, amount in each.items() if amount}
    # A placement group, unlike `request_resources`, is one driver's own and dies with it.
    group = placement_group([bundle] * (resources.min_workers or resources.workers))
    try:
        _wait(group, resources, begun + patience_s, until, say, insist)
    finally:
        remove_placement_group(group)
    say(f"there is room after {time.monotonic() - begun:.0f} s")


def _wait(
    group: PlacementGroup,
    resources: Resources,
    deadline: float,
    until: str,
    say: Callable[[str], None],
    insist: bool,
) -> None:
    begun = told = time.monotonic()
    while not group.wait(min(_LOOK_S, max(0.1, deadline - time.monotonic()))):
        now, answer = time.monotonic(), Answer()
        with contextlib.suppress(RpcError):  # whoever is away now is asked again
            answer = ask_about(group)
        idle = not answer.words and now - begun > _IDLE_S
        if (answer.refused and not (insist and answer.contested)) or (idle and not insist):
            raise NoRoomError(_refusal(resources))
        words = "it can start no more while others use its nodes" if answer.refused else ""
        words = answer.words or words or "it has not begun to start any"
        if now > deadline:
            raise MachineError(
                f"no node with room for {describe(resources)} was started within "
                f"{resources.wait_minutes:g} minutes (resources.wait_minutes); the autoscaler "
                f"says: {words}. Nothing was started; run the same command to try again"
            )
        if now - told >= _TELL_S:
            told = now
            waited = f"waiting for {describe(resources)} for {now - begun:.0f} s, until {until}"
            say(f"{waited}; the autoscaler: {words}")


def _refusal(resources: Resources) -> str:
    return (
        f"resources: a trial needs {describe(resources)}, and no node has that. Live nodes: "
        f"{list_nodes(read_capacity().live)}. The autoscaler says that no type and number of nodes "
        "that it may start would suffice. Request less with --set resources.gpus=..., "
        "resources.cpus=... or resources.workers=..."
    )
