"""What kinds of leak there are, one folder each."""
