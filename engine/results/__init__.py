"""A result as others read it."""
