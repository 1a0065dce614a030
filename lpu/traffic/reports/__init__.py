"""What a replay says in the end: spans with percentiles, pictures, a log of every request."""
