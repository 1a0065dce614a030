"""The page of a difference: `lpu diff A B --html FILE`."""

from lpu.diff.diff import Difference
from lpu.figures.results import changes_figure
from lpu.page.html import Page, Section, table
from lpu.report.words import kind


def difference_page(found: Difference) -> Page:
    """What differs between two programs, why, and where."""
    over = 100 * found.cycles / max(found.a.cycles, 1)
    causes = [
        (f"{'of it ' * bool(depth)}{one.name}", one.what, f"{one.cycles:+,}")
        for cause in found.causes
        for depth, some in ((0, (cause,)), (1, cause.parts))
        for one in some
    ]
    causes.append(("not explained", "", f"{found.unexplained:+,}"))
    return Page(
        title=f"{found.a.name} and {found.b.name}",
        answer=f"{found.cycles:+,} cycles ({over:+.1f} %): {found.first}",
        facts=(
            ("a", f"{found.a.model}, {found.a.cycles:,} cycles = {found.a.microseconds:.2f} us"),
            ("b", f"{found.b.model}, {found.b.cycles:,} cycles = {found.b.microseconds:.2f} us"),
            ("a sha256", found.a.digest),
            ("b sha256", found.b.digest),
            ("comparable", found.comparable),
            ("causes", found.how),
            ("kind", kind(found.b.chip)),
        ),
        sections=(
            Section(
                name="why",
                title="Why",
                figures=(found.drawing(),),
                more=table(("cause", "a to b", "cycles"), causes, "causes-table"),
            ),
            *(
                Section(
                    name=f"by-{name}",
                    title=f"By {name}",
                    figures=(changes_figure(f"by-{name}-figure", f"Cycles by {name}", rows),),
                )
                for name, rows in found.tables.items()
            ),
        ),
        report=found.to_json(),
    )
