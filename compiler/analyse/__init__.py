"""What follows from a program: bounds, chains, dataflow."""
