"""The tenants' door: keys, queue, routing, and the bytes of every answer."""
