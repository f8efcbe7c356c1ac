"""The report for people: page, text, tables, pictures and plots."""
