"""Checks on site (专项核查)."""
