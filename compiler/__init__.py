"""Compiles a traced model into a program: every instruction's cycle, unit and address."""
