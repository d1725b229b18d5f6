"""Question in, Answer out."""
