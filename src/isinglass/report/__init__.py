"""What is made of the records of a bench: statistics, tables, plots, and a page with all of them. Nothing here trains."""
