"""The reference cases as a table: for a terminal, as Markdown, and as one HTML page."""

from html import escape

from lpu.validate.reference.expression import Value
from lpu.validate.reference.reference import CaseResult, Recomputed, Reference

HEADERS = ("case", "quantity", "unit", "printed", "on its own basis", "right", "status", "verdict")
FORMATS = ("text", "markdown", "html")
VERDICTS = {True: "as stated", False: "DIFFERS", None: "-"}
STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{border:1px solid #bbb;padding:.2em .6em;text-align:left}"
    ".WRONG{background:#fdd}.BASIS{background:#ffd}.CONFLICT{background:#fed}.OK{background:#dfd}"
    ".CLAIM{color:#666}"
)


def cells(result: CaseResult, figure: Recomputed) -> list[str]:
    """One row under HEADERS."""
    row = figure.row
    basis = number(figure.basis) + (f" ({row.assumes})" if row.assumes else "")
    printed = row.printed if row.other is None else f"{row.printed} | {row.other}"
    verdict = "changed" if result.changed else VERDICTS[figure.passed]
    values = [printed, basis, number(figure.right)]
    return [result.case.id, row.name, row.unit or "-", *values, figure.status, verdict]


def number(value: Value | None) -> str:
    """Four digits that count; yes and no."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == 0 or 1e-3 <= abs(value) < 1e9:
        text = f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
        return text
    return f"{value:.3e}"


def rows(found: Reference) -> list[list[str]]:
    """All rows under HEADERS."""
    return [cells(result, figure) for result in found.results for figure in result.figures]


def markdown(found: Reference) -> str:
    """A section for each case: what is wrong, its inputs, its table."""
    out = ["# Published tables, recomputed", "", found.verdict, ""]
    for result in found.results:
        case = result.case
        out += [f"## {case.id} {case.title}: {result.status}", "", f"{case.where}. {case.says}", ""]
        if case.inputs:
            out += ["Inputs: " + ", ".join(f"`{k}` = {v:g}" for k, v in case.inputs.items()), ""]
        out += ["| " + " | ".join(HEADERS[1:]) + " |", "|" + "---|" * len(HEADERS[1:])]
        for figure in result.figures:
            out.append("| " + " | ".join(one.replace("|", "\\|") for one in cells(result, figure)[1:]) + " |")
        out.append("")
    return "\n".join(out)


def html(found: Reference) -> str:
    """The same as one page that needs no other file."""
    out = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Published tables, recomputed</title>",
        f"<style>{STYLE}</style><h1>Published tables, recomputed</h1><p>{escape(found.verdict)}</p>",
    ]
    for result in found.results:
        case = result.case
        out.append(f"<h2 id={escape(case.id)}>{escape(f'{case.id} {case.title}: {result.status}')}</h2>")
        out.append(f"<p>{escape(f'{case.where}. {case.says}')}</p>")
        if case.inputs:
            out.append(f"<p>Inputs: {escape(', '.join(f'{k} = {v:g}' for k, v in case.inputs.items()))}</p>")
        out.append("<table><tr>" + "".join(f"<th>{one}" for one in HEADERS[1:]))
        out += [
            f"<tr class={figure.status}>" + "".join(f"<td>{escape(c)}" for c in cells(result, figure)[1:])
            for figure in result.figures
        ]
        out.append("</table>")
    return "\n".join(out) + "\n"


def written(found: Reference, form: str) -> str:
    """The cases in one of FORMATS, as a whole file."""
    if form == "html":
        return html(found)
    return markdown(found) if form == "markdown" else f"{found}\n"
