"""Code of users: finding what ``package.module:name`` names, and hashing what it is made of."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import json
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from robustray.errors import ManifestError, UserError

REFERENCE = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
_LIBRARIES = {"torch", "torchvision", "robustray"} | sys.stdlib_module_names
_INSTALLED = {"site-packages", "dist-packages"}


def is_reference(name: str) -> bool:
    """Tell ``package.module:name`` from a plain name."""
    return re.fullmatch(REFERENCE, name) is not None


def import_from(paths: Sequence[str]) -> None:
    """Let user code be imported from these folders, as far as they exist here."""
    for path in paths:
        if path not in sys.path and Path(path).is_dir():
            sys.path.insert(0, path)


def load_reference(reference: str) -> Any:
    """Return what ``package.module:name`` names; the package may lie in the working folder.

    Raises
    ------
    ManifestError
        If the module can't be imported, or has nothing of that name.
    """
    module_name, _, name = reference.partition(":")
    import_from((str(Path.cwd()),))
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ManifestError(
            f"{module_name} can't be imported ({error}); start the command where the package lies, "
            "or install it"
        ) from error
    except Exception as error:  # a user's code
        raise ManifestError(f"{module_name} fails when it is imported: {told(error)}") from error
    if not hasattr(module, name):
        raise ManifestError(f"{module_name} has no function {name!r}")
    return getattr(module, name)


def call(name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Return what a user's function returns.

    Raises
    ------
    ManifestError
        If it does not take the arguments, or fails; the path ("arguments") tells which.
    UserError
        As the function raises it.
    """
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise ManifestError(f"{name}: {error}", path="arguments") from error
    except ValueError:
        pass  # it has no signature to look at
    try:
        return function(**arguments)
    except UserError:
        raise  # says by itself what is wrong
    except Exception as error:  # a user's code
        raise ManifestError(f"{name} fails: {told(error)}") from error


def told(error: Exception) -> str:
    """Return an exception of a user's code in one line, with the place that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno})"


def digest_code(modules: Iterable[str], further: Iterable[str] = ()) -> str:
    """Hash the source of modules and of all that they import from the user's own code.

    That is what lies in the same package or, for code that is not installed, below the same
    folder, whether it is loaded yet or not. Edited code is other code: results of the old one
    must not be taken for its own. Blank modules, such as most ``__init__.py``, don't count.

    Parameters
    ----------
    modules : iterable of str
        Where to begin; libraries that come with robustray are left out.
    further : iterable of str
        Modules that are hashed without what they import.

    Returns
    -------
    str
        SHA-256, hexadecimal.
    """
    names = {name for start in modules for name in _reach(start)}
    names |= {name for name in further if _top(name) not in _LIBRARIES}
    sources = {}
    for name in names:
        source = _source(_find(name))
        if source is None or source.strip():
            known = source is not None
            sources[name] = hashlib.sha256(source.encode()).hexdigest() if known else "no source"
    return _digest(sources)


def digest_versions(versions: Mapping[str, str]) -> str:
    """Hash the versions of installed libraries: another one may have other code.

    Parameters
    ----------
    versions : mapping of str to str
        By the names of their distributions.

    Returns
    -------
    str
        SHA-256, hexadecimal.
    """
    return _digest(versions)


def _digest(content: Mapping[str, str]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(f"{text}\n".encode()).hexdigest()


def _reach(start: str) -> set[str]:
    """Return a module's name and those of the user's modules that it imports, at any distance."""
    if _top(start) in _LIBRARIES:
        return set()
    folder, found, left = _folder(_find(_top(start))), {start}, [start]
    while left:
        name = left.pop()
        spec = _find(name)
        near = {name.rpartition(".")[0]} | set(_imports(spec)) - {""}
        for other in near - found:
            own = _top(other) == _top(start)
            if other and (own or _lies_below(_find(_top(other)), folder)) and _find(other):
                found.add(other)
                left.append(other)
    return found


def _imports(spec: ModuleSpec | None) -> Iterator[str]:
    """Yield the names of all that a module may import, inside functions too."""
    try:
        tree = ast.parse(_source(spec) or "")
    except SyntaxError:
        return
    package = (spec.parent or "") if spec else ""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level > len(package.split(".")) or (node.level and not package):
                continue
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def _top(name: str) -> str:
    return name.partition(".")[0]


def _find(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except Exception:  # no package, no spec, or a user's package that fails
        return None


def _source(spec: ModuleSpec | None) -> str | None:
    try:
        return spec.loader.get_source(spec.name)  # type: ignore[union-attr]
    except (AttributeError, ImportError, OSError):
        return None


def _folder(spec: ModuleSpec | None) -> Path | None:
    """Return the folder in which a package or module lies; None if it is installed."""
    place = next(iter(spec.submodule_search_locations or ()), spec.origin) if spec else None
    folder = Path(place).parent if place and Path(place).exists() else None
    return None if folder is None or _INSTALLED & set(folder.parts) else folder


def _lies_below(spec: ModuleSpec | None, folder: Path | None) -> bool:
    own = _folder(spec)
    libraries = spec is not None and spec.name in _LIBRARIES
    return not libraries and folder is not None and own is not None and own.is_relative_to(folder)
