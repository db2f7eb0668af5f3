"""PNG, JPEG, and folders of single-frame images."""
