"""The old module path."""
