"""Tables with columns of texts, pictures and recordings, besides numbers, categories and dates."""
