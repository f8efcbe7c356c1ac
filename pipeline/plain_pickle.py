"""Pickles read as plain data: the names of functions in them are kept as names, and nothing is imported or called."""

import pickletools
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class Call:
    """What a pickle asks to be called: a function's "module name", its arguments, and the state of what it returns."""

    function: Any
    args: Any
    state: Any = None


def read_plain_pickle(content: bytes) -> Any:  # noqa: ANN401 (whatever was pickled)
    """Read a pickle of strings, whole numbers, lists, tuples, dicts and calls, as Python 2 wrote them.

    Strings of bytes are read as Latin-1. Raises ValueError for any other pickle.
    """
    try:
        return _read(content)
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"not a whole pickle: {error}") from None


def _read(content: bytes) -> Any:  # noqa: ANN401, C901, PLR0912 (a case for each opcode)
    # An Unpickler that refuses names would still let a few bytes reserve gigabytes, or nest keys until hashing them
    # overflows the stack. Here time and memory follow from the number of bytes.
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def pop_from(start: int) -> list[Any]:
        items = stack[start:]
        del stack[start:]
        return items

    for opcode, arg, _ in pickletools.genops(content):
        match opcode.name:
            case "SHORT_BINSTRING" | "BINSTRING" | "BININT1" | "BININT2" | "BININT" | "GLOBAL":
                stack.append(arg)
            case "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case "NONE":
                stack.append(None)
            case "NEWFALSE" | "NEWTRUE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(pop_from(marks.pop())))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(pop_from(-int(opcode.name[-1]))))
            case "APPEND":
                stack[-2].append(stack.pop())
            case "APPENDS":
                items = pop_from(marks.pop())
                stack[-1].extend(items)
            case "SETITEMS":
                items = pop_from(marks.pop())
                if not all(isinstance(key, str) for key in items[::2]):
                    raise ValueError("not a pickle of dicts with strings as keys")
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "REDUCE":
                stack[-2:] = [Call(*stack[-2:])]
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case "STOP":
                return stack.pop()
            case "PROTO":
                pass
            case name:
                raise ValueError(f"not a pickle of plain data: it has {name}")
    raise ValueError("not a whole pickle")
