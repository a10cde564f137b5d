"""The model type inside a host, and all that happens while it trains."""
