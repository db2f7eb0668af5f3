"""Label images, read by one reader for all who need them: training, scoring, results of others."""
