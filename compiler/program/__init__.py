"""The output language: instruction words and the compiled program."""
