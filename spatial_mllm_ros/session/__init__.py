"""A recording streamed into a memory, and questions put to it: what the commands and the report share."""
