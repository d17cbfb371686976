"""Indicators, and the rows that they are counted from."""
