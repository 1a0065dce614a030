"""Energy and cost of programs: events counted exactly, prices of events as bands (docs/energy.md)."""
