"""Cases that belong together: merged ones, and parts of one."""
