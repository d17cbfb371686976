"""`make run`: set-up, embedded services, the children and their logs."""
