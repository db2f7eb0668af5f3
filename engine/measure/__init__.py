"""What is measured of labels: objects, their hulls, frames."""
