"""What tenants asked for: endpoints.yaml read, checked, and turned into Endpoints."""
