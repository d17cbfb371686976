"""What follows when a limit comes near or the calendar changes."""
