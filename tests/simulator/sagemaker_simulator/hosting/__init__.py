"""Endpoints: models, their configurations, the course an endpoint takes, its containers, and the calls to them."""
