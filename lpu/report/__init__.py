"""What a program keeps busy."""
