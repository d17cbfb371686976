"""Walks through the table of transitions: what is tried, what must come of it, and a district in memory for them."""
