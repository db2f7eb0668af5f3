"""What is done for a job, one file per step, each with a record that commits it."""
