"""Figures of programs and reports as plain values that Plotly draws: nothing is imported to make one."""
