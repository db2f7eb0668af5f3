"""What an exported model is: its spec, its file, its graph, and the statistics that it takes."""
