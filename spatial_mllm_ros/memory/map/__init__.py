"""What is free, occupied and unknown, kept up while frames come in, and what can be read from it."""
