"""One module per measured system: the same runs, written the way that system's documentation recommends."""
