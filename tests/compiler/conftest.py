"""Small programs that several tests look at, compiled once."""

from programs import dealt_program, pair_program, piped_program

__all__ = ["dealt_program", "pair_program", "piped_program"]
