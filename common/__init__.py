"""Book-keeping that two or more assignments share: command line, run folder, figures, reports."""
