"""What the digest of a user's code covers."""

from __future__ import annotations

import sys

import pytest

from robustray.user_code import digest_code

FILES = {
    "wobbly/__init__.py": "",
    "wobbly/nets.py": "import json, torch\nfrom wobbly import blocks\nfrom . import far\n",
    "wobbly/blocks.py": "def make():\n    from wobbly.deep.inner import f\n    return f\n",
    "wobbly/deep/__init__.py": '"""Deep."""\n',
    "wobbly/deep/inner.py": "import wobbly_beside\n",
    "wobbly/far.py": "x = 1\n",
    "wobbly/apart.py": "x = 1\n",
    "wobbly_beside.py": "x = 1\n",
    "wobbly_apart.py": "x = 1\n",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("wobbly")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", FILES)
def test_it_covers_what_is_imported_from_the_package_and_beside_it(folder, name):
    before = digest_code(["wobbly.nets"])
    assert digest_code(["wobbly.nets"]) == before
    path = folder / name
    path.write_text(path.read_text() + "# edited\n")
    assert (digest_code(["wobbly.nets"]) == before) == ("apart" in name)


def test_robustray_and_libraries_do_not_count(folder):
    nothing = digest_code([])
    assert digest_code(["torch.nn"], ["robustray.models", "json", "torch"]) == nothing
    assert digest_code([], ["yaml"]) != nothing
