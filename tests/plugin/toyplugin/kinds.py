"""A kind of job that needs no worker: it says what it was asked."""

from robustray.kinds import JobKind
from robustray.manifest import Manifest
from robustray.runtime.commands import Commands, Ended


class Tally(Manifest):
    """Counts to a number."""

    number: int = 3


class TallyCommands(Commands[Tally]):
    """Prints the number."""

    def plan(self, manifest, request):
        """Print it."""
        request.say(f"counts to {manifest.number}")

    status = report = plan

    def run(self, manifest, request):
        """Print it, and be done."""
        self.plan(manifest, request)
        return Ended(True, False)


tally = JobKind(Tally, TallyCommands())
