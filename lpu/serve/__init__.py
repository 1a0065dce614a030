"""A server that speaks the OpenAI API: tokens from the program, times from its schedule."""
