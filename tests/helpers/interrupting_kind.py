"""A module of a user's, for ``kind: counts:KIND``: a long job that has a run interrupted."""

COUNTING = '''
import os
import signal
import time

from pydantic import Field

from robustray.cluster import preemption
from robustray.kinds import JobKind
from robustray.manifest import Code, Manifest
from robustray.runtime.file_jobs import Product
from robustray.runtime.long_jobs import LongJob


class Counting(Manifest):
    """Counts to three; in the second step it sends SIGINT, the first time."""

    code: Code = Field(default_factory=dict)
    interrupts: int | None = None


def count(context):
    manifest, before = context.job.manifest, context.resume()
    for step in range(before.step + 1 if before else 1, 4):
        if step == 2 and manifest.interrupts and before is None:
            os.kill(manifest.interrupts, signal.SIGINT)
            while not preemption.asked():
                time.sleep(0.05)
        context.commit(step, {}, {}, metrics={"step": step})
    return Product({"metrics": {"steps": step}}, {"page.html": b"<p>three</p>"})


KIND = JobKind(
    Counting,
    LongJob(
        folder="counting", work=count, count_steps=lambda manifest: 3,
        describe_plan=lambda manifest, found: "three", describe_result=str,
    ),
)
'''
