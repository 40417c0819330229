"""Reading runs: the scanner, the SQLite index, and queries."""
