"""What people touch: the command line and pictures."""
