"""What lies in a job's folder: objects put whole, records, label volumes, tables."""
