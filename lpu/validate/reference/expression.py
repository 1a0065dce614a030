"""Arithmetic that a data file writes as text, over named numbers: `1e3 * gb / rate`. Nothing else runs."""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

Value = float | int | bool
MOST_POWER = 64  # of an exponent
OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "ceil": math.ceil,
    "floor": math.floor,
    "log": math.log,
    "sqrt": math.sqrt,
}


class ExpressionError(Exception):
    """An expression has no value; says why, without the place."""


def evaluate(text: str, names: Mapping[str, Value]) -> Value:
    """The value of an expression. `a if c else b`, comparisons, `and`, `or`, `not` and FUNCTIONS are there.

    Raises ExpressionError: what is written is no such arithmetic, names nothing, or has no finite value.
    """
    try:
        value = _value(ast.parse(text.strip(), mode="eval").body, names)
    except (SyntaxError, ValueError, OverflowError, ZeroDivisionError, RecursionError) as error:
        why = "cannot be read" if isinstance(error, SyntaxError) else str(error)
        raise ExpressionError(f"{text!r}: {why}") from None
    except TypeError:
        raise ExpressionError(f"{text!r}: a function has other arguments") from None
    if not isinstance(value, bool) and not math.isfinite(value):
        raise ExpressionError(f"{text!r}: is {value}, no finite number")
    return value


def _value(node: ast.AST, names: Mapping[str, Value]) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() as value):
            return value
        case ast.Name(id=name):
            if name not in names:
                raise ExpressionError(f"{name!r} is no input. There are {', '.join(names)}.")
            return names[name]
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            power = _value(right, names)
            if abs(power) > MOST_POWER:
                raise ExpressionError(f"the exponent {power} is above {MOST_POWER}")
            return _value(left, names) ** power
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(left, names), _value(right, names))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, names)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in OPERATORS:
            return bool(OPERATORS[type(op)](_value(left, names), _value(right, names)))
        case ast.BoolOp(op=op, values=values):
            found = [bool(_value(one, names)) for one in values]
            return all(found) if isinstance(op, ast.And) else any(found)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _value(test, names) else orelse, names)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*(_value(one, names) for one in args))
        case _:
            raise ExpressionError(f"{ast.unparse(node)!r} is no arithmetic of named numbers")
