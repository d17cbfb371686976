"""The table of transitions and what it means: guards, planning, the clock of a case, its timeline."""
