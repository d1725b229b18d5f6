"""Words to a typed query and back. Imports queries alone."""
