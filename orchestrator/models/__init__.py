"""Base models: copies of them in a store, the Hub, their size."""
