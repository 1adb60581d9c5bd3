"""What a submit would start: instance, price, request. Makes no call."""
