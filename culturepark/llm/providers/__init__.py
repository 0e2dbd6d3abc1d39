"""Who answers a request: one module per kind of client."""
