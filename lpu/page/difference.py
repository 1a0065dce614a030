"""The page of a difference: `lpu diff A B --html FILE`."""

from lpu.diff.diff import Difference
from lpu.figures.results import changes_figure
from lpu.page.html import Page, Section, table
from lpu.pairs.racks import HEADERS, RackDifference
from lpu.pairs.times import TimesDifference, us
from lpu.report.words import caution, caution_of, kind

Found = Difference | TimesDifference | RackDifference
Facts = tuple[tuple[str, str], ...]


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
    return _page(
        found,
        f"{found.cycles:+,} cycles ({over:+.1f} %): {found.first}",
        (
            ("a", f"{found.a.model}, {found.a.cycles:,} cycles = {found.a.microseconds:.2f} us"),
            ("b", f"{found.b.model}, {found.b.cycles:,} cycles = {found.b.microseconds:.2f} us"),
            ("a sha256", found.a.digest),
            ("b sha256", found.b.digest),
            ("comparable", found.comparable),
            ("causes", found.how),
            ("kind", kind(found.b.chip)),
        ),
        (
            _shown(found, "why", "Why", table(("cause", "a to b", "cycles"), causes, "causes-table")),
            *(
                Section(
                    name=f"by-{name}",
                    title=f"By {name}",
                    figures=(changes_figure(f"by-{name}-figure", f"Cycles by {name}", rows),),
                )
                for name, rows in found.tables.items()
            ),
        ),
    )


def times_page(found: TimesDifference) -> Page:
    """What differs between two reports in time: causes and parts of every time of them."""
    main, said = found.main, caution_of(found.a.label)
    return _page(
        found,
        f"{main.name}: {us(main.more, '+')} us: {found.first}",
        (
            *((f"a {name}", value) for name, value in found.a.said),
            *((f"b {name}", value) for name, value in found.b.said),
            ("comparable", f"times of {found.a.kind}"),
            ("causes", found.how),
            ("label", str(found.a.label)),
            *((("caution", said),) if said else ()),
        ),
        (
            _shown(found, "why", "Why", table(("differs", "a to b"), found.changed, "changed-table")),
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
    )


def racks_page(found: RackDifference) -> Page:
    """The numbers of two racks that are not the same."""
    said = caution(found.b.chip.name) or caution(found.a.chip.name)
    return _page(
        found,
        f"{len(found.numbers)} numbers differ, {found.same} are the same",
        (("kind", kind(found.b.chip.name)), *((("caution", said),) if said else ())),
        (_shown(found, "numbers", "Numbers", table(HEADERS, found.rows(), "numbers-table")),),
    )


def _page(found: Found, answer: str, facts: Facts, sections: tuple[Section, ...]) -> Page:
    """The page of two things held against each other."""
    return Page(
        title=f"{found.a.name} and {found.b.name}",
        answer=answer,
        facts=facts,
        sections=sections,
        report=found.to_json(),
    )


def _shown(found: Found, name: str, title: str, more: str) -> Section:
    """The picture of a difference, and its table."""
    return Section(name=name, title=title, figures=(found.drawing(),), more=more)
