"""What is made of records: tables, a page with pictures, a submission. Nothing here trains."""
