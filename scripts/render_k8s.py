"""Render k8s/*.yaml from k8s/base, and k8s/jobs/*.yaml from k8s/base/jobs, without any network.

python scripts/render_k8s.py [--image NAME:TAG]

KUBECTL names the program, which brings kustomize along. An image is first written into
k8s/image/kustomization.yaml, from where it reaches every manifest.

A rendered file has the name of the file in k8s/base that its objects come from, so that
`kubectl apply -f k8s/` applies them in order.
"""

import argparse
import os
import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent / "k8s"
HEADER = "# Rendered from k8s/{origin} by `make k8s-render`: change that, not this.\n"


def identity(manifest: dict) -> tuple[str, str]:
    """Return what an object is called within the namespace: kind and name."""
    return manifest["kind"], manifest["metadata"]["name"]


def build(folder: Path) -> list[str]:
    """Return the documents that kustomize makes of a folder, as text."""
    command = [os.environ.get("KUBECTL", "kubectl"), "kustomize", str(folder)]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return made.removeprefix("---\n").split("\n---\n")


def origins() -> dict[tuple[str, str], str]:
    """Return the file in k8s/base of each object that is applied."""
    files = [*ROOT.glob("base/*.yaml"), *ROOT.glob("base/ray/*.yaml")]
    found = {}
    for path in sorted(files):
        for manifest in yaml.safe_load_all(path.read_text()):
            if path.name != "kustomization.yaml":
                found[identity(manifest)] = path.relative_to(ROOT).as_posix()
    return found


def render() -> dict[str, str]:
    """Return the rendered files: path below k8s/ -> text."""
    origin_of, grouped = origins(), {}
    for text in build(ROOT / "base"):
        grouped.setdefault(origin_of[identity(yaml.safe_load(text))], []).append(text.strip())
    files = {
        Path(origin).name: HEADER.format(origin=origin) + "\n---\n".join(texts) + "\n"
        for origin, texts in grouped.items()
    }
    for text in build(ROOT / "base/jobs"):
        name = identity(yaml.safe_load(text))[1]
        files[f"jobs/{name}.yaml"] = HEADER.format(origin="base/jobs") + text.strip() + "\n"
    return files


def set_image(image: str) -> None:
    """Write the one setting that names the image; ValueError if it has no fixed tag."""
    name, _, tag = image.rpartition(":")
    if not name or "/" in tag or not tag or tag == "latest":
        raise ValueError(f"an image is NAME:TAG with a fixed tag, not {image!r}")
    path = ROOT / "image/kustomization.yaml"
    text = re.sub(r"newName: .*", f"newName: {name}", path.read_text())
    path.write_text(re.sub(r"newTag: .*", f'newTag: "{tag}"', text))


def write(target: Path) -> None:
    """Write the rendered files, and remove those that are rendered no more."""
    files = render()
    for stale in [*target.glob("*.yaml"), *target.glob("jobs/*.yaml")]:
        if stale.relative_to(target).as_posix() not in files:
            stale.unlink()
    for name, text in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", metavar="NAME:TAG", help="what the nodes pull")
    image = parser.parse_args().image
    try:
        if image:
            set_image(image)
        write(ROOT)
    except (ValueError, FileNotFoundError) as error:  # the latter: no kubectl
        parser.error(str(error))


if __name__ == "__main__":
    main()
