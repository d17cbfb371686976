"""The record of what has changed."""
