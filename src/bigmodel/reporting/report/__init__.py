"""A run on one page: charts, drawn once for SVG and PNG, and the page that holds them."""
