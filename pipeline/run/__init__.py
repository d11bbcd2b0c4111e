"""A run: its steps, the order they are in, and the search for arms."""
