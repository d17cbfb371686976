"""Work that is owed and long work: debts, jobs, leases."""
