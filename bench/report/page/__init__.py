"""results/<grid>/index.html: one page that needs nothing but itself."""
