"""What a way to share the work between GPUs and LPUs has to say: its name, its options, its report."""

from typing import ClassVar


class Mode:
    """One way to share the work. A mode is a frozen record of the options that are its alone."""

    name: ClassVar[str]
    layer: ClassVar[str]
    """What the parts are of that a report shows beside those of the turns."""
