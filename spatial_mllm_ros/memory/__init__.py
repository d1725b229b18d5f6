"""The bounded spatial memory: frames in, keyframes out."""
