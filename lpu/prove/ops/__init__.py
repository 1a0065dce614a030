"""The rules of the proof, one file per family of instructions: what a row makes of what it reads."""
