"""`stackseg tune`: every runtime and precision on a sample of the user's frames."""
