"""What everything that is computed runs in: the process, the fence around plugins, seeds, and the store."""
