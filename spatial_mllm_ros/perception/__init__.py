"""What sensors show, made into geometry: depth and poses from color alone, and what a box in an image shows."""
