"""What clients of OpenAI see: routes, bodies that are read, answers whole or token by token."""
