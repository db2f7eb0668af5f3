"""From probabilities to labels: classes, objects, and how objects of blocks become whole."""
