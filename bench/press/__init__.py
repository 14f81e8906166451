"""The load of ``tensorwire press``: any requests, to any running server, by the public client."""
