"""One server for hundreds of adapters: requests with different ones share a denoising batch."""
