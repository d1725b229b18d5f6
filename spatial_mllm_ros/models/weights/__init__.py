"""Files of weights: what is in them, what they need, how they are loaded."""
