"""What can be asked and what an answer holds. Standard library only."""
