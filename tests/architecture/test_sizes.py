"""Files and functions a reader can take in. Where one grows over, it is split by meaning."""

from __future__ import annotations

import ast
import io
import statistics
import tokenize
from collections.abc import Iterator
from pathlib import Path

import turnout

SOURCE = Path(turnout.__file__).parent
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_MEDIAN_LINES = 130

_NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}


def docstring_lines(tree: ast.AST) -> set[int]:
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                found.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return found


def code_lines(source: str) -> set[int]:
    """The numbers of the lines that hold code: no comment, no docstring, not empty."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - docstring_lines(ast.parse(source))


def sources() -> Iterator[tuple[str, str]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield str(path.relative_to(SOURCE)), path.read_text()


def test_code_lines_are_counted_without_prose() -> None:
    source = '"""One.\n\nTwo."""\n\n# three\nx = (\n    1,\n)\n\n\ndef f():\n    """Four."""\n    return """a\nb"""\n'
    assert code_lines(source) == {6, 7, 8, 11, 13, 14}


def test_files_are_small() -> None:
    sizes = {name: len(code_lines(source)) for name, source in sources()}
    assert {name: size for name, size in sizes.items() if size > MAX_FILE_LINES} == {}
    assert statistics.median(size for size in sizes.values() if size > 3) <= MAX_MEDIAN_LINES


def test_functions_are_small() -> None:
    long: dict[str, int] = {}
    for name, source in sources():
        code = code_lines(source)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = len(code & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))
                if size > MAX_FUNCTION_LINES:
                    long[f"{name}:{node.lineno} {node.name}"] = size
    assert long == {}
