"""Sheets that people hand in: read within bounds, in a child process, by declared columns; with a book of results."""
