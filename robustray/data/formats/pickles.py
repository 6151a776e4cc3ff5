"""Pickles read as data, by a machine for their opcodes that knows no code.

A pickle is a program. This machine keeps its stack and its memo; whatever the program would import
or call goes to a `Builder`, which knows a few names and refuses the rest. Every length is compared
with the bytes that are there before it is used, so what is built is about as large as the file.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

Buffer = bytes | mmap.mmap

_STEPS = 20_000_000
_LINE = 10_000
_SCALARS = (str, bytes, int, float, type(None))
_CONTAINERS = (list, dict, bytearray)


class PickleError(ValueError):
    """A pickle is damaged, or asks for what is not allowed."""


@dataclass(frozen=True)
class Function:
    """What a name of a pickle stands for, where that may be called: a function of ours."""

    call: Callable[..., Any]


class Builder:
    """Answers the requests of a pickle; this one refuses them all."""

    def find(self, module: str, name: str) -> Any:
        """Return what a name stands for; nothing is ever imported."""
        raise PickleError(f"it asks for {module[:200]}.{name[:200]}, refused")

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """Return what a call gives; only a `Function` can be called."""
        if not isinstance(function, Function):
            raise PickleError(f"it calls a {type(function).__name__}, refused")
        return function.call(*arguments)

    def set_state(self, target: Any, state: Any) -> None:
        """Give an object its state."""
        raise PickleError(f"it sets the state of a {type(target).__name__}, refused")

    def put(self, target: Any, items: list[Any]) -> None:
        """Add items to an object that is no list, dict or set."""
        raise PickleError(f"it puts items into a {type(target).__name__}, refused")

    def load(self, reference: Any) -> Any:
        """Return what lies outside of the pickle under a reference."""
        raise PickleError("it refers to something outside of itself, refused")


def read_pickle(
    data: Buffer, builder: Builder, start: int = 0, *, text: bool = False
) -> tuple[Any, int]:
    """Read one pickle, of protocols 0 to 5.

    Parameters
    ----------
    data : bytes or mmap
        The pickle; what follows it is left alone.
    builder : Builder
        What names mean.
    start : int
        Where it begins.
    text : bool
        Whether strings of Python 2 become str where they are UTF-8; they stay bytes else.

    Returns
    -------
    object, int
        Its value (sets become lists, subclasses of dict plain ones), and the place after it.

    Raises
    ------
    PickleError
        If it is damaged, refused, or longer than 20 million steps.
    """
    machine = _Machine(data, builder, start, text)
    try:
        return machine.run(), machine.at
    except PickleError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        raise PickleError(f"byte {machine.at}: {error or type(error).__name__}") from error
    except (struct.error, MemoryError, RecursionError, RuntimeError) as error:
        raise PickleError(f"byte {machine.at}: {error or type(error).__name__}") from error


class _Machine:
    """The stack, the marks and the memo of a pickle that is being read."""

    def __init__(self, data: Buffer, builder: Builder, start: int, text: bool) -> None:
        self.data, self.builder, self.at, self.text = data, builder, start, text
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        data, size = self.data, len(self.data)
        for _ in range(_STEPS):
            if self.at >= size:
                raise PickleError("it ends too soon")
            code = data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return self.pop()
            if code not in _STEP:
                raise PickleError(f"byte {self.at - 1}: the opcode {code:#04x} is not read")
            _STEP[code](self)
        raise PickleError(f"it has more than {_STEPS} steps")

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        if count > len(self.data) - self.at:
            raise PickleError(f"byte {self.at} announces {count} bytes more than there are")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at, self.at + _LINE)
        if end < 0:
            raise PickleError(f"byte {self.at}: a line has no end")
        found = self.take(end - self.at)
        self.at += 1
        return found

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise PickleError("it takes more from its stack than there is")
        return self.stack.pop()

    def top(self) -> Any:
        self.push(value := self.pop())
        return value

    def pop_mark(self) -> list[Any]:
        """Return all that was pushed since the last mark."""
        if not self.marks:
            raise PickleError("a mark is missing")
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def old_text(self, raw: bytes) -> Any:
        """Return a string of Python 2."""
        try:
            return raw.decode() if self.text else raw
        except UnicodeDecodeError:
            return raw

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(items)
        else:
            self.builder.put(target, items)

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict):
            self.builder.put(target, items)
            return
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_checked_key(key)] = value

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(arguments, tuple):
            raise PickleError(f"it calls with a {type(arguments).__name__} instead of a tuple")
        self.push(self.builder.call(function, arguments))

    def find(self, module: Any, name: Any) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("a name is no string")
        return self.builder.find(module, name)


def _checked_key(key: Any) -> Any:
    """Refuse keys that hold others: Python's own hash goes into them without a bound."""
    parts = key if isinstance(key, tuple) else (key,)
    if isinstance(key, _CONTAINERS) or (key is parts and not all(map(_is_scalar, parts))):
        raise PickleError(f"a key of a mapping is a {type(key).__name__}")
    return key


def _is_scalar(value: Any) -> bool:
    return isinstance(value, _SCALARS)


def _build(machine: _Machine) -> None:
    state, target = machine.pop(), machine.top()
    machine.builder.set_state(target, state)


def _global(machine: _Machine) -> None:
    module, name = machine.line().decode(), machine.line().decode()
    machine.push(machine.find(module, name))


def _stack_global(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(machine.find(module, name))


def _instance(machine: _Machine) -> None:
    module, name = machine.line().decode(), machine.line().decode()
    arguments = tuple(machine.pop_mark())
    machine.push(machine.builder.call(machine.find(module, name), arguments))


def _object(machine: _Machine) -> None:
    function, *arguments = machine.pop_mark() or [None]
    machine.push(machine.builder.call(function, tuple(arguments)))


def _new_with_names(machine: _Machine) -> None:
    names = machine.pop()
    if names:
        raise PickleError("it makes an object with named arguments, refused")
    machine.reduce()


def _old_string(machine: _Machine) -> None:
    raw = machine.line().strip()
    if len(raw) < 2 or raw[:1] != raw[-1:] or raw[:1] not in (b"'", b'"'):
        raise PickleError(f"byte {machine.at}: a string without quotes")
    machine.push(machine.old_text(raw[1:-1].decode("latin1").encode().decode("unicode_escape")
                                  .encode("latin1")))  # fmt: skip


def _whole_line(machine: _Machine) -> None:
    text = machine.line()
    machine.push({b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text))


def _remember(machine: _Machine, place: int) -> None:
    machine.memo[place] = machine.top()


def _recall(machine: _Machine, place: int) -> None:
    if place not in machine.memo:
        raise PickleError(f"the memo has nothing at {place}")
    machine.push(machine.memo[place])


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(items)))

    return step


def _pairs(machine: _Machine) -> None:
    items = machine.pop_mark()
    machine.push({})
    machine.set_items(items)


def _refuse(machine: _Machine) -> NoReturn:
    raise PickleError("it asks for a registered extension or an outside name, refused")


_BYTES = {ord("T"): "<i", ord("U"): "B"}  # strings of Python 2
_TEXT = {ord("X"): "<I", 0x8C: "B", 0x8D: "<Q"}
_RAW = {ord("B"): "<I", ord("C"): "B", 0x8E: "<Q"}
_STEP: dict[int, Callable[[_Machine], Any]] = {
    0x80: lambda m: m.take(1),
    0x95: lambda m: m.take(8),
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("0"): lambda m: m.pop() if len(m.stack) > (m.marks[-1] if m.marks else 0)
    else m.pop_mark(),
    ord("1"): lambda m: m.pop_mark(),
    ord("2"): lambda m: m.push(m.top()),
    ord("F"): lambda m: m.push(float(m.line())),
    ord("I"): _whole_line,
    ord("J"): lambda m: m.push(m.number("<i")),
    ord("K"): lambda m: m.push(m.number("B")),
    ord("L"): lambda m: m.push(int(m.line().rstrip(b"L"))),
    ord("M"): lambda m: m.push(m.number("<H")),
    ord("N"): lambda m: m.push(None),
    ord("P"): _refuse,
    ord("Q"): lambda m: m.push(m.builder.load(m.pop())),
    ord("R"): _Machine.reduce,
    ord("S"): _old_string,
    ord("V"): lambda m: m.push(m.line().decode("raw_unicode_escape")),
    ord("a"): lambda m: m.append([m.pop()]),
    ord("b"): _build,
    ord("c"): _global,
    ord("d"): _pairs,
    ord("}"): lambda m: m.push({}),
    ord("e"): lambda m: m.append(m.pop_mark()),
    ord("g"): lambda m: _recall(m, int(m.line())),
    ord("h"): lambda m: _recall(m, m.number("B")),
    ord("i"): _instance,
    ord("j"): lambda m: _recall(m, m.number("<I")),
    ord("l"): lambda m: m.push(m.pop_mark()),
    ord("]"): lambda m: m.push([]),
    ord("o"): _object,
    ord("p"): lambda m: _remember(m, int(m.line())),
    ord("q"): lambda m: _remember(m, m.number("B")),
    ord("r"): lambda m: _remember(m, m.number("<I")),
    ord("s"): lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    ord("t"): lambda m: m.push(tuple(m.pop_mark())),
    ord(")"): lambda m: m.push(()),
    ord("u"): lambda m: m.set_items(m.pop_mark()),
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    0x81: _Machine.reduce,
    0x82: _refuse,
    0x83: _refuse,
    0x84: _refuse,
    0x85: _tuple_of(1),
    0x86: _tuple_of(2),
    0x87: _tuple_of(3),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    0x8A: lambda m: m.push(int.from_bytes(m.take(m.number("B")), "little", signed=True)),
    0x8B: lambda m: m.push(int.from_bytes(m.take(m.number("<i")), "little", signed=True)),
    0x8F: lambda m: m.push([]),
    0x90: lambda m: m.append(m.pop_mark()),
    0x91: lambda m: m.push(m.pop_mark()),
    0x92: _new_with_names,
    0x93: _stack_global,
    0x94: lambda m: _remember(m, len(m.memo)),
    0x96: lambda m: m.push(bytearray(m.take(m.number("<Q")))),
}  # fmt: skip
_STEP |= {c: lambda m, f=f: m.push(m.old_text(m.take(m.number(f)))) for c, f in _BYTES.items()}
_STEP |= {c: lambda m, f=f: m.push(m.take(m.number(f)).decode("utf-8", "surrogatepass"))
          for c, f in _TEXT.items()}  # fmt: skip
_STEP |= {c: lambda m, f=f: m.push(m.take(m.number(f))) for c, f in _RAW.items()}
