"""CulturePark."""
