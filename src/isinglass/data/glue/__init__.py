"""Read GLUE: TSV as it is distributed (`tsv`), Parquet as the hub has it (`parquet`)."""
