"""Models held against published figures."""
