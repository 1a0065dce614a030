"""Numbers as a person reads them."""


def percent(share: float) -> str:
    """A share as percent, two digits where it is small."""
    return f"{100 * share:.1f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def size(count: int) -> str:
    """Bytes in the largest decimal unit that they fill."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
