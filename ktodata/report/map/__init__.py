"""The data behind the map and the search of the page."""
