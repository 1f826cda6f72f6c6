"""Parts of OSCAR: hyper-encoders, their code books, the table of rates, the published file."""
