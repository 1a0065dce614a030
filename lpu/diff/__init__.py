"""Two programs held against each other: which cycles differ, and why."""
