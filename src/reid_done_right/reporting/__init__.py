"""The parts of a report: runs by table cell, tables, claims, figures, pages. No file is opened here."""
