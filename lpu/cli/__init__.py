"""The command line: one file per noun, the options they share, what a person sees."""
