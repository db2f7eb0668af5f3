"""The region of interest of a class, out of image and labels, as a result of its own."""
