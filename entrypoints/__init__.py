"""Everything that runs with torch: what the bundle carries into a container."""
