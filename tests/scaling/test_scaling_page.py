"""The example of docs/guides/scaling.md, as it stands there; and its table of networks."""

from __future__ import annotations

import json
import re

import pytest

from robustray.scaling.rules import COMPOUND, Setting, compound
from tests.helpers.user_packages import REPOSITORY, ask

PAGE = (REPOSITORY / "docs/guides/scaling.md").read_text()
NETWORK, SCRIPT = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SHOWN = re.sub(r"```python\n.*?```\n", "", PAGE, flags=re.DOTALL)
COMMAND, TABLE, PRINTED = re.findall(r"```(?:bash)?\n(.*?)```", SHOWN, re.DOTALL)

RUN = """
import contextlib, io, json
from robustray.cli import main
said = [io.StringIO(), io.StringIO()]
with contextlib.redirect_stdout(said[0]):
    assert main({words}) == 0
with contextlib.redirect_stdout(said[1]):
    exec({script}, {{}})
print(json.dumps([one.getvalue() for one in said]))
"""


@pytest.mark.slow
def test_the_example_prints_what_stands_there(tmp_path):
    (tmp_path / "net.py").write_text(NETWORK)
    program, *words = COMMAND.split()
    assert program == "robustray"
    code = RUN.format(words=json.dumps(words), script=json.dumps(SCRIPT))
    assert ask(code, tmp_path) == [TABLE, PRINTED]


@pytest.mark.parametrize("target", COMPOUND)
def test_the_table_of_published_networks(target):
    row = next(line for line in PAGE.splitlines() if re.match(rf"\| {target}[ |]", line))
    cells = [cell.strip() for cell in row.strip("|").split("|")]

    def told(setting: Setting) -> list[str]:
        depths, widths = ("-".join(map(str, v)) for v in (setting.depths, setting.widths))
        share, gmacs = float(setting.depth_share), setting.macs / 1e9
        return [f"{depths}, {widths}", f"{share:.3f}", f"{gmacs:.2f}"]

    found = told(compound(target * 1e9))
    if compound(target * 1e9) == COMPOUND[target]:
        found[0] = "**the same**"
    assert cells[1:4] == told(COMPOUND[target])
    assert cells[4:7] == found
