"""What a job will do, decided before it starts: plain data."""
