"""What a report is made of: runs looked up by table cell, Markdown and figures. No file is opened here."""
