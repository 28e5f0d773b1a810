"""What Tablehouse is deployed with."""
