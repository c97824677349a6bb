"""Timed and scored comparisons. Each prints a table, with what it ran on; nothing here is asserted in tests."""
