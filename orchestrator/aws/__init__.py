"""The one door to AWS: the client, its errors, the instance types."""
