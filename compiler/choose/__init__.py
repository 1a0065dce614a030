"""What the compiler chooses by compiling several ways: units in use, the tp of a request."""
