"""What the command line and the Python interface both do: run a grid with its report and progress, compare runs."""
