"""The page of a difference: `lpu diff A B --html FILE`."""

from lpu.diff.diff import Difference
from lpu.figures.results import changes_figure
from lpu.page.html import Page, Section, table
from lpu.pairs.racks import HEADERS, RackDifference
from lpu.pairs.times import TimesDifference, us
from lpu.report.words import caution, caution_of, kind


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


def times_page(found: TimesDifference) -> Page:
    """What differs between two reports in time: causes and parts of every time of them."""
    main, said = found.main, caution_of(found.a.label)
    return Page(
        title=f"{found.a.name} and {found.b.name}",
        answer=f"{main.name}: {us(main.more, '+')} us: {found.first}",
        facts=(
            *((f"a {name}", value) for name, value in found.a.said),
            *((f"b {name}", value) for name, value in found.b.said),
            ("comparable", f"times of {found.a.kind}"),
            ("causes", found.how),
            ("label", str(found.a.label)),
            *((("caution", said),) if said else ()),
        ),
        sections=(
            Section(
                name="why",
                title="Why",
                figures=(found.drawing(),),
                more=table(("differs", "a to b"), found.changed, "changed-table"),
            ),
            *(
                Section(
                    name=f"time-{i}",
                    title=f"{one.name}: {us(one.a)} to {us(one.b)} us",
                    more=table(
                        ("cause", "a to b", "us"),
                        [
                            *((cause.name, cause.what, us(cause.cycles, "+")) for cause in one.causes),
                            ("not explained", "", us(one.unexplained, "+")),
                        ],
                    )
                    + table(
                        ("part", "a, us", "b, us", "change, us"),
                        [(row.name, us(row.a), us(row.b), us(row.more, "+")) for row in one.rows],
                    ),
                )
                for i, one in enumerate(found.changes)
            ),
        ),
        report=found.to_json(),
    )


def racks_page(found: RackDifference) -> Page:
    """The numbers of two racks that are not the same."""
    said = caution(found.b.chip.name) or caution(found.a.chip.name)
    return Page(
        title=f"{found.a.name} and {found.b.name}",
        answer=f"{len(found.numbers)} numbers differ, {found.same} are the same",
        facts=(("kind", kind(found.b.chip.name)), *((("caution", said),) if said else ())),
        sections=(
            Section(
                name="numbers",
                title="Numbers",
                figures=(found.drawing(),),
                more=table(HEADERS, found.rows(), "numbers-table"),
            ),
        ),
        report=found.to_json(),
    )
