"""Handlers: three lines each, from parameters to a service's verb. They decide nothing."""
