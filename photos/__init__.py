"""Photos: taken in, stripped, kept in three sizes, checked, handed out by signed links."""
