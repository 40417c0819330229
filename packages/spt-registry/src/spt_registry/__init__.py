"""A run registry that needs no server: plain files per run, one derived SQLite index, a fast CLI."""
