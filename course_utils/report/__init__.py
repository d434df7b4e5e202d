"""The report of an assignment: what a notebook shows and says, without its code, as a page and as a PDF."""
