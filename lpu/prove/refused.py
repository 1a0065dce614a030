"""What the proof refuses: a reason, and the row or the part of the manifest that gives it."""


class RefusedError(Exception):
    """The program is not proved: no rule accepts something in it. A subject is put before what was raised."""

    exit_code = 1

    def __init__(self, reason: str, *, layer: str = "", row: int = -1) -> None:
        super().__init__(reason)
        self.reason, self.layer, self.row = reason, layer, row


def need(holds: bool, otherwise: str) -> None:
    """Raise RefusedError unless a condition of a rule holds."""
    if not holds:
        raise RefusedError(otherwise)
