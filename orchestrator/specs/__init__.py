"""What a person requests, checked offline."""
