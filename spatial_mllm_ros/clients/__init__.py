"""Clients of the services, for planners and agents."""
